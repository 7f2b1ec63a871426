"""Contents of S3 objects beside the account file: one file a content, named by its SHA-256.

A content is written once, before the account file that names it. Contents that nothing names are
removed at start. Needs moto's `FakeKey`, the class of one version of an S3 object.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from mesaform.common.files import PRIVATE_FILE_MODE, write_atomically
from mesaform.localcloud.records.classes import RecordError

INLINE_BYTES = 4096
"""Contents up to this size are in the account file: a file for each would cost more to write."""

_NOT_RECORDED = frozenset({"_value_buffer", "lock", "_recorded_as"})


class StoredKey(Protocol):
    """The part of moto's `FakeKey` that is used here."""

    value: bytes
    contentsize: int
    etag: str
    disposed: bool


class ObjectFiles:
    """The folder of contents; it records and restores S3 keys for the encoder and decoder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._written = {path.name for path in folder.iterdir()}
        self._read: set[str] = set()

    def state_of(self, item: StoredKey) -> dict[str, object]:
        """The attributes of a key with `content`: the bytes, or the name of a file."""
        attributes = vars(item)
        state = {name: part for name, part in attributes.items() if name not in _NOT_RECORDED}
        if item.disposed:
            return {**state, "content": b""}
        if item.contentsize <= INLINE_BYTES:
            return {**state, "content": item.value}
        mark = (id(attributes["_value_buffer"]), item.contentsize, item.etag)
        recorded = attributes.get("_recorded_as")
        if recorded is None or recorded[0] != mark:
            recorded = (mark, self._put(item.value))
            attributes["_recorded_as"] = recorded
        return {**state, "content": recorded[1]}

    def set_state(self, item: object, state: dict[str, object]) -> None:
        """Restore a key, its content and its lock."""
        content = state.pop("content")
        data = self._get(content) if isinstance(content, str) else content
        longest = state["_max_buffer_size"]
        if not isinstance(data, bytes) or not isinstance(longest, int):
            raise RecordError("an S3 object has neither a content nor the name of its file")
        buffer = tempfile.SpooledTemporaryFile(longest)  # noqa: SIM115 - the key closes it
        buffer.write(data)
        vars(item).update(state, _value_buffer=buffer, lock=threading.Lock())

    def remove_unread(self) -> None:
        """Remove the contents that no restored key has named."""
        for name in self._written - self._read:
            (self._folder / name).unlink(missing_ok=True)
        self._written &= self._read

    def _put(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        if name not in self._written:
            write_atomically(self._folder / name, content, mode=PRIVATE_FILE_MODE)
            self._written.add(name)
        return name

    def _get(self, name: str) -> bytes:
        if name not in self._written:
            raise RecordError(f"the content {name} of an S3 object is missing in {self._folder}")
        self._read.add(name)
        return (self._folder / name).read_bytes()
