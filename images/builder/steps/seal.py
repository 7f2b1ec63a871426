"""What is of the builder alone leaves its disk, so that machines of the image start as new ones.

That is its user data with a presigned URL, its machine id, host keys and seed of random numbers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mesaform_images.builder.host import Host
from mesaform_images.builder.recipe import Recipe
from mesaform_images.builder.steps import Step

LEFT_BY_CLOUD_INIT = ("var/lib/cloud", "var/log/cloud-init.log", "var/log/cloud-init-output.log")
MACHINE_ID = "etc/machine-id"


def steps(host: Host, _recipe: Recipe, _digest: str, _versions: dict[str, str]) -> list[Step]:
    """Clean the disk; no steps if this is not a whole machine."""
    if not host.is_whole_machine:
        return []
    return [
        ("remove downloaded packages", lambda: _remove_packages(host)),
        ("remove the builder's identity", lambda: remove_identity(host)),
    ]


def _remove_packages(host: Host) -> None:
    host.run("apt-get", "clean")


def remove_identity(host: Host) -> None:
    """Remove what cloud-init and systemd keep of this machine. Idempotent.

    An empty machine id is one that the next boot sets; without the file systemd would take the boot
    for a first one and enable units by its presets.
    """
    if host.program("cloud-init") is not None:
        host.run("cloud-init", "clean", "--logs")
    for name in LEFT_BY_CLOUD_INIT:
        _remove(host.root / name)
    _remove(host.root / "var/lib/systemd/random-seed")
    for key in (host.root / "etc/ssh").glob("ssh_host_*"):
        _remove(key)
    (host.root / MACHINE_ID).write_text("")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
