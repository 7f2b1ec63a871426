"""Limits of a task's processor share and memory by control groups, version 1 or 2.

Processor time is shared in proportion and has no upper limit; memory has one. Each container has a
group, which is removed with the container: in the unit of tasks that systemd delegates
(`task_unit`), elsewhere below `mesaform`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mesaform.engine.agent.task_unit import TASKS, UNIFIED, TaskUnit

PARENT = "mesaform"
MIN_MEMORY_MIB = 32
"""Mesos' own minimum (cgroups memory subsystem, MIN_MEMORY): a shell needs about that much."""
ABANDONED_S = 60.0
"""Seconds after which a group without processes is abandoned. A container's first process enters
its groups within milliseconds."""
_MIB = 1024 * 1024


class Limiter(Protocol):
    """Creates and removes the limits of containers."""

    def create(self, container_id: str, cpus: float, mem_mib: float) -> list[str]:
        """Create the container's groups.

        Return the `cgroup.procs` files that its first process must enter.

        Raises:
            OSError: the kernel refuses.

        """
        ...

    def over_limit(self, container_id: str) -> str:
        """The text of the limit that killed the container; empty when none did."""
        ...

    def remove(self, container_id: str) -> bool:
        """Remove the groups; False while a process is still in one of them. May be repeated."""
        ...

    def remove_abandoned(self, now: float) -> None:
        """Remove old groups without processes, which a killed agent left."""
        ...


class NoLimits:
    """For machines on which control groups cannot be used."""

    def create(self, container_id: str, cpus: float, mem_mib: float) -> list[str]:
        del container_id, cpus, mem_mib
        return []

    def over_limit(self, container_id: str) -> str:
        del container_id
        return ""

    def remove(self, container_id: str) -> bool:
        del container_id
        return True

    def remove_abandoned(self, now: float) -> None:
        del now


class CgroupsV1:
    """Version 1: a hierarchy per controller, such as `<root>/memory` and `<root>/cpu`.

    `memory` and `cpu` are the groups above those of containers.
    """

    def __init__(self, memory: Path, cpu: Path) -> None:
        self._memory = memory
        self._cpu = cpu

    def create(self, container_id: str, cpus: float, mem_mib: float) -> list[str]:
        groups = []
        if mem_mib > 0:
            group = _create(self._memory / container_id)
            _write(group / "memory.limit_in_bytes", _limit_bytes(mem_mib))
            groups.append(group)
        if cpus > 0:
            group = _create(self._cpu / container_id)
            _write(group / "cpu.shares", _shares(cpus))
            groups.append(group)
        return [str(group / "cgroup.procs") for group in groups]

    def over_limit(self, container_id: str) -> str:
        group = self._memory / container_id
        if _counter(group / "memory.oom_control", "oom_kill") == 0:
            return ""
        return _limit_text(
            _number(group / "memory.limit_in_bytes"), _number(group / "memory.max_usage_in_bytes")
        )

    def remove(self, container_id: str) -> bool:
        removed = [_remove(group / container_id) for group in (self._memory, self._cpu)]
        return all(removed)

    def remove_abandoned(self, now: float) -> None:
        for parent in (self._memory, self._cpu):
            _remove_abandoned(parent, now)


class CgroupsV2:
    """Version 2: one unified hierarchy.

    `parent` is the group above those of containers. It gets its controllers from the one above it.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def create(self, container_id: str, cpus: float, mem_mib: float) -> list[str]:
        if cpus <= 0 and mem_mib <= 0:
            return []
        _create(self._parent)
        for folder in (self._parent.parent, self._parent):
            _write(folder / "cgroup.subtree_control", "+cpu +memory")
        group = _create(self._parent / container_id)
        if mem_mib > 0:
            _write(group / "memory.max", _limit_bytes(mem_mib))
        if cpus > 0:
            # systemd's and runc's mapping of shares 2…262144 onto weights 1…10000.
            _write(group / "cpu.weight", 1 + (_shares(cpus) - 2) * 9999 // 262142)
        return [str(group / "cgroup.procs")]

    def over_limit(self, container_id: str) -> str:
        group = self._parent / container_id
        if _counter(group / "memory.events", "oom_kill") == 0:
            return ""
        return _limit_text(_number(group / "memory.max"), _number(group / "memory.peak"))

    def remove(self, container_id: str) -> bool:
        return _remove(self._parent / container_id)

    def remove_abandoned(self, now: float) -> None:
        _remove_abandoned(self._parent, now)


def detect(
    isolation: str, root: Path = Path("/sys/fs/cgroup"), unit: TaskUnit | None = None
) -> tuple[Limiter, str]:
    """The limiter that this machine allows, and a text for the log.

    `isolation` is MESOS_ISOLATION. An empty text means any limiter that works; a list without
    `cgroups/` means none. The groups of `unit`, if it has any, are preferred.
    """
    if isolation and "cgroups/" not in isolation:
        return NoLimits(), f"tasks are not limited (isolation {isolation})"
    if os.geteuid() != 0:
        return NoLimits(), "tasks are not limited: control groups need root"
    problem = f"no control groups below {root}"
    for limiter, text in _candidates(root, unit or TaskUnit(root=root)):
        try:
            _probe(limiter)
        except OSError as error:
            problem = str(error)
        else:
            return limiter, f"tasks are limited by {text}"
    return NoLimits(), f"tasks are not limited: {problem}"


def _candidates(root: Path, unit: TaskUnit) -> Iterator[tuple[Limiter, str]]:
    """Limiters to try, the preferred one first, each with its name."""
    if (root / "cgroup.controllers").exists():
        if (delegated := unit.folder(UNIFIED)) is not None:
            yield CgroupsV2(delegated / TASKS), f"cgroups v2 in {delegated}"
        yield CgroupsV2(root / PARENT), "cgroups v2"
    elif (root / "memory").exists() and (root / "cpu").exists():
        memory, cpu = unit.folder("memory"), unit.folder("cpu")
        if memory is not None and cpu is not None:
            yield CgroupsV1(memory / TASKS, cpu / TASKS), f"cgroups v1 in {memory}"
        yield CgroupsV1(root / "memory" / PARENT, root / "cpu" / PARENT), "cgroups v1"


def _probe(limiter: Limiter) -> None:
    """Create a group as for a container, and remove it.

    Raises:
        OSError: the kernel refuses.

    """
    name = f"probe-{os.getpid()}"
    try:
        limiter.create(name, 0.1, MIN_MEMORY_MIB)
    finally:
        limiter.remove(name)


def _limit_bytes(mem_mib: float) -> int:
    return int(max(mem_mib, MIN_MEMORY_MIB) * _MIB)


def _shares(cpus: float) -> int:
    return max(2, min(262144, int(cpus * 1024)))


def _limit_text(limit_bytes: int, used_bytes: int) -> str:
    return (
        f"Memory limit exceeded: Requested: {limit_bytes // _MIB}MB "
        f"Maximum Used: {used_bytes // _MIB}MB"
    )


def _create(group: Path) -> Path:
    group.mkdir(parents=True, exist_ok=True)
    return group


def _write(path: Path, value: object) -> None:
    path.write_text(f"{value}\n", encoding="ascii")


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _counter(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)


def _remove(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    with contextlib.suppress(OSError):
        group.parent.rmdir()  # succeeds for the last container
    return True


def _remove_abandoned(parent: Path, now: float) -> None:
    with contextlib.suppress(OSError):
        for group in [
            path
            for path in parent.iterdir()
            if path.is_dir() and path.stat().st_mtime < now - ABANDONED_S
        ]:
            _remove(group)  # fails for a group that has processes
