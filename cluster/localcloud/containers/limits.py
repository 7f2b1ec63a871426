"""Limits of a machine's memory and processors, by control groups of version 1 or 2. Needs root."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from mesaform.localcloud.containers.names import Owner
from mesaform.localcloud.protocol import Machine

CONTROL_GROUPS = Path("/sys/fs/cgroup")
REMOVAL_S = 2.0
REMOVAL_POLL_S = 0.02
BESIDE_VERSION_1 = "unified"
"""The hierarchy of version 2 on hosts whose controllers are those of version 1 (systemd(1))."""
PERIOD_US = 100_000
"""The period of a quota of processor time (cgroups(7))."""


def has_version_2(root: Path = CONTROL_GROUPS) -> bool:
    """Whether this host has all controllers in the one hierarchy of version 2."""
    return (root / "cgroup.controllers").exists()


def enter_files(owner: Owner, machine: Machine, root: Path = CONTROL_GROUPS) -> list[Path]:
    """Make the control groups of a machine, and return the files that take its first process.

    Of version 1 the machine has a group in each hierarchy, since what runs inside makes groups
    below the one in which the machine is. Empty where this host has no hierarchy: then the machine
    has the limits of the host.
    """
    files = []
    for hierarchy in _hierarchies(root):
        above = hierarchy / owner.control_group
        above.mkdir(exist_ok=True)
        _pass_on(hierarchy, above)
        group = above / machine.instance_id
        group.mkdir(exist_ok=True)
        for name, value in _settings(hierarchy, machine).items():
            (group / name).write_text(value)
        files.append(group / "cgroup.procs")
    return files


def _hierarchies(root: Path) -> list[Path]:
    """Where this host's hierarchies are mounted; a link is a second name of one."""
    if has_version_2(root):
        return [root]
    folders = (path for path in root.glob("*") if path.is_dir() and not path.is_symlink())
    return sorted(path for path in folders if path.name != BESIDE_VERSION_1)


def _pass_on(hierarchy: Path, group: Path) -> None:
    """Let groups below a new group use its controllers."""
    if has_version_2(hierarchy):
        for folder in (hierarchy, group):
            (folder / "cgroup.subtree_control").write_text("+memory +cpu")
    if "cpuset" in _controllers(hierarchy):
        # A group of cpuset takes no process before it has both (cpuset(7)).
        for name in ("cpuset.cpus", "cpuset.mems"):
            (group / name).write_text((hierarchy / name).read_text())
        (group / "cgroup.clone_children").write_text("1")


def _controllers(hierarchy: Path) -> list[str]:
    """The controllers of a hierarchy of version 1, after which its folder is named."""
    return hierarchy.name.split(",")


def _settings(hierarchy: Path, machine: Machine) -> dict[str, str]:
    if has_version_2(hierarchy):
        return {
            "memory.max": str(machine.mem_mib << 20),
            "cpu.max": f"{machine.vcpus * PERIOD_US} {PERIOD_US}",
        }
    settings = {}
    if "memory" in _controllers(hierarchy):
        settings["memory.limit_in_bytes"] = str(machine.mem_mib << 20)
    if "cpu" in _controllers(hierarchy):
        settings["cpu.cfs_quota_us"] = str(machine.vcpus * PERIOD_US)
    return settings


def remove(owner: Owner, instance_id: str, root: Path = CONTROL_GROUPS) -> None:
    """Remove a machine's control groups, with those that it made inside. Idempotent. Blocks.

    Processes that were killed leave their group a moment later. A group that still has some then
    stays.
    """
    give_up_at = time.monotonic() + REMOVAL_S
    for above in _groups_of(owner, root):
        while not _remove_tree(above / instance_id) and time.monotonic() < give_up_at:
            time.sleep(REMOVAL_POLL_S)


def _remove_tree(group: Path) -> bool:
    """Remove a group and those below it; whether it is gone."""
    inner = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    for folder in (*inner, group):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return not group.is_dir()


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
    folders = (hierarchy / owner.control_group for hierarchy in _hierarchies(root))
    return [folder for folder in folders if folder.is_dir()]
