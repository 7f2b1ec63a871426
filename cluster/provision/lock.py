"""File locks of a cluster's state folder: `lock` for a verb, `terraform.lock` for Terraform.

A verb holds `lock` while it runs. `terraform.lock` is handed on to the child that runs Terraform:
after a `kill -9` of `mesaform`, Terraform is still at work, and the next run must wait for it. The
kernel releases the lock when the last process with the descriptor ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.errors import Busy
from mesaform.common.lock_wait import EARLIER_S, POLL_S
from mesaform.common.progress import Report, Stage, stage

LONGEST_NOTE_BYTES = 200
TERRAFORM_LOCK = "terraform.lock"


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that this process holds. A child that inherits `descriptor` holds it as well."""

    descriptor: int

    def note(self, text: str) -> None:
        """Write the text that others see who want the lock."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode()[:LONGEST_NOTE_BYTES], 0)


@contextmanager
def hold(path: Path, what: str) -> Iterator[HeldLock]:
    """Hold the lock for the block.

    Args:
        path: the lock's file; created if missing, never removed.
        what: the holder's work as others see it, such as "cdktf deploy".

    Raises:
        Busy: another process holds it; the message names the pid.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (
                os.pread(descriptor, LONGEST_NOTE_BYTES, 0).decode(errors="replace").strip()
                or "an unknown process"
            )
            raise Busy(
                f"held by {holder}",
                where=str(path),
                fix="wait until it ends, or end it; then run the same command again",
            ) from None
        held = HeldLock(descriptor)
        held.note(f"pid {os.getpid()}: {what}")
        yield held
    finally:
        os.close(descriptor)


@contextmanager
def hold_terraform(folder: Path, what: str, report: Report | None = None) -> Iterator[HeldLock]:
    """Hold the lock of Terraform for the block. Nothing of a cluster is deleted without it.

    Args:
        folder: the cluster's state folder.
        what: the holder's work as others see it.
        report: receives the stage of waiting while an earlier run's Terraform is still at work;
            without it the call does not wait.

    Raises:
        Busy: Terraform of an earlier run is still at work, for `EARLIER_S` where the call waits.

    """
    path = folder / TERRAFORM_LOCK
    with ExitStack() as locks:
        try:
            held = locks.enter_context(hold(path, what))
        except Busy:
            if report is None:
                raise
            with stage(report, "Wait for Terraform of an earlier run") as waiting:
                held = locks.enter_context(_hold_later(path, what, waiting))
        yield held


@contextmanager
def _hold_later(path: Path, what: str, waiting: Stage) -> Iterator[HeldLock]:
    began = time.monotonic()
    with ExitStack() as locks:
        while True:
            try:
                held = locks.enter_context(hold(path, what))
                break
            except Busy as error:
                if time.monotonic() - began > EARLIER_S:
                    raise
                waiting.advance(error.what)
            time.sleep(POLL_S)
        yield held
