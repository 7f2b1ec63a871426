"""Files with which Ansible makes machines of your own ready to be machines of a cluster."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import cast

from mesaform.common.errors import BadInput
from mesaform_images.builder import recipe as builder_recipe
from mesaform_images.bundle import Sources

BUNDLE = "bundle.tar.gz"
VARIABLES = "variables.json"
_ANSIBLE = ("site.yml", "ansible.lock")


def write(sources: Sources, folder: Path) -> None:
    """Write the playbook, its roles, their variables and the bundle into a new or empty folder.

    Raises:
        BadInput: the folder has files.

    """
    folder = folder.resolve()
    if folder.is_dir() and any(folder.iterdir()):
        raise BadInput("the folder is not empty", where=str(folder), fix="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in sources.builder.items():
        if path in _ANSIBLE or path.startswith("roles/"):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    bundle = folder / BUNDLE
    bundle.write_bytes(sources.bundle_bytes())
    variables = builder_recipe.role_variables(_recipe(sources), sources.digest(), str(bundle))
    (folder / VARIABLES).write_bytes(variables)


def _recipe(sources: Sources) -> builder_recipe.Recipe:
    data = tomllib.loads(sources.builder[builder_recipe.RECIPE].decode())
    if own := sources.builder.get(builder_recipe.OVERRIDES):
        builder_recipe.override(data, tomllib.loads(own.decode()))
    return cast("builder_recipe.Recipe", data)
