"""Limits of a machine's memory and processors, by control groups of version 1 or 2. Needs root."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mesaform.localcloud.containers.names import Owner
from mesaform.localcloud.protocol import Machine

CONTROL_GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
"""The period of a quota of processor time (cgroups(7))."""


def enter_files(owner: Owner, machine: Machine, root: Path = CONTROL_GROUPS) -> list[Path]:
    """Make the control groups of a machine, and return the files that take its first process.

    Empty where this host has no controller for it: then the machine has the limits of the host.
    """
    settings = (
        _settings_of_version_2(machine)
        if (root / "cgroup.controllers").exists()
        else _settings_of_version_1(machine)
    )
    files = []
    for controller, values in settings.items():
        above = root / controller
        if not above.is_dir():
            continue
        group = above / owner.control_group / machine.instance_id
        if controller == "":
            _pass_controllers_on(above, group)
        group.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (group / name).write_text(value)
        files.append(group / "cgroup.procs")
    return files


def _settings_of_version_1(machine: Machine) -> dict[str, dict[str, str]]:
    return {
        "memory": {"memory.limit_in_bytes": str(machine.mem_mib << 20)},
        "cpu": {"cpu.cfs_quota_us": str(machine.vcpus * PERIOD_US)},
    }


def _settings_of_version_2(machine: Machine) -> dict[str, dict[str, str]]:
    return {
        "": {
            "memory.max": str(machine.mem_mib << 20),
            "cpu.max": f"{machine.vcpus * PERIOD_US} {PERIOD_US}",
        }
    }


def _pass_controllers_on(above: Path, group: Path) -> None:
    group.parent.mkdir(exist_ok=True)
    for folder in (above, group.parent):
        (folder / "cgroup.subtree_control").write_text("+memory +cpu")


def remove(owner: Owner, instance_id: str, root: Path = CONTROL_GROUPS) -> None:
    """Remove a machine's control groups, with those that it made inside. Idempotent."""
    for above in _groups_of(owner, root):
        group = above / instance_id
        if not group.is_dir():
            continue
        inner = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
        for folder in (*inner, group):
            with contextlib.suppress(OSError):
                folder.rmdir()


def machines(owner: Owner, root: Path = CONTROL_GROUPS) -> set[str]:
    """The instances of this local cloud that have control groups."""
    return {
        path.name for above in _groups_of(owner, root) for path in above.iterdir() if path.is_dir()
    }


def remove_common(owner: Owner, root: Path = CONTROL_GROUPS) -> None:
    """Remove the groups above those of the machines, when there are none. Idempotent."""
    for above in _groups_of(owner, root):
        with contextlib.suppress(OSError):
            above.rmdir()


def _groups_of(owner: Owner, root: Path) -> list[Path]:
    folders = (root / name / owner.control_group for name in ("", "memory", "cpu"))
    return [folder for folder in folders if folder.is_dir()]
