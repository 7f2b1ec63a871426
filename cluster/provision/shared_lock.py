"""Locks of a cluster in the account's bucket: that of a verb, and those of Terraform's backend.

A verb that changes anything holds the object `lock.json` besides the locks of its own folder, so
that two checkouts never work at the same time. It is written only if there is none (a conditional
write of S3). A lock whose process ended on this very machine is replaced. Every other lock is shown
with its holder and age; `mesaform unlock` releases it.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mesaform.aws.bucket import ensure_state_bucket
from mesaform.common import proc
from mesaform.common.durations import format_duration
from mesaform.common.errors import Busy, CloudError
from mesaform.common.records import Codec, Unreadable
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.holders import this_process
from mesaform.provision.shared_state import SharedState, open_shared_state

LOCK = "lock.json"
TERRAFORM_SUFFIX = ".tflock"
UNKNOWN = "an unknown holder"


class SharedHolder(msgspec.Struct, frozen=True):
    """Who holds the lock of a verb: a process on a machine, and the folder it works in."""

    id: str
    what: str
    who: str
    host: str
    pid: int
    start_ticks: int
    folder: str

    @property
    def is_gone(self) -> bool:
        """Whether it is a process of this machine that ended."""
        return self.host == socket.gethostname() and not proc.is_alive(self.pid, self.start_ticks)


CODEC = Codec("provision.shared_lock", SharedHolder)


class TerraformLock(msgspec.Struct, frozen=True, rename="pascal"):
    """Terraform's own lock (`statemgr.LockInfo`); `who` is user@host."""

    operation: str = ""
    who: str = ""
    created: str = ""


@dataclass(frozen=True, slots=True)
class LockNote:
    """A lock for people: its object, its holder, and its age in seconds."""

    name: str
    holder: str
    age_s: float
    is_alive_here: bool = False

    def describe(self) -> str:
        """One line: `lock.json: mesaform up by ann@host (pid 4711), for 12 s`."""
        return f"{self.name}: {self.holder}, for {format_duration(self.age_s)}"


class SharedBusy(Busy):
    """Another process holds locks of the cluster in the bucket."""

    def __init__(self, notes: tuple[LockNote, ...], where: str) -> None:
        super().__init__(
            "held by " + "; ".join(note.describe() for note in notes),
            where=where,
            fix="wait until it ends; if its process is gone: mesaform unlock",
        )
        self.notes = notes


def read_locks(shared: SharedState) -> tuple[LockNote, ...]:
    """All locks of the cluster in the bucket, that of a verb first.

    Raises:
        CloudError: S3 did not answer.

    """
    names = shared.objects.names()
    locks = [name for name in names if name == LOCK or name.endswith(TERRAFORM_SUFFIX)]
    notes = (_read_lock(shared, name) for name in sorted(locks, key=lambda name: name != LOCK))
    return tuple(note for note in notes if note is not None)


def _read_lock(shared: SharedState, name: str) -> LockNote | None:
    stored = shared.objects.read(name)
    if stored is None:
        return None
    if name == LOCK:
        holder = CODEC.decode(stored.content)
        if isinstance(holder, Unreadable):
            return LockNote(name, UNKNOWN, stored.age_s)
        is_here = holder.host == socket.gethostname() and not holder.is_gone
        return LockNote(name, _describe(holder), stored.age_s, is_here)
    with suppress(msgspec.DecodeError):
        lock = msgspec.json.decode(stored.content, type=TerraformLock)
        operation = lock.operation.removeprefix("OperationType").lower() or "run"
        return LockNote(name, f"terraform {operation} by {lock.who}", stored.age_s)
    return LockNote(name, UNKNOWN, stored.age_s)


def _describe(holder: SharedHolder) -> str:
    return f"{holder.what} by {holder.who}@{holder.host} (pid {holder.pid})"


def release_locks(shared: SharedState, notes: tuple[LockNote, ...]) -> None:
    """Remove locks whose holders are gone.

    Raises:
        Busy: a holder is a living process of this machine.
        CloudError: S3 did not answer.

    """
    if alive := [note for note in notes if note.is_alive_here]:
        raise Busy(
            f"{alive[0].holder} is alive on this machine",
            where=shared.objects.where(alive[0].name),
            fix="nothing was released; end that process first",
        )
    for note in notes:
        shared.objects.remove(note.name)


@contextmanager
def hold_shared(
    place: ClusterContext, verb: str, *, creates_bucket: bool = False
) -> Iterator[SharedState | None]:
    """Hold the cluster's shared lock for the block, with fresh copies of the states. Blocks.

    Yields None, and holds nothing, on the local target.

    Args:
        place: the cluster. The caller holds the locks of its folder.
        verb: the verb as others see it, such as "mesaform up".
        creates_bucket: whether the bucket is created if there is none. Otherwise nothing is held
            without a bucket: there is no shared state.

    Raises:
        SharedBusy: another process holds locks.
        NotOwned: the account or the deployment is another one.
        CloudError: S3 did not answer.

    """
    shared = open_shared_state(place)
    if shared is None:
        yield None
        return
    if creates_bucket:
        ensure_state_bucket(place.spec.region, place.spec.name)
    own = _own_holder(verb, place.cluster_dir)
    replaced = _acquire(shared, own, creates_bucket=creates_bucket)
    try:
        _require_no_terraform(shared, place.cluster_dir, replaced)
        shared.store_errored()
        shared.pull()
        yield shared
    finally:
        with suppress(CloudError):  # the lock is then of a process that ended
            _release(shared, own)


def _own_holder(verb: str, folder: Path) -> SharedHolder:
    process = this_process(verb)
    return SharedHolder(
        id=secrets.token_hex(8),
        what=verb,
        who=_user(),
        host=socket.gethostname(),
        pid=process.pid,
        start_ticks=process.start_ticks,
        folder=str(folder.resolve()),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in the password file
        return str(os.getuid())


def _acquire(
    shared: SharedState, own: SharedHolder, *, creates_bucket: bool
) -> SharedHolder | None:
    """Write the lock; the holder that it replaced, whose process ended on this machine.

    Raises:
        SharedBusy: another process holds it.

    """
    replaced: SharedHolder | None = None
    if not creates_bucket and not shared.objects.has_bucket():
        return None
    while not shared.objects.write(LOCK, CODEC.encode(own), only_new=True):
        stored = shared.objects.read(LOCK)
        holder = None if stored is None else CODEC.decode(stored.content)
        if isinstance(holder, SharedHolder) and holder.is_gone:
            replaced = holder
            shared.objects.remove(LOCK)
        elif stored is not None:
            raise SharedBusy(read_locks(shared), shared.objects.where())
    return replaced


def _release(shared: SharedState, own: SharedHolder) -> None:
    stored = shared.objects.read(LOCK)
    holder = None if stored is None else CODEC.decode(stored.content)
    if isinstance(holder, SharedHolder) and holder.id == own.id:
        shared.objects.remove(LOCK)


def _require_no_terraform(shared: SharedState, folder: Path, replaced: SharedHolder | None) -> None:
    """Check that no Terraform holds a state; remove the locks of one that ended here.

    Terraform's lock names no process. It is of an ended one if the verb whose lock was replaced
    worked in this folder: the folder's own locks show that none of its Terraforms is alive.

    Raises:
        SharedBusy: a Terraform of another checkout, or one that a person started, is at work.

    """
    notes = tuple(note for note in read_locks(shared) if note.name != LOCK)
    if replaced is not None and replaced.folder == str(folder.resolve()):
        release_locks(shared, tuple(filter(_is_of_this_machine, notes)))
        notes = tuple(note for note in notes if not _is_of_this_machine(note))
    if notes:
        raise SharedBusy(notes, shared.objects.where())


def _is_of_this_machine(note: LockNote) -> bool:
    return note.holder.rpartition("@")[2] == socket.gethostname()
