"""The recipe's data as the roles read it. Standard library only: msgspec is not installed yet."""

from __future__ import annotations

from typing import TypedDict


class Common(TypedDict):
    packages: list[str]


class ZooKeeper(TypedDict):
    packages: list[str]
    jar: str


class Engine(TypedDict):
    apt_source: str
    apt_key_url: str
    packages: list[str]
    programs: list[str]


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
    zookeeper: ZooKeeper
    engine: Engine
    session_manager: SessionManager
    python: Python
    checks: Checks
