"""The recipe's data as the roles read it. Standard library only: msgspec is not installed yet."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TypedDict, cast

RECIPE = "recipe.toml"
OVERRIDES = "recipe.overrides.toml"
"""In the bundle: the fields that the operator's own file sets otherwise (MESAFORM_RECIPE)."""


class Common(TypedDict):
    packages: list[str]
    updates: str


class Docker(TypedDict):
    packages: list[str]


class ZooKeeper(TypedDict):
    packages: list[str]
    jar: str


class Deb(TypedDict):
    url: str
    sha256: str


class Engine(TypedDict):
    apt_source: str
    apt_key_url: str
    packages: list[str]
    debs: list[Deb]
    prefix: str
    programs: list[str]
    runtime_packages: list[str]


class SessionManager(TypedDict):
    url: str


class Python(TypedDict):
    interpreters: list[str]
    minimum: str


class Checks(TypedDict):
    programs: list[str]
    not_importable: list[str]


class Recipe(TypedDict):
    """images/recipe.toml; the operator's machine reads its other sections."""

    common: Common
    docker: Docker
    zookeeper: ZooKeeper
    engine: Engine
    session_manager: SessionManager
    python: Python
    checks: Checks


def read(bundle: Path) -> Recipe:
    """The recipe of a bundle, with the operator's fields."""
    data = tomllib.loads((bundle / RECIPE).read_text())
    own = bundle / OVERRIDES
    if own.exists():
        override(data, tomllib.loads(own.read_text()))
    return cast("Recipe", data)


def override(recipe: dict[str, dict[str, object]], own: dict[str, dict[str, object]]) -> None:
    """Replace fields of the recipe by those of the operator's file.

    Raises:
        ValueError: a section or field is none of the recipe's.

    """
    for section, fields in own.items():
        if section not in recipe:
            raise ValueError(f"[{section}] is no section of {RECIPE}")
        if unknown := sorted(set(fields) - set(recipe[section])):
            raise ValueError(f"[{section}] {unknown[0]} is no field of {RECIPE}")
        recipe[section].update(fields)


def role_variables(recipe: Recipe, digest: str, bundle: str) -> bytes:
    """The variables of site.yml as JSON; `bundle` is where Ansible finds the bundle."""
    variables = {"mesaform_recipe": recipe, "mesaform_digest": digest, "mesaform_bundle": bundle}
    return json.dumps(variables, indent=1).encode()
