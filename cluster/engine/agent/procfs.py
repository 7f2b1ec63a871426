"""Processes as /proc shows them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """`start_time` (ticks since boot) tells a process from a later one with the same pid."""

    pid: int
    parent: int
    start_time: int
    user_s: float
    system_s: float
    rss_bytes: int


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read(pid: int) -> Process | None:
    """None when there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    if state in {"Z", "X"}:
        return None
    return Process(
        pid=pid,
        parent=int(fields[0]),
        start_time=int(fields[18]),
        user_s=int(fields[10]) / _TICKS_PER_S,
        system_s=int(fields[11]) / _TICKS_PER_S,
        rss_bytes=int(fields[20]) * _PAGE_BYTES,
    )


def all_processes() -> dict[int, Process]:
    found = (read(pid) for pid in _pids())
    return {process.pid: process for process in found if process is not None}


def descendants(root: int, processes: dict[int, Process]) -> list[Process]:
    """Every process below `root`, not `root` itself."""
    below: dict[int, list[Process]] = {}
    for process in processes.values():
        below.setdefault(process.parent, []).append(process)
    family: list[Process] = []
    parents = [root]
    while parents:
        children = below.get(parents.pop(), [])
        family += children
        parents += [child.pid for child in children]
    return family


def with_environment(entry: str) -> list[int]:
    """Processes that were started with this `NAME=value` in their environment and that we may look at."""
    wanted = entry.encode()
    found = []
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.append(pid)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 a Path for each is wasted
