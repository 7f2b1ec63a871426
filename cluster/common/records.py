"""The codec of stored records: schema name and version, size limit, decoding as a whole.

A record is one document in ZooKeeper, in S3 or in a file. Its JSON names its schema:
`{"schema":"services.app/1",...}`; a value that is no JSON object is wrapped:
`{"schema":"aws.overrides/1","value":[...]}`. A document without a schema is one of version 0, from
before schemas. A record that cannot be read is a value, `Unreadable`, and no exception: its store
sets it aside (`set_aside`) and its reader goes on without it. docs/adr/0023 has the reasons.
Depends on msgspec and zlib.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec
from msgspec.inspect import DataclassType, StructType, TypedDictType, type_info

from mesaform.common.errors import MesaformError
from mesaform.common.json_types import Json, as_object

ZOOKEEPER_LIMIT_BYTES = 1_000_000
"""ZooKeeper refuses requests above 1,048,575 bytes (jute.maxbuffer), path and headers included."""

DOCUMENT_LIMIT_BYTES = 16 * 1024 * 1024
"""Limit of records in files and in S3, and of every record after decompression."""

SCHEMA_FIELD = "schema"

Value = TypeVar("Value")
Upgrade = Callable[[Json], Json]
"""Converts the document of one version into that of the next. It may raise any exception."""


class Problem(StrEnum):
    """Why a record cannot be read."""

    UNREADABLE = "unreadable"
    NEWER = "newer version"
    TOO_LARGE = "too large"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that cannot be read. `detail` is a sentence for people."""

    schema: str
    problem: Problem
    detail: str

    def __str__(self) -> str:
        return f"{self.schema}: {self.problem}: {self.detail}"


class RecordRefused(MesaformError):
    """A value that its own reader would refuse; nothing was stored."""


class _Header(msgspec.Struct):
    """The field that every record has. `schema` is absent in version 0."""

    schema: str | None = None


class _Wrapped(msgspec.Struct):
    value: msgspec.Raw


class Codec(Generic[Value]):
    """Encodes and decodes the records of one schema.

    Args:
        schema: dotted name, such as `services.app`. It is never reused for another meaning.
        type_: the type of the value, with the constraints that every reader relies on.
        version: number of the format; an incompatible change increments it.
        upgrades: by version: the conversion of its document into the next version. A version
            without one has the fields of the next.
        limit_bytes: size of the stored bytes.
        compress_above_bytes: documents above this size are compressed (zlib); None: never.

    Raises:
        TypeError: the type has a field of its own that is named `schema`, or refuses unknown
            fields, so that a record could not name its schema.

    """

    def __init__(
        self,
        schema: str,
        type_: type[Value],
        version: int = 1,
        *,
        upgrades: Mapping[int, Upgrade] | None = None,
        limit_bytes: int = ZOOKEEPER_LIMIT_BYTES,
        compress_above_bytes: int | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z][a-z_-]*(\.[a-z][a-z_-]*)*", schema):
            raise TypeError(f"{schema!r} is no name of a schema")
        self.schema = schema
        self.version = version
        self.limit_bytes = limit_bytes
        self._plain_limit_bytes = max(limit_bytes, DOCUMENT_LIMIT_BYTES)
        self._type = type_
        self._is_object = _is_object(type_)
        self._upgrades = dict(upgrades or {})
        self._compress_above_bytes = compress_above_bytes

    def encode(self, value: Value) -> bytes:
        """The bytes to store.

        They are decoded before they are returned: what is stored can be read.

        Raises:
            RecordRefused: the record is too large, or the value breaks a constraint of its type.

        """
        plain = self._with_schema(msgspec.json.encode(value))
        data = plain
        if self._compress_above_bytes is not None and len(plain) > self._compress_above_bytes:
            data = zlib.compress(plain, 1)
        if len(data) > self.limit_bytes or len(plain) > self._plain_limit_bytes:
            raise RecordRefused(
                f"{len(data)} bytes are more than {self.limit_bytes}", where=self.schema
            )
        known = self._decode_plain(plain)
        if isinstance(known, Unreadable):
            raise RecordRefused(known.detail, where=self.schema)
        return data

    def decode(self, data: bytes) -> Value | Unreadable:
        """The stored value, or why it cannot be read. Never raises."""
        if len(data) > self.limit_bytes:
            return self._unreadable(
                Problem.TOO_LARGE, f"{len(data)} bytes are more than {self.limit_bytes}"
            )
        plain = data
        if data[:1] == _ZLIB_START:
            try:
                plain = _decompressed(data)
            except zlib.error as error:
                return self._unreadable(Problem.UNREADABLE, str(error))
        if len(plain) > self._plain_limit_bytes:
            return self._unreadable(
                Problem.TOO_LARGE,
                f"more than {self._plain_limit_bytes} bytes after decompression",
            )
        return self._decode_plain(plain)

    def _decode_plain(self, plain: bytes) -> Value | Unreadable:
        # Anything that a document makes msgspec or an upgrade raise is a fault of the document.
        try:
            version = self._version_of(plain)
            if version > self.version:
                return self._unreadable(
                    Problem.NEWER, f"version {version} is newer than version {self.version}"
                )
            return self._value_of(plain, version)
        except Exception as error:
            return self._unreadable(Problem.UNREADABLE, _first_line(error))

    def _version_of(self, plain: bytes) -> int:
        if plain.lstrip(_WHITESPACE)[:1] != b"{":
            return 0
        schema = msgspec.json.decode(plain, type=_Header).schema
        if schema is None:
            return 0
        name, _, number = schema.rpartition("/")
        if name != self.schema or not re.fullmatch("[1-9][0-9]{0,8}", number):
            raise ValueError(f"the record has the schema {schema[:100]!r}")
        return int(number)

    def _value_of(self, plain: bytes, version: int) -> Value:
        is_wrapped = version > 0 and not self._is_object
        content = bytes(msgspec.json.decode(plain, type=_Wrapped).value) if is_wrapped else plain
        steps = [
            self._upgrades[step] for step in range(version, self.version) if step in self._upgrades
        ]
        if not steps:
            return msgspec.json.decode(content, type=self._type)
        document: Json = msgspec.json.decode(content)
        if self._is_object:
            as_object(document).pop(SCHEMA_FIELD, None)
        for upgrade in steps:
            document = upgrade(document)
        return msgspec.convert(document, self._type)

    def _with_schema(self, plain: bytes) -> bytes:
        name = f'{{"{SCHEMA_FIELD}":"{self.schema}/{self.version}"'.encode()
        if not self._is_object:
            return name + b',"value":' + plain + b"}"
        return name + (b"}" if plain == b"{}" else b"," + plain[1:])

    def _unreadable(self, problem: Problem, detail: str) -> Unreadable:
        return Unreadable(self.schema, problem, detail)


def _is_object(type_: type) -> bool:
    """Whether values of the type are JSON objects with fixed fields."""
    info = type_info(type_)
    if not isinstance(info, StructType | DataclassType | TypedDictType):
        return False
    if isinstance(info, StructType) and info.array_like:
        return False
    if isinstance(info, StructType) and info.forbid_unknown_fields:
        raise TypeError(f"{type_.__name__} refuses unknown fields")
    if any(item.encode_name == SCHEMA_FIELD for item in info.fields):
        raise TypeError(f"{type_.__name__} has a field {SCHEMA_FIELD!r}")
    return True


_ZLIB_START = b"x"
"""First byte of zlib's format with a window of 32 KiB; no JSON document begins with it."""

_WHITESPACE = b" \t\r\n"
_LONGEST_DETAIL = 300


def _decompressed(data: bytes) -> bytes:
    """The content, cut above `DOCUMENT_LIMIT_BYTES`.

    Raises:
        zlib.error: the data is damaged or incomplete.

    """
    inflater = zlib.decompressobj()
    plain = inflater.decompress(data, DOCUMENT_LIMIT_BYTES + 1)
    if not inflater.eof and len(plain) <= DOCUMENT_LIMIT_BYTES:
        raise zlib.error("the compressed data is incomplete")
    return plain


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0][:_LONGEST_DETAIL]
    return text or type(error).__name__
