"""The ledger's decisions as a person wants to hear them: what was done together is one line, a removal's steps are one line. Pure.

A line never hides anything: its rows, with every id, are in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesaform.autoscaler.model.decision import packing_told

Row = Mapping[str, Any]

NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w-])")
REMOVAL = ("deactivate", "drain", "terminate")
DONE = {
    "deactivate": "deactivated",
    "drain": "drained",
    "terminate": "terminated",
    "reactivate": "taken back",
    "give_up": "given up",
    "abandon": "given work again, their drain took too long",
    "left": "ended by themselves",
}
REMOVED_WITHIN_S = 900.0
"""Steps of one removal further apart than this are told apart."""

BESIDE_S = 60.0
"""Equal decisions of passes closer together than this, with nothing else in between, are one line."""


@dataclass(slots=True)
class Line:
    """What was decided together. `rows` is every decision in it, `usd_per_hour` the sum of what they change."""

    at: float
    until: float
    kind: str
    rows: list[Row] = field(default_factory=list)
    steps: dict[str, float] = field(
        default_factory=dict
    )  # of a removal: kind -> when, in their order
    spread_s: float = 0.0  # between the first and the last of equal decisions of several passes

    @property
    def machines(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.get("machines", ())))

    @property
    def usd_per_hour(self) -> float:
        return round(sum(float(row.get("usd_per_hour", 0.0)) for row in self.rows), 6)

    @property
    def what(self) -> str:
        """What was done with how many machines of which types."""
        if self.kind not in DONE or (len(self.machines) == 1 and not self.steps):
            return _summed_what(self.rows)
        count = len(self.machines)
        spread = f"; one after another within {self.spread_s:.0f} s" if self.spread_s >= 1 else ""
        return f"{count} machine{'s' if count != 1 else ''}: {self._types()} {self._how()}{spread}"

    @property
    def reasons(self) -> list[str]:
        """Each reason once; where only numbers differ, with the range of them."""
        columns: dict[str, list[str]] = {}
        for row in self.rows:
            for reason in row.get("reasons", ()):
                columns.setdefault(skeleton(reason), []).append(reason)
        packed = dict.fromkeys(text for row in self.rows if (text := packing_told(row)))
        return [*(_range(texts) for texts in columns.values()), *packed]

    def _types(self) -> str:
        first = {
            name: str(row.get("offering", "")).partition("/")[0]
            for row in reversed(self.rows)
            for name in row.get("machines", ())
        }
        counts = Counter(kind or "machine" for kind in first.values())
        return ", ".join(
            f"{count} x {kind}"
            for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        )

    def _how(self) -> str:
        if not self.steps:
            return DONE[self.kind]
        first = next(iter(self.steps.values()))
        parts = [
            DONE[kind] if at == first else f"{DONE[kind]} {_after(at - first)}"
            for kind, at in self.steps.items()
        ]
        return ", ".join(parts)


def tell(rows: Iterable[Row]) -> list[Line]:
    """The rows as lines, oldest first."""
    ordered = sorted(rows, key=lambda row: float(row["at"]))
    return _beside(_removals(_together(ordered)))


def skeleton(reason: str) -> str:
    """A reason without its numbers: what equal reasons have in common."""
    return NUMBER.sub("#", reason)


def subject_rows(rows: Sequence[Row], subject: str) -> list[Row]:
    """The rows that concern an app, a task, an agent or an instance, by its id.

    A task's app is what its id says. An agent is known by the instance that any row names beside it, and the other way round.
    """
    names = {subject, *_aliases(rows, subject)}
    return [row for row in rows if _concerns(row, names)]


def app_of(task_id: str) -> str | None:
    """The services app that a task's id names."""
    name, mark, _ = task_id.partition(".instance-")
    return "/" + name.replace("_", "/") if mark else None


def _aliases(rows: Sequence[Row], subject: str) -> set[str]:
    app = app_of(subject)
    if app is not None:
        return {app}
    found: set[str] = set()
    for row in rows:
        machines, agents = set(row.get("machines", ())), set(row.get("agents", ()))
        if len(machines) == len(agents) == 1 and subject in machines | agents:
            found |= machines | agents
    return found


def _concerns(row: Row, names: set[str]) -> bool:
    told = {*row.get("machines", ()), *row.get("agents", ()), str(row.get("target", ""))}
    told |= {str(part).partition(" x ")[2] for part in row.get("demand", ())}
    if told & names:
        return True
    text = " ".join((*row.get("reasons", ()), str(row.get("what", ""))))
    return any(re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", text) for name in names)


def _together(rows: Iterable[Row]) -> list[Line]:
    """Same pass, same kind, same reasons."""
    lines: dict[tuple[Any, ...], Line] = {}
    for row in rows:
        kind, at = _kind(row), float(row["at"])
        reasons = tuple(skeleton(reason) for reason in row.get("reasons", ()))
        key: tuple[Any, ...] = (at, kind, row.get("pool", "") if kind == "buy" else "", reasons)
        if kind not in DONE and kind != "buy":
            key = (*key, len(lines))
        lines.setdefault(key, Line(at, at, kind)).rows.append(row)
    return list(lines.values())


def _removals(lines: Iterable[Line]) -> list[Line]:
    """The steps of one removal of the same machines, as one line where the first of them was."""
    found: list[Line] = []
    open_: dict[frozenset[str], Line] = {}
    for line in lines:
        key = frozenset(line.machines)
        before = open_.get(key)
        if before is not None and _goes_on(before, line):
            before.rows += line.rows
            before.steps[line.kind] = line.at
            before.until = line.at
            continue
        found.append(line)
        for machines in [machines for machines in open_ if machines & key]:
            del open_[machines]
        if line.kind in REMOVAL:
            line.steps = {line.kind: line.at}
            open_[key] = line
    for line in found:
        if len(line.steps) == 1:
            line.steps = {}
    return found


def _goes_on(before: Line, line: Line) -> bool:
    last = next(reversed(before.steps))
    if (
        line.kind not in REMOVAL
        or line.at - before.until > REMOVED_WITHIN_S
        or REMOVAL.index(line.kind) <= REMOVAL.index(last)
    ):
        return False
    return bool(_skeletons(before.rows[:1]) & _skeletons(line.rows))


def _skeletons(rows: Iterable[Row]) -> set[str]:
    return {skeleton(reason) for row in rows for reason in row.get("reasons", ())}


def _beside(lines: Iterable[Line]) -> list[Line]:
    """Equal lines of passes close together, with nothing else in between."""
    found: list[Line] = []
    for line in lines:
        before = found[-1] if found else None
        if before is not None and _same(before, line):
            before.rows += line.rows
            before.spread_s = line.at - before.at
            before.until = max(before.until, line.until)
            before.steps = {kind: min(before.steps[kind], at) for kind, at in line.steps.items()}
        else:
            found.append(line)
    return found


def _same(before: Line, line: Line) -> bool:
    if line.kind != before.kind or line.kind not in DONE or line.at - before.until > BESIDE_S:
        return False
    return list(before.steps) == list(line.steps) and _skeletons(before.rows) == _skeletons(
        line.rows
    )


def _kind(row: Row) -> str:
    return str(row.get("decision") or row.get("order") or row["kind"])


def _summed_what(rows: Sequence[Row]) -> str:
    """Purchases of one pass for one reason, or whatever is alone."""
    if len(rows) == 1:
        return str(rows[0].get("what", ""))
    return "; ".join(dict.fromkeys(str(row.get("what", "")) for row in rows))


def _range(texts: Sequence[str]) -> str:
    """One text for texts that differ in numbers only: `no task for 6 to 9 s`."""
    numbers = [NUMBER.findall(text) for text in texts]
    places = iter(list(zip(*numbers, strict=True)))

    def merged(_: re.Match[str]) -> str:
        seen = sorted(set(next(places)), key=float)
        return seen[0] if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"

    return NUMBER.sub(merged, texts[0])


def _after(seconds: float) -> str:
    return f"after {seconds:.0f} s" if seconds >= 1 else "at once"
