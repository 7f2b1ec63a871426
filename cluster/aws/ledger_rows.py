"""Rows of the ledger: topics, ids, keys of objects, contents of objects. Pure.

Keys sort so that a reader that lists while others merge misses nothing: an object sorts after all
objects that it replaces. `<topic>/<date>/<hour>-p-…` are parts as written, `<hour>-q-…` the merged
parts of an hour, `day-…` those of a day.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from mesaform.aws.ports import Row
from mesaform.common.records import Problem, Unreadable

TOPICS: Mapping[str, tuple[str, ...]] = {
    "decisions": ("decision", "override", "order"),
    "machines": (
        "machine_started",
        "machine_stopped",
        "machines",
        "price",
        "interruption",
        "receipt",
        "lost_rows",
    ),
    "usage": ("resource_usage", "usage", "held"),
    "levels": ("cluster_totals", "level"),
    "history": ("history",),
}
"""Kinds that are read together share a topic: a bill reads no decisions.

Old names of kinds (`order`, `held`, `level`, `usage`) stay: old objects have them.
"""

OTHER = "other"
ROW = "row"
"""The field with a row's id."""

SCHEMA = "ledger.rows"
MAX_OBJECT_BYTES = 256 * 1024 * 1024
GZIP_WBITS = 16
"""Added to the window size: zlib then reads gzip's format."""


_DATE = re.compile(r"2\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_OBJECT_NAME = re.compile(r"(\d\d-p-.+|\d\d-q-\d{6}-.+|day-\d{6}-.+)\.gz")


class _Stamp(msgspec.Struct):
    """What readers rely on in each row."""

    at: Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799.0)]
    kind: str
    row: str


_TOPIC_OF = {kind: topic for topic, kinds in TOPICS.items() for kind in kinds}
_encoder = msgspec.json.Encoder()


def topic_of(kind: str) -> str:
    """Return the topic of a kind of rows."""
    return _TOPIC_OF.get(kind, OTHER)


def topics_for(kinds: Collection[str]) -> list[str]:
    """Return the topics of these kinds, sorted; all topics if no kind is named."""
    return sorted({topic_of(kind) for kind in kinds}) if kinds else sorted((*TOPICS, OTHER))


def stamped(row: Mapping[str, Any], writer: str, number: int) -> Row:
    """Return the row with an id.

    There is one row per kind, machine and moment, so the id of a row with an `instance_id` consists
    of these.
    """
    if ROW in row:
        return dict(row)
    own = row.get("instance_id") if row["kind"] != "decision" else None
    stamp = f"{int(row['at'] * 1000):013d}"
    return {**row, ROW: f"{stamp}.{own}.{row['kind']}" if own else f"{stamp}.{writer}.{number:08d}"}


def partition(at: float) -> str:
    """Return `<date>/<hour>` of a moment (epoch s), in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d/%H}"


def by_partition(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Group rows by topic and partition."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((topic_of(row["kind"]), partition(row["at"])), []).append(row)
    return groups


def pack(rows: Iterable[Mapping[str, object]]) -> bytes:
    """Return the content of an object: JSON lines, compressed."""
    return gzip.compress(b"\n".join(_encoder.encode(row) for row in rows), 6, mtime=0)


def unpack(body: bytes) -> list[Row]:
    """Return the rows of an object."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | GZIP_WBITS)
    plain = inflater.decompress(body, MAX_OBJECT_BYTES)
    if not inflater.eof:
        raise ValueError(f"the object is cut, or has more than {MAX_OBJECT_BYTES} bytes")
    return [msgspec.json.decode(line, type=Row) for line in plain.splitlines()]


def rows_of(key: str, body: bytes) -> list[Row] | Unreadable:
    """Return the rows of an object with this key. Never raises."""
    try:
        rows = [old_row(key, body)] if key.endswith(".json") else unpack(body)
        for row in rows:
            msgspec.convert(row, _Stamp)
    except Exception as error:  # anything that the object makes a decoder raise is its fault
        return Unreadable(SCHEMA, Problem.UNREADABLE, str(error)[:300] or type(error).__name__)
    return rows


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return each row once, oldest first; rows of one moment in the order of writing."""
    return sorted({row[ROW]: row for row in rows}.values(), key=lambda row: (row["at"], row[ROW]))


def old_row(key: str, body: bytes) -> Row:
    """Return the row of an object in the first format: one row per object, the key is its id."""
    row = msgspec.json.decode(body, type=Row)
    return row if ROW in row else stamped(row, key.rpartition("/")[2].removesuffix(".json"), 0)


def is_date(text: str) -> bool:
    """Whether a part of a key is a date."""
    return _DATE.fullmatch(text) is not None


def is_object_name(name: str) -> bool:
    """Whether an object of a day has a name of this module's."""
    return _OBJECT_NAME.fullmatch(name) is not None


def generation(name: str) -> int:
    """Return how many times the rows of an object were merged; 0 for parts."""
    fields = name.split("-")
    return 0 if fields[1] == "p" else int(fields[1] if fields[0] == "day" else fields[2])


def merged_name(names: Sequence[str], whole_day: bool, writer: str) -> str:
    """Return the name of the object that replaces these of one date; it sorts after each."""
    number = 1 + max(generation(name) for name in names)
    start = "day" if whole_day else f"{names[0].partition('-')[0]}-q"
    return f"{start}-{number:06d}-{writer}.gz"
