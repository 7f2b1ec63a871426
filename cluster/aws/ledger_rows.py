"""Rows of the ledger: topics, ids, keys of objects, contents of objects. Pure.

Keys sort so that a reader that lists while others merge misses nothing: an object sorts after all
objects that it replaces. `<topic>/<date>/<hour>-p-…` are parts as written, `<hour>-q-…` the merged
parts of an hour, `day-…` those of a day.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mesaform.aws.ports import Row

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
    return [msgspec.json.decode(line, type=Row) for line in gzip.decompress(body).splitlines()]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return each row once, oldest first; rows of one moment in the order of writing."""
    return sorted({row[ROW]: row for row in rows}.values(), key=lambda row: (row["at"], row[ROW]))


def old_row(key: str, body: bytes) -> Row:
    """Return the row of an object in the first format: one row per object, the key is its id."""
    row = msgspec.json.decode(body, type=Row)
    return row if ROW in row else stamped(row, key.rpartition("/")[2].removesuffix(".json"), 0)


def generation(name: str) -> int:
    """Return how many times the rows of an object were merged; 0 for parts."""
    fields = name.split("-")
    return 0 if fields[1] == "p" else int(fields[1] if fields[0] == "day" else fields[2])


def merged_name(names: Sequence[str], whole_day: bool, writer: str) -> str:
    """Return the name of the object that replaces these of one date; it sorts after each."""
    number = 1 + max(generation(name) for name in names)
    start = "day" if whole_day else f"{names[0].partition('-')[0]}-q"
    return f"{start}-{number:06d}-{writer}.gz"
