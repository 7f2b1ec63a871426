"""Processes that work on a cluster's state folder: which they are, and how they are ended in order.

A verb of `mesaform` is known from its record in the lock's file. A Terraform whose parents died is
known by a variable of its environment, by its working folder, or by its lock on a state file. Each
process is identified by its pid and its start time, so a later process with the pid is never taken
for it. Depends on /proc.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from mesaform.common import proc
from mesaform.common.durations import format_duration
from mesaform.provision.state_folders import STACKS, adoption_dir, state_file, synth_dir

FOLDER_MARK = "MESAFORM_STATE_FOLDER"
"""Variable that cdktf and Terraform inherit: the state folder on which they work."""
STOP_TIMEOUT_S = 180.0
"""Seconds until a stop kills: beyond the longest waits of the AWS provider."""
ALONE_S = 2.0
"""Seconds without a Terraform after a stop until cdktf has nothing left to do."""
LOOK_S = 0.2
STACKS_PROGRAM = "mesaform_stacks"
SYNTHESIS = "synthesis of the stacks"
TERRAFORM_VERBS = frozenset(
    {"init", "plan", "apply", "destroy", "import", "refresh", "output", "show", "untaint"}
)
_FLOCK = "hhqqi4x"
"""`struct flock` of Linux on 64 bits: type, whence, start, length, pid (fcntl(2))."""


class Holder(msgspec.Struct, frozen=True):
    """A process at work. `what` names its work, `since` is seconds since the epoch.

    `pid` is 0 if the process is not known.
    """

    pid: int
    start_ticks: int
    what: str
    since: float

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs."""
        return proc.is_alive(self.pid, self.start_ticks)

    def describe(self, now: float) -> str:
        """The holder for people: `mesaform up (pid 4711, since 23:41:06, for 12 s)`."""
        if not self.pid:
            return self.what
        at = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.what} (pid {self.pid}, since {at}, for {format_duration(now - self.since)})"


def this_process(what: str) -> Holder:
    """The running process as a holder."""
    return holder_of(os.getpid(), what) or Holder(os.getpid(), 0, what, time.time())


def holder_of(pid: int, what: str) -> Holder | None:
    """A process as a holder since its start; None if it ended."""
    process = proc.read_process(pid)
    if process is None or process.has_ended:
        return None
    return Holder(pid, process.start_ticks, what, proc.started_at(process, time.time()))


def find_workers(folder: Path) -> tuple[Holder, ...]:
    """Processes of cdktf and Terraform that work on a state folder, the oldest first."""
    workers: dict[int, Holder] = {}
    for pid in _pids_of(folder):
        if pid != os.getpid() and (worker := holder_of(pid, _work_of(pid))):
            workers[pid] = worker
    return tuple(sorted(workers.values(), key=lambda worker: (worker.since, worker.pid)))


def _pids_of(folder: Path) -> Iterator[int]:
    yield from proc.pids_with_environment(f"{FOLDER_MARK}={folder.resolve()}")
    standing = proc.pids_below((synth_dir(folder), adoption_dir(folder)))
    yield from (pid for pid in standing if is_terraform(proc.command_of(pid)))  # and no shell
    for stack in STACKS:
        if pid := _pid_with_lock(state_file(folder, stack)):
            yield pid


def _pid_with_lock(path: Path) -> int | None:
    """The process with Terraform's lock (a POSIX lock) on a state file; None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    finally:
        os.close(descriptor)
    return int(pid) if kind != fcntl.F_UNLCK and pid > 0 else None


def is_terraform(words: Collection[str]) -> bool:
    """Whether a command line is Terraform itself, neither a provider nor cdktf."""
    listed = list(words)
    is_named = any("terraform" in word for word in listed[:3])
    return is_named and bool(TERRAFORM_VERBS & set(listed[1:]))


def _work_of(pid: int) -> str:
    """What a process does, such as `terraform apply`."""
    words = proc.command_of(pid)
    if is_terraform(words):
        return "terraform " + next(word for word in words[1:] if word in TERRAFORM_VERBS)
    if any(word.endswith("/cdktf") for word in words[:2]):
        return " ".join(["cdktf", *words[2:3]])
    if STACKS_PROGRAM in words[1:4]:
        return SYNTHESIS
    return Path(words[0]).name if words else "a process"


def end_workers(folder: Path, advance: Callable[[str], None]) -> None:
    """End the processes that work on a folder, Terraform first and in order. Blocks.

    Each Terraform is interrupted once; it abandons what is under way and writes its state. What
    remains after `STOP_TIMEOUT_S` is killed.
    """
    interrupted: set[Holder] = set()
    began = alone_since = time.monotonic()
    while workers := find_workers(folder):
        now = time.monotonic()
        terraforms = [worker for worker in workers if worker.what.startswith("terraform ")]
        alone_since = now if terraforms else alone_since
        _send_all(set(terraforms) - interrupted, signal.SIGINT)
        interrupted |= set(terraforms)
        if number := _number_for(now - began, now - alone_since):
            _send_all(workers, number)
        advance(f"ending {workers[0].describe(time.time())}")
        time.sleep(LOOK_S)


def _number_for(stopping_s: float, alone_s: float) -> signal.Signals | None:
    """The signal for processes that remain; None while Terraform is given time."""
    if stopping_s > STOP_TIMEOUT_S:
        return signal.SIGKILL
    return signal.SIGTERM if alone_s > ALONE_S else None


def end_verb(holder: Holder, advance: Callable[[str], None]) -> None:
    """End a verb of `mesaform`: it stops its Terraform in order. Blocks; kills it after a time."""
    began = time.monotonic()
    send(holder, signal.SIGINT)
    send(holder, signal.SIGCONT)
    while holder.is_alive:
        if time.monotonic() - began > STOP_TIMEOUT_S:
            send(holder, signal.SIGKILL)
        advance(f"ending {holder.describe(time.time())}")
        time.sleep(LOOK_S)


def send(holder: Holder, number: signal.Signals) -> None:
    """Send a signal to this very process; nothing happens if it ended.

    Raises:
        PermissionError: the process belongs to another user.

    """
    if holder.is_alive:
        with suppress(ProcessLookupError):
            os.kill(holder.pid, number)


def _send_all(holders: Collection[Holder], number: signal.Signals) -> None:
    for holder in holders:
        send(holder, number)
