"""Where a row of the ledger belongs and what tells it from every other: topics, ids, keys, bodies. Pure; who reads and writes is not here.

Keys sort so that whoever lists while others merge misses nothing: what replaces objects sorts behind all that it replaces.
`<topic>/<date>/<hour>-p-…` are parts as they were written, `<hour>-q-…` an hour's parts in one, `day-…` a day in one.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

Row = dict[str, Any]

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
    return _TOPIC_OF.get(kind, OTHER)


def topics_for(kinds: Collection[str]) -> list[str]:
    """The topics that hold these kinds; all when none are named."""
    return sorted({topic_of(kind) for kind in kinds}) if kinds else sorted((*TOPICS, OTHER))


def stamped(row: Mapping[str, Any], writer: str, number: int) -> Row:
    """The row with its id. One with an `instance_id` is the only one of its kind for that machine at that moment: its id says that."""
    if ROW in row:
        return dict(row)
    own = row.get("instance_id") if row["kind"] != "decision" else None
    stamp = f"{int(row['at'] * 1000):013d}"
    return {**row, ROW: f"{stamp}.{own}.{row['kind']}" if own else f"{stamp}.{writer}.{number:08d}"}


def partition(at: float) -> str:
    """`<date>/<hour>` of a moment, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d/%H}"


def by_partition(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by topic and partition."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((topic_of(row["kind"]), partition(row["at"])), []).append(row)
    return groups


def pack(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return gzip.compress(b"\n".join(_encoder.encode(row) for row in rows), 6, mtime=0)


def unpack(body: bytes) -> list[Row]:
    return [msgspec.json.decode(line, type=Row) for line in gzip.decompress(body).splitlines()]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Each row once, oldest first; those of one moment as they were written."""
    return sorted({row[ROW]: row for row in rows}.values(), key=lambda row: (row["at"], row[ROW]))


def old_row(key: str, body: bytes) -> Row:
    """A row as it was written before there were parts, one object a row; its key was its id."""
    row = msgspec.json.decode(body, type=Row)
    return row if ROW in row else stamped(row, key.rpartition("/")[2].removesuffix(".json"), 0)


def generation(name: str) -> int:
    """How often an object's rows were merged: parts 0."""
    mark = name.split("-")
    return 0 if mark[1] == "p" else int(mark[1] if mark[0] == "day" else mark[2])


def merged_name(names: Sequence[str], whole_day: bool, writer: str) -> str:
    """What to call the object that takes the place of these, in the folder of their date: it sorts behind each of them."""
    number = 1 + max(generation(name) for name in names)
    start = "day" if whole_day else f"{names[0].partition('-')[0]}-q"
    return f"{start}-{number:06d}-{writer}.gz"
