"""File locks of a cluster's state folder: `lock` for a verb, `terraform.lock` for Terraform.

A verb holds both while it changes anything. `terraform.lock` is handed on to the children that run
Terraform: after a `kill -9` of `mesaform`, Terraform is still at work, and the next run must wait
for it. The kernel releases a lock when the last process with the descriptor ends. A Terraform that
holds neither (its cdktf was killed as well, or a person started it) is found in /proc.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mesaform.common.errors import Busy
from mesaform.provision.holders import Holder, find_workers, this_process

VERB_LOCK = "lock"
TERRAFORM_LOCK = "terraform.lock"
BAKE_LOCK = "bake.lock"
"""In the folder of all clusters: two bakes at once would run two builders."""
LOCK_MODE = 0o600
LONGEST_NOTE_BYTES = 4096
UNKNOWN = "an unknown process"
END_IT = "wait until it ends, or end it: the same command with --end-other"


class Occupied(Busy):
    """Another process works on the cluster.

    `holder` is that process. `is_verb` says that it is a running verb of `mesaform`, and not a
    Terraform whose `mesaform` ended.
    """

    def __init__(self, holder: Holder, *, is_verb: bool, where: str) -> None:
        super().__init__(f"held by {holder.describe(time.time())}", where=where, fix=END_IT)
        self.holder = holder
        self.is_verb = is_verb


@dataclass(slots=True)
class HeldLock:
    """A lock that this process holds. A child that inherits `descriptor` holds it as well."""

    descriptor: int
    _holders: list[Holder] = field(default_factory=list)

    def note(self, holder: Holder) -> None:
        """Record another process that holds the lock: others see the first that is alive.

        On a full disk the lock is held without a record.
        """
        self._holders = [known for known in self._holders if known.is_alive]
        self._holders.append(holder)
        with suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, msgspec.json.encode(self._holders), 0)


@contextmanager
def hold(path: Path, what: str) -> Iterator[HeldLock]:
    """Hold the lock for the block.

    Args:
        path: the lock's file; created if missing, never removed.
        what: the holder's work as others see it, such as "mesaform up".

    Raises:
        Occupied: another process holds it.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, LOCK_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_verb = path.name == VERB_LOCK
            raise Occupied(_read_holder(descriptor), is_verb=is_verb, where=str(path)) from None
        held = HeldLock(descriptor)
        held.note(this_process(what))
        yield held
    finally:
        os.close(descriptor)


def _read_holder(descriptor: int) -> Holder:
    """The first recorded holder that is alive.

    The text of an older version, which is for people, becomes the work of a holder without a pid.
    """
    text = os.pread(descriptor, LONGEST_NOTE_BYTES, 0)
    try:
        holders = msgspec.json.decode(text, type=list[Holder])
    except msgspec.DecodeError:
        return Holder(0, 0, text.decode(errors="replace").strip() or UNKNOWN, 0.0)
    return next((holder for holder in holders if holder.is_alive), Holder(0, 0, UNKNOWN, 0.0))


@contextmanager
def hold_terraform(folder: Path, what: str) -> Iterator[HeldLock]:
    """Hold the lock of Terraform for the block. Nothing of a cluster is deleted without it.

    Args:
        folder: the cluster's state folder.
        what: the holder's work as others see it.

    Raises:
        Occupied: a Terraform of an earlier run, or one that a person started, is at work.

    """
    path = folder / TERRAFORM_LOCK
    with hold(path, what) as held:
        if workers := find_workers(folder):
            raise Occupied(workers[0], is_verb=False, where=str(folder))
        yield held


@contextmanager
def hold_cluster(folder: Path, verb: str) -> Iterator[HeldLock]:
    """Hold every lock that a verb needs before it changes anything; yields Terraform's lock.

    Raises:
        Occupied: a verb or a Terraform is at work. No lock is kept.

    """
    with hold(folder / VERB_LOCK, verb), hold_terraform(folder, verb) as held:
        yield held
