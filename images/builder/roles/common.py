"""What every machine has."""

from __future__ import annotations

from typing import Any

from mesaform_images.builder.host import Host
from mesaform_images.builder.roles import Step


def steps(
    host: Host, recipe: dict[str, Any], _digest: str, _versions: dict[str, str]
) -> list[Step]:
    """Refresh the package index and install the common packages; nothing where the system is not ours."""
    if not host.is_whole_machine:
        return []
    return [
        ("refresh the package index", lambda: _refresh(host)),
        ("install common packages", lambda: host.install(recipe["common"]["packages"])),
    ]


def _refresh(host: Host) -> None:
    host.run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
