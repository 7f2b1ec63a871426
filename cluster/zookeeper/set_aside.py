"""Records in ZooKeeper that cannot be read move below `<root>/set-aside/<kind>/<name>`.

The entry is one node with a `SetAside`; its children `0`, `1`... hold the record's bytes, so that
every record that ZooKeeper stores can be moved. The entry appears in the transaction that deletes
the record. Nothing here deletes an entry except `remove` and `restore`. Depends on `session` and
`common.records`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic
from urllib.parse import quote, unquote

import msgspec

from mesaform.common.errors import BadInput, Busy, NotFound
from mesaform.common.records import ZOOKEEPER_LIMIT_BYTES, Codec, Problem, Unreadable, Value
from mesaform.common.set_aside import SetAside, SetAsideLog, unique_name
from mesaform.zookeeper.session import (
    CreateNode,
    DeleteNode,
    NodeNotEmpty,
    Operation,
    VersionConflict,
    WriteNode,
    ZooKeeper,
    ZooKeeperRefused,
    ZooKeeperUnavailable,
)

FOLDER = "set-aside"
PART_MARK = "#"
"""Separates a record's node from the name of its part, in the place of a part."""

MAX_NODE_NAME = 255

PART_BYTES = 500_000
"""Bytes of a record in one node. Two of them and the entry fit into one request."""

ATTEMPTS = 10
"""How often a record is read that another client writes between the read and the move."""

ENTRY = Codec("set-aside", SetAside)


class Stored(msgspec.Struct, Generic[Value], frozen=True):
    """A record as read, and the version of its node."""

    value: Value
    version: int


class RecordNodes:
    """Reads the records below a root and sets unreadable ones aside. Only a leader may use it.

    Args:
        zk: a started session.
        root: the folder whose `set-aside` takes the records, such as `/mesos`.
        log: counts them.
        clock: epoch seconds, for people.

    """

    def __init__(
        self,
        zk: ZooKeeper,
        root: str,
        log: SetAsideLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._zk = zk
        self._entries = SetAsideNodes(zk, root)
        self._log = log
        self._clock = clock

    async def read(
        self, kind: str, path: str, codec: Codec[Value], replacement: bytes | None = None
    ) -> Stored[Value] | Unreadable | None:
        """The record; None without a node; `Unreadable` after it was set aside.

        `replacement` is written instead of an unreadable record, so that the versions of its node
        continue; without one the node is deleted. Nodes below it are set aside as well then.

        Raises:
            ZooKeeperUnavailable: no answer, or the record changed during each of `ATTEMPTS`.

        """
        for _ in range(ATTEMPTS):
            node = await self._zk.get(path)
            if node is None:
                return None
            value = codec.decode(node[0])
            if not isinstance(value, Unreadable):
                return Stored(value, node[1])
            if await self._move(kind, path, node, value, replacement):
                return value
        raise _contended(path)

    async def read_all(
        self,
        kind: str,
        folder: str,
        codec: Codec[Value],
        replacement: Callable[[str], bytes | None] = lambda _name: None,
    ) -> tuple[dict[str, Value], dict[str, Unreadable]]:
        """All records of a folder by name: those that can be read, and those set aside now.

        `replacement` returns what takes the place of an unreadable record, by its name (`read`). It
        is called for every record.

        Raises:
            ZooKeeperUnavailable: no answer.

        """
        names = await self._zk.children(folder)
        results = await asyncio.gather(
            *(self.read(kind, f"{folder}/{name}", codec, replacement(name)) for name in names)
        )
        readable: dict[str, Value] = {}
        unreadable: dict[str, Unreadable] = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, Unreadable):
                unreadable[name] = result
            elif result is not None:
                readable[name] = result.value
        return readable, unreadable

    async def set_aside(
        self, kind: str, path: str, unreadable: Unreadable, replacement: bytes | None = None
    ) -> None:
        """Set a record aside that can be decoded and that its reader refuses. See `read`."""
        for _ in range(ATTEMPTS):
            node = await self._zk.get(path)
            if node is None or await self._move(kind, path, node, unreadable, replacement):
                return
        raise _contended(path)

    async def set_aside_part(
        self, kind: str, part: str, data: bytes, unreadable: Unreadable, rest: WriteNode
    ) -> None:
        """Set aside one part of a record, whose other parts can be read.

        Args:
            kind: of the part.
            part: its name in the record.
            data: its bytes.
            unreadable: why it cannot be read.
            rest: replaces the record by one without the part.

        Raises:
            VersionConflict: another client wrote the record meanwhile.

        """
        entry = SetAside(
            kind=kind,
            name=_node_name(part),
            place=f"{rest.path}{PART_MARK}{part}",
            problem=unreadable.problem,
            detail=unreadable.detail,
            size_bytes=len(data),
            at=self._clock(),
        )
        await self._entries.add_instead(entry, data, rest)
        self._log.report(kind, entry.place, unreadable)

    async def names(self, kind: str) -> dict[str, SetAside]:
        """The entries of a kind by the name of the node that they were."""
        entries = [entry for entry in await self._entries.all() if entry.kind == kind]
        return {entry.place.rpartition("/")[2]: entry for entry in entries}

    async def _move(
        self,
        kind: str,
        path: str,
        node: tuple[bytes, int],
        unreadable: Unreadable,
        replacement: bytes | None = None,
    ) -> bool:
        """Set a record aside; False when another client wrote it, or a node below it, meanwhile."""
        data, version = node
        entry = SetAside(
            kind=kind,
            name=path.rpartition("/")[2],
            place=path,
            problem=unreadable.problem,
            detail=unreadable.detail,
            size_bytes=len(data),
            at=self._clock(),
        )
        try:
            await self._entries.add_instead(
                entry,
                data,
                DeleteNode(path, version)
                if replacement is None
                else WriteNode(path, replacement, version),
            )
        except VersionConflict:
            return False
        except NodeNotEmpty:
            await self._move_below(kind, path, unreadable.schema)
            return False
        self._log.report(kind, path, unreadable)
        return True

    async def _move_below(self, kind: str, path: str, schema: str) -> None:
        """Set the nodes below a record aside, which no reader knows and which keep it in place."""
        foreign = Unreadable(schema, Problem.UNREADABLE, "a node below a record")
        for name in await self._zk.children(path):
            await self.set_aside(kind, f"{path}/{name}", foreign)


class SetAsideNodes:
    """The entries below `<root>/set-aside`."""

    def __init__(self, zk: ZooKeeper, root: str) -> None:
        self._zk = zk
        self._root = root.rstrip("/")
        self.folder = f"{root.rstrip('/')}/{FOLDER}"

    async def add(self, entry: SetAside, data: bytes, version: int) -> SetAside:
        """Move a record; returns the entry with the name that it got.

        Raises:
            VersionConflict: the record changed or is gone; there is no entry.

        """
        return await self.add_instead(entry, data, DeleteNode(entry.place, version))

    async def add_instead(
        self, entry: SetAside, data: bytes, removal: DeleteNode | WriteNode
    ) -> SetAside:
        """Add an entry in the transaction that takes the record away from its place.

        Raises:
            VersionConflict: the record changed or is gone; there is no entry.
            NodeNotEmpty: nodes below the record keep it from being deleted; there is no entry.

        """
        folder = f"{self.folder}/{entry.kind}"
        complete = {item.name: item for item in await self._of_kind(entry.kind)}
        entry = msgspec.structs.replace(entry, name=unique_name(entry.name, complete))
        target = f"{folder}/{entry.name}"
        await self._delete_parts(target)
        await self._zk.put(target, b"")
        for number, start in enumerate(range(0, len(data), PART_BYTES)):
            await self._zk.put(f"{target}/{number}", data[start : start + PART_BYTES])
        try:
            await self._zk.transact([WriteNode(target, ENTRY.encode(entry)), removal])
        except (VersionConflict, NodeNotEmpty, ZooKeeperRefused):
            await self._delete_parts(target)
            await self._zk.delete(target)
            raise
        return entry

    async def all(self) -> list[SetAside]:
        """All entries, sorted by kind and name. An entry that cannot be read is listed as such."""
        kinds = await self._zk.children(self.folder)
        return [entry for kind in kinds for entry in await self._of_kind(kind)]

    async def content(self, kind: str, name: str) -> bytes:
        """The bytes of a record that was set aside.

        Raises:
            NotFound: there is no such entry.

        """
        target = f"{self.folder}/{kind}/{name}"
        if not (await self._zk.get(target) or (b"", 0))[0]:
            raise NotFound("no such record was set aside", where=f"{kind}/{name}")
        parts = [await self._zk.get(f"{target}/{part}") for part in await self._parts_of(target)]
        return b"".join(part[0] for part in parts if part is not None)

    async def restore(self, kind: str, name: str, *, replace: bool = False) -> SetAside:
        """Put a record back where it was; with `replace` also over a new record.

        Raises:
            NotFound: there is no such entry.
            BadInput: it is not known where it was, or it is too large for a reader.
            Busy: a new record is there.

        """
        entry = await self._entry(kind, name)
        data = await self.content(kind, name)
        if not entry.place.startswith(f"{self._root}/"):
            raise BadInput("it is not known where the record was", where=entry.id)
        if PART_MARK in entry.place:
            raise BadInput(
                "it was a part of another record, which its owner has written again",
                where=entry.id,
                fix="repeat what the record stood for, then remove the entry",
            )
        if len(data) > ZOOKEEPER_LIMIT_BYTES:
            raise BadInput(f"{len(data)} bytes are too large for a record", where=entry.id)
        try:
            back = await self._placement(entry.place, data, replace=replace)
            await self._zk.transact([back, *await self._deletions(entry)])
        except VersionConflict:
            raise Busy(
                "a new record has this name",
                where=entry.place,
                fix="give --replace to overwrite it",
            ) from None
        return entry

    async def _placement(self, place: str, data: bytes, *, replace: bool) -> Operation:
        exists = await self._zk.get(place) is not None
        await self._zk.ensure(place.rpartition("/")[0])
        return WriteNode(place, data) if replace and exists else CreateNode(place, data)

    async def remove(self, kind: str, name: str) -> SetAside:
        """Delete an entry for good.

        Raises:
            NotFound: there is no such entry.

        """
        entry = await self._entry(kind, name)
        await self._zk.transact(await self._deletions(entry))
        return entry

    async def _of_kind(self, kind: str) -> list[SetAside]:
        names = await self._zk.children(f"{self.folder}/{kind}")
        nodes = await asyncio.gather(
            *(self._zk.get(f"{self.folder}/{kind}/{name}") for name in names)
        )
        return [
            _entry_of(kind, name, node[0])
            for name, node in zip(names, nodes, strict=True)
            if node is not None and node[0]
        ]

    async def _entry(self, kind: str, name: str) -> SetAside:
        for entry in await self._of_kind(kind):
            if entry.name == name:
                return entry
        raise NotFound("no such record was set aside", where=f"{kind}/{name}")

    async def _parts_of(self, target: str) -> list[str]:
        names = await self._zk.children(target)
        return sorted((name for name in names if name.isdigit()), key=int)

    async def _deletions(self, entry: SetAside) -> list[DeleteNode]:
        target = f"{self.folder}/{entry.kind}/{entry.name}"
        parts = await self._zk.children(target)
        return [*(DeleteNode(f"{target}/{part}") for part in parts), DeleteNode(target)]

    async def _delete_parts(self, target: str) -> None:
        for part in await self._zk.children(target):
            await self._zk.delete(f"{target}/{part}")


def _node_name(part: str) -> str:
    """A name for any text that is valid as a node's name (no `/`, not `.` or `..`, not empty)."""
    return quote(part, safe="").replace(".", "%2E")[:MAX_NODE_NAME] or "%00"


def _contended(path: str) -> ZooKeeperUnavailable:
    return ZooKeeperUnavailable(
        f"the record changed during each of {ATTEMPTS} attempts to set it aside",
        where=path,
        after_s=1.0,
    )


def key_of(entry: SetAside) -> str:
    """The key of a record whose node is named by its URL-quoted key."""
    return unquote(entry.place.rpartition("/")[2])


def _entry_of(kind: str, name: str, data: bytes) -> SetAside:
    entry = ENTRY.decode(data)
    if isinstance(entry, Unreadable):
        return SetAside(
            kind=kind,
            name=name,
            place="",
            problem=Problem.UNREADABLE,
            detail=f"the entry itself: {entry.detail}",
            size_bytes=len(data),
        )
    return msgspec.structs.replace(entry, kind=kind, name=name)
