"""Records that their stores set aside: what is known of each, and their count.

A store sets a record aside when it cannot read it: the bytes move unchanged to a place of their
own, and only an operator deletes them (`mesaform records`). The adapters are `common.record_files`,
`zookeeper.set_aside` and `aws.set_aside`. Depends on `records` and structlog.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import structlog

from mesaform.common.records import Problem, Unreadable

METRIC = "mesaform_records_set_aside_total"
"""Counter of the records that a process set aside, with the label `kind`."""

COMMAND = "mesaform records"
"""The verb that lists, shows, restores and removes records that were set aside."""

MOST_LOGGED = 10_000
"""Records that one process logs; later ones are only counted."""

log = structlog.get_logger("records")


class SetAside(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was set aside.

    `kind` is what it was a record of, such as `apps`; `name` is unique within the kind. `place` is
    where it was: a node, an object's URL or a file. `at` is when it was set aside (epoch s).
    `tree` is the root in ZooKeeper that has it; empty for objects and files.
    """

    kind: str
    name: str
    place: str
    problem: Problem
    detail: str
    size_bytes: int
    at: float = 0.0
    tree: str = ""

    @property
    def id(self) -> str:
        """The name that an operator uses for it."""
        return f"{self.kind}/{self.name}"


class SetAsideLog:
    """Counts and logs what one process sets aside; each record once.

    `counts` are the values of `METRIC` by kind.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._reported: set[tuple[str, str, str]] = set()

    def report(self, kind: str, place: str, unreadable: Unreadable) -> None:
        """Count a record that was set aside, and log it."""
        self.counts[kind] += 1
        self.mention(kind, place, unreadable)

    def mention(self, kind: str, place: str, unreadable: Unreadable) -> None:
        """Log a record once that cannot be read and cannot be moved now."""
        entry = (kind, place, unreadable.detail)
        if entry in self._reported or len(self._reported) >= MOST_LOGGED:
            return
        self._reported.add(entry)
        log.error(
            "a record cannot be read and is set aside",
            kind=kind,
            place=place,
            schema=unreadable.schema,
            problem=str(unreadable.problem),
            detail=unreadable.detail,
            fix=f"{COMMAND} list",
        )


def metric_lines(counts: Mapping[str, int]) -> list[str]:
    """The counter in Prometheus' text format."""
    head = [
        f"# HELP {METRIC} Stored records that could not be read and were set aside",
        f"# TYPE {METRIC} counter",
    ]
    return head + [f'{METRIC}{{kind="{kind}"}} {counts[kind]}' for kind in sorted(counts)]


def unique_name(name: str, taken: Mapping[str, object] | set[str] | frozenset[str]) -> str:
    """The name, or the name with the first free number: `web~2`."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}~{number}"
    return candidate
