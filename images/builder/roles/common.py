"""Debian packages of every machine, its clock, and updates by new images only."""

from __future__ import annotations

import time
from pathlib import Path

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Recipe
from mesaform_images.builder.roles import Step

REFRESH_ATTEMPTS = 10
REFRESH_PAUSE_S = 15.0

TIME_SOURCE = "server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4\n"
"""Amazon Time Sync Service. Source: EC2 user guide, "Set the time reference on your instance"."""

UPDATE_UNITS = ("unattended-upgrades.service", "apt-daily.timer", "apt-daily-upgrade.timer")
UNIT_FOLDERS = (Path("/lib/systemd/system"), Path("/usr/lib/systemd/system"))


def steps(host: Host, recipe: Recipe, _digest: str, _versions: dict[str, str]) -> list[Step]:
    """Install the common packages; no steps if this is not a whole machine."""
    if not host.is_whole_machine:
        return []
    return [
        ("refresh the package index", lambda: _refresh(host)),
        ("install common packages", lambda: host.install(recipe["common"]["packages"])),
        ("use the clock of the host", lambda: set_time_source(host)),
        ("leave updates to new images", lambda: _disable_updates(host)),
    ]


def _refresh(host: Host) -> None:
    """Read the package lists. apt-daily may hold their lock, which has no wait."""
    for attempt in range(1, REFRESH_ATTEMPTS + 1):
        try:
            host.run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
        except StepFailed:
            if attempt == REFRESH_ATTEMPTS:
                raise
            time.sleep(REFRESH_PAUSE_S)
        else:
            return


def set_time_source(host: Host) -> None:
    """Prefer Amazon's time service, which needs no way out; Debian's servers stay as a reserve."""
    folder = host.root / "etc/chrony/sources.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "amazon.sources").write_text(TIME_SOURCE)


def _disable_updates(host: Host) -> None:
    """Keep machines as they were baked: an update would restart all masters in one night."""
    for unit in UPDATE_UNITS:
        if any((folder / unit).exists() for folder in UNIT_FOLDERS):
            host.run("systemctl", "mask", unit)
