"""Values that several v1 messages share: constrained numbers, ids, scalars, ranges and labels.

A constraint is part of the type, so msgspec checks it whenever JSON or msgpack is decoded into a
message: in HTTP calls, on the agent link, in stored records and in checkpoints. The constructors of
the structs check nothing. The `title` of a number's type is its type in mesos.proto.
Shapes are from include/mesos/v1/mesos.proto of Apache Mesos.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_MILLI = 2**53
"""The largest amount of a scalar in thousandths: larger ones are not exact in JSON."""
MAX_ID_LENGTH = 255
"""Characters of an id. Ids name folders (NAME_MAX)."""
MAX_SECONDS = 2**63 // 10**9
"""The longest duration in seconds: Mesos keeps nanoseconds in 64 bits."""

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, title="int32")]
UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1, title="uint32")]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, title="int64")]
UInt64 = Annotated[int, Meta(ge=0, le=2**63 - 1, title="uint64")]
Port = Annotated[int, Meta(ge=0, le=65535, title="uint32")]
AgentPort = Annotated[int, Meta(ge=0, le=65535, title="int32")]
Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1, title="int64")]
Amount = Annotated[float, Meta(ge=0, le=MAX_MILLI / 1000)]
SignedAmount = Annotated[float, Meta(ge=-MAX_MILLI / 1000, le=MAX_MILLI / 1000)]
Seconds = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
SignedSeconds = Annotated[float, Meta(ge=-MAX_SECONDS, le=MAX_SECONDS)]
RequiredText = Annotated[str, Meta(extra={"is_required": True})]
"""A text that the wire requires, and that records of earlier releases lack when it is empty."""
IdText = Annotated[str, Meta(pattern=r"\A(?!\.\.?\Z)[^/\\\x00-\x1f\x7f]{1,255}\Z")]
Name = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,255}\Z")]


def one_of(*names: str) -> Meta:
    """The constraint of a text that is one of these names: an enum whose users have plain texts."""
    return Meta(pattern=rf"\A(?:{'|'.join(names)})\Z", extra={"names": frozenset(names)})


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The base of all messages.

    Absent and default fields are not written. A field that the wire requires has no default.
    """


class Id(Message, frozen=True, kw_only=True):
    """The `{"value": "…"}` of every id on the wire."""

    value: IdText


def ident(value: str) -> Id:
    """The id message of a text."""
    return Id(value=value)


class ContainerId(Message, frozen=True, kw_only=True):
    """The id of a container, and of the container in which it is nested."""

    value: IdText
    parent: ContainerId | None = None


class Scalar(Message, frozen=True, kw_only=True):
    """An amount. Mesos keeps it in thousandths."""

    value: Amount


class SignedScalar(Message, frozen=True, kw_only=True):
    """A number of an attribute."""

    value: SignedAmount


class PortRange(Message, frozen=True, kw_only=True):
    """An inclusive range, of ports or of another resource of type RANGES."""

    begin: UInt64
    end: UInt64


class Ranges(Message, frozen=True, kw_only=True):
    range: list[PortRange] = []


class ItemSet(Message, frozen=True, kw_only=True):
    item: list[str] = []


class Text(Message, frozen=True, kw_only=True):
    value: str


class Label(Message, frozen=True, kw_only=True):
    key: str
    value: str | None = None


class Labels(Message, frozen=True, kw_only=True):
    labels: list[Label] = []


class Parameter(Message, frozen=True, kw_only=True):
    key: str
    value: str


class Parameters(Message, frozen=True, kw_only=True):
    parameter: list[Parameter] = []


class DurationInfo(Message, frozen=True, kw_only=True):
    nanoseconds: Nanoseconds


class TimeInfo(Message, frozen=True, kw_only=True):
    """A time since the epoch."""

    nanoseconds: Int64
