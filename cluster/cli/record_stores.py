"""The stores of records that were set aside: ZooKeeper, S3 and the operator's files.

ZooKeeper is reached through the leading autoscaler: its heartbeat lists the records, and it answers
requests in S3. Depends on `mesaform.aws` and `common.set_aside`.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesaform.aws.ports import Control
from mesaform.aws.record_requests import (
    ANSWER,
    ANSWER_NAME,
    REQUEST,
    REQUEST_NAME,
    RecordAction,
    RecordAnswer,
    RecordRequest,
)
from mesaform.aws.set_aside import SetAsideObjects
from mesaform.cli.override_client import who
from mesaform.common.errors import BadInput, Busy, MesaformError, NotFound
from mesaform.common.records import Problem
from mesaform.common.set_aside import SetAside

ANSWER_TIMEOUT_S = 60.0
ANSWER_POLL_S = 0.5
HEARTBEAT_TIMEOUT_S = 15.0
FILE_KIND = "files"
_ASIDE_FILE = re.compile(r"(?P<original>.+)\.(set-aside|unreadable)(-\d+)?")
_ACCOUNT_FILE = re.compile(r"account-unreadable-.+\.json")


class RecordStore(Protocol):
    """One place of records that were set aside."""

    def entries(self) -> Sequence[SetAside]:
        """List the records."""
        ...

    def content(self, entry: SetAside) -> bytes:
        """Return the bytes of a record."""
        ...

    def restore(self, entry: SetAside, *, replace: bool) -> None:
        """Put a record back; with `replace` also over a new one."""
        ...

    def remove(self, entry: SetAside) -> None:
        """Delete a record for good."""
        ...


@dataclass(frozen=True, slots=True)
class ClusterRecords:
    """Records in ZooKeeper, through the leading autoscaler."""

    control: Control
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def entries(self) -> Sequence[SetAside]:
        heartbeat = self.control.last_heartbeat()
        return heartbeat.get("set_aside", []) if heartbeat else []

    def content(self, entry: SetAside) -> bytes:
        return self._ask("show", entry).content

    def restore(self, entry: SetAside, *, replace: bool) -> None:
        self._ask("replace" if replace else "restore", entry)
        self._wait_until_gone(entry)

    def remove(self, entry: SetAside) -> None:
        self._ask("remove", entry)
        self._wait_until_gone(entry)

    def _wait_until_gone(self, entry: SetAside) -> None:
        """Wait for the heartbeat without the record; a record may be set aside again at once."""
        ends = self.clock() + HEARTBEAT_TIMEOUT_S
        while self.clock() < ends and any(other.id == entry.id for other in self.entries()):
            self.sleep(ANSWER_POLL_S)

    def _ask(self, action: RecordAction, entry: SetAside) -> RecordAnswer:
        """Make a request and wait for its answer.

        Raises:
            MesaformError: the leader refused, or no leader answered.

        """
        request = RecordRequest(
            id=uuid.uuid4().hex,
            action=action,
            tree=entry.tree,
            kind=entry.kind,
            name=entry.name,
            at=self.clock(),
            by=who(),
        )
        self.control.write_record(REQUEST_NAME, REQUEST, request)
        ends = self.clock() + ANSWER_TIMEOUT_S
        while self.clock() < ends:
            answer = self.control.read_record(ANSWER_NAME, ANSWER)
            if isinstance(answer, RecordAnswer) and answer.id == request.id:
                if answer.error:
                    raise MesaformError(answer.error, where=entry.id)
                return answer
            self.sleep(ANSWER_POLL_S)
        raise Busy(
            f"no autoscaler answered within {ANSWER_TIMEOUT_S:.0f} s",
            where=entry.id,
            fix="see `mesaform status`: the leading autoscaler carries this out",
        )


@dataclass(frozen=True, slots=True)
class ObjectRecords:
    """Records in S3."""

    objects: SetAsideObjects

    def entries(self) -> Sequence[SetAside]:
        return self.objects.all()

    def content(self, entry: SetAside) -> bytes:
        return self.objects.content(entry.kind, entry.name)

    def restore(self, entry: SetAside, *, replace: bool) -> None:
        del replace  # what stands for the record is always overwritten
        self.objects.restore(entry.kind, entry.name)

    def remove(self, entry: SetAside) -> None:
        self.objects.remove(entry.kind, entry.name)


@dataclass(frozen=True, slots=True)
class FileRecords:
    """Files of this machine: Terraform state, the local account, the local endpoint."""

    folder: Path

    def entries(self) -> Sequence[SetAside]:
        return [self._entry(path) for path in sorted(self._paths())]

    def content(self, entry: SetAside) -> bytes:
        return (self.folder / entry.name).read_bytes()

    def restore(self, entry: SetAside, *, replace: bool) -> None:
        path = self.folder / entry.name
        if not entry.place:
            raise BadInput("it is not known where the file was", where=str(path))
        if Path(entry.place).exists() and not replace:
            raise Busy(
                "a new file has this name",
                where=entry.place,
                fix="give --replace to overwrite it",
            )
        path.replace(entry.place)

    def remove(self, entry: SetAside) -> None:
        (self.folder / entry.name).unlink()

    def _paths(self) -> Iterator[Path]:
        for place in (self.folder / "clusters", self.folder / "local"):
            for pattern in ("*", "*/*"):
                yield from (path for path in place.glob(pattern) if _is_aside(path))

    def _entry(self, path: Path) -> SetAside:
        stat = path.stat()
        match = _ASIDE_FILE.fullmatch(path.name)
        original = path.with_name(match["original"]) if match else path.with_name("account.json")
        return SetAside(
            kind=FILE_KIND,
            name=str(path.relative_to(self.folder)),
            place=str(original),
            problem=Problem.UNREADABLE,
            detail=f"kept as {path}",
            size_bytes=stat.st_size,
            at=stat.st_mtime,
        )


def _is_aside(path: Path) -> bool:
    is_named = _ASIDE_FILE.fullmatch(path.name) or _ACCOUNT_FILE.fullmatch(path.name)
    return bool(is_named) and path.is_file()


def find(stores: Sequence[RecordStore], record: str) -> tuple[RecordStore, SetAside]:
    """The record with this id, and its store.

    Raises:
        NotFound: there is none.

    """
    for store in stores:
        for entry in store.entries():
            if entry.id == record:
                return store, entry
    raise NotFound(
        "no such record was set aside", where=record, fix="list them: mesaform records list"
    )
