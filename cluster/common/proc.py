"""Processes as Linux shows them in /proc, and two `prctl` settings. Standard library only.

psutil is not used here: the engine's agent reads this for every task each second, and the node and
the engine must start in little memory (docs/adr/0010). /proc's format: proc_pid_stat(5).
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_READ_BYTES = 65536
_ENDED_STATES = frozenset({"Z", "X"})
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/<pid>/stat.

    `start_ticks` is in clock ticks since the machine booted; with the pid and `boot_id` it
    identifies a process for ever. Times are seconds of the processor, `rss_bytes` resident memory.
    """

    pid: int
    parent: int
    session: int
    state: str
    start_ticks: int
    user_s: float
    system_s: float
    rss_bytes: int

    @property
    def has_ended(self) -> bool:
        """Whether it is a zombie: it runs no more, and its parent has not reaped it."""
        return self.state in _ENDED_STATES


def _read(path: str) -> bytes:
    """The bytes of a file of /proc, without the buffers of a file object.

    A local cloud reads hundreds of these files each second.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, _READ_BYTES):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def read_process(pid: int) -> Process | None:
    """The process with this pid, zombies included; None when there is none."""
    try:
        line = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    fields = line.rpartition(b")")[2].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0].decode(),
        start_ticks=int(fields[19]),
        user_s=int(fields[11]) / _TICKS_PER_S,
        system_s=int(fields[12]) / _TICKS_PER_S,
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
    )


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether this very process runs; a zombie or a later process with the pid does not count."""
    process = read_process(pid)
    return process is not None and process.start_ticks == start_ticks and not process.has_ended


def pids() -> list[int]:
    """The pid of every process."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - hot path


def running_processes() -> dict[int, Process]:
    """Every process that has not ended, by pid."""
    processes = (read_process(pid) for pid in pids())
    return {
        process.pid: process
        for process in processes
        if process is not None and not process.has_ended
    }


def children(pid: int) -> list[int]:
    """The pids of the direct children of a process, without zombies."""
    return [process.pid for process in running_processes().values() if process.parent == pid]


def descendants(root: int, processes: Mapping[int, Process]) -> list[Process]:
    """Every process below `root` among `processes`; `root` itself is not in the list."""
    by_parent: dict[int, list[Process]] = {}
    for process in processes.values():
        by_parent.setdefault(process.parent, []).append(process)
    below: list[Process] = []
    parents = [root]
    while parents:
        direct = by_parent.get(parents.pop(), [])
        below += direct
        parents += [process.pid for process in direct]
    return below


def environment_of(pid: int) -> tuple[bytes, ...]:
    """Return the `NAME=value` entries of a process's start; empty if they are not readable."""
    try:
        return tuple(_read(f"/proc/{pid}/environ").split(b"\0"))
    except OSError:
        return ()


def pids_with_environment(entry: str, among: Iterable[int] | None = None) -> list[int]:
    """Return processes with this `NAME=value`, as far as their environment is readable."""
    wanted = entry.encode()
    return [pid for pid in (pids() if among is None else among) if wanted in environment_of(pid)]


def reap() -> Iterator[tuple[int, int]]:
    """Pid and wait status of every child that has ended, adopted orphans included."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def command_of(pid: int) -> list[str]:
    """Return the words of a process's command line; empty if it ended or is a kernel thread."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.split("\0")[:-1]


def pids_below(folders: Iterable[Path]) -> list[int]:
    """Return processes whose working folder is in one of these, as far as it is readable."""
    roots = [folder.resolve() for folder in folders]
    return [
        pid
        for pid in pids()
        if (current := _working_folder(pid)) and any(map(current.is_relative_to, roots))
    ]


def _working_folder(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def started_at(process: Process, now: float) -> float:
    """Return when a process started. `now` and the result are in seconds since the epoch."""
    uptime_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return now - uptime_s + process.start_ticks / _TICKS_PER_S


def boot_id() -> str:
    """An id that changes with every boot of the machine: pids of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def become_subreaper() -> None:
    """Make orphans below this process its children, so that it can reap them.

    Raises:
        OSError: the kernel refused.

    """
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends.

    Safe between fork and exec: one system call, no allocation that matters.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
