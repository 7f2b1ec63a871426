"""Debian packages of every machine."""

from __future__ import annotations

from mesaform_images.builder.host import Host
from mesaform_images.builder.recipe import Recipe
from mesaform_images.builder.roles import Step


def steps(host: Host, recipe: Recipe, _digest: str, _versions: dict[str, str]) -> list[Step]:
    """Install the common packages; no steps if this is not a whole machine."""
    if not host.is_whole_machine:
        return []
    return [
        ("refresh the package index", lambda: _refresh(host)),
        ("install common packages", lambda: host.install(recipe["common"]["packages"])),
    ]


def _refresh(host: Host) -> None:
    host.run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
