"""Processes of a machine: started apart from the node, never outliving it, their output in files of bounded size.

Linux only (`prctl`). Must be used from the main thread: the kernel ties "die with the parent" to the thread that forked.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

LOG_CAP_BYTES = 8 * 1024 * 1024
"""A log of this size is rotated; one older part is kept, so a service's logs take at most about twice this."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that the node can end them all."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    cwd: Path,
    inherits: tuple[int, ...] = (),
) -> int:
    """Start a process in a session of its own, with its output appended to `log`; it dies if the node dies.

    Of the node's open files it has only those in `inherits`.

    Raises:
        OSError: there is no such program, or no memory.

    """
    with log.open("ab", buffering=0) as output:
        process = Popen(
            list(argv),
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            pass_fds=inherits,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread forks, and the function is one system call
        )
    process.returncode = 0  # this module reaps by itself; Popen must not
    return process.pid


def describe_end(status: int) -> str:
    """A wait status, for people."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def reap() -> Iterator[tuple[int, str]]:
    """Every child that has ended, adopted orphans included, with how."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, describe_end(status)


def terminate(pid: int) -> None:
    """Ask the process, and only it, to end; gone already is fine."""
    _signal(pid, signal.SIGTERM)


def kill(pid: int) -> None:
    """End the process at once; gone already is fine."""
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def children(pid: int) -> list[int]:
    """The process's direct children, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def name_of(pid: int) -> str:
    """What the kernel calls the process, in one word; its number when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip().replace(" ", "-") or str(pid)
    except OSError:
        return str(pid)


def end_descendants(within_s: float = 5.0) -> int:
    """Kill whatever is left below this process and reap it; returns how many processes that took.

    Orphans of what is killed become children of this process, so rounds are made until none is left.
    """
    give_up_at = time.monotonic() + within_s
    killed: set[int] = set()
    while left := children(os.getpid()):
        for pid in left:
            kill(pid)
        killed.update(left)
        if time.monotonic() > give_up_at:
            break
        time.sleep(0.01)
        for _ in reap():
            pass
    for _ in reap():
        pass
    return len(killed)


def rotate(log: Path, cap_bytes: int = LOG_CAP_BYTES) -> bool:
    """Move a log's content to `<log>.1` once it passes the cap.

    Copied and cut rather than renamed: the service holds the file open (for appending, so it goes on at the new end), and a
    pipe through the node instead would make services wait for, and die with, the node.
    """
    try:
        if log.stat().st_size <= cap_bytes:
            return False
    except FileNotFoundError:
        return False
    shutil.copyfile(log, log.with_name(log.name + ".1"))
    os.truncate(log, 0)
    return True
