"""The ledger's decisions and overrides in lines for people. Pure.

What was decided together is one line, and so are the steps of a removal. Lines are grouped by
fields (time, kind, pool, reason codes, machines), never by text. A line keeps all of its rows.
Rows are in the current vocabulary (see `model.old_vocabulary`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mesaform.autoscaler.model.decision import Decision, from_record
from mesaform.autoscaler.model.reason import Param, Reason
from mesaform.autoscaler.reporting.decision_text import render_packing, render_row
from mesaform.autoscaler.reporting.reason_text import render_range
from mesaform.aws.ports.ledger import Row

REMOVAL = ("deactivate", "drain", "terminate")
DONE = {
    "deactivate": "deactivated",
    "drain": "drained",
    "terminate": "terminated",
    "reactivate": "reactivated",
    "give_up": "given up",
    "drain_timed_out": "reactivated, as their drain timed out",
    "self_terminated": "terminated by themselves",
}
REMOVED_WITHIN_S = 900.0
"""Steps of one removal that are further apart are separate lines, in seconds."""

BESIDE_S = 60.0
"""Equal decisions of passes that are closer together, with nothing in between, are one line (s)."""

ReasonKey = tuple[object, ...]
"""A reason without its numbers: what reasons of one line have in common."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows to show. Empty fields select everything.

    `subject` is an app, a framework or what it waits for, a task, an agent, an instance, a pool
    or an override's target, by its name.
    """

    subject: str = ""
    kind: str = ""
    reason: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.subject or self.kind or self.reason)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row with what grouping and selection need of it."""

    row: Row
    at: float
    kind: str
    reasons: tuple[Reason, ...]
    decision: Decision | None

    @classmethod
    def of(cls, row: Row) -> Entry:
        if row["kind"] != "decision":
            return cls(row, float(row["at"]), str(row.get("override") or row["kind"]), (), None)
        decision = from_record(row)
        return cls(row, decision.at, decision.kind, decision.reasons, decision)

    @property
    def machines(self) -> tuple[str, ...]:
        return self.decision.machines if self.decision else ()

    @property
    def agents(self) -> tuple[str, ...]:
        return self.decision.agents if self.decision else ()

    @property
    def usd_per_hour(self) -> float:
        return self.decision.usd_per_hour if self.decision else 0.0

    @property
    def reason_keys(self) -> tuple[ReasonKey, ...]:
        return tuple(reason_key(reason) for reason in self.reasons)

    @property
    def names(self) -> set[str]:
        """Everything that the row is about, by name."""
        names = {*self.machines, *self.agents, str(self.row.get("target", ""))}
        names.add(str(self.row.get("pool", "")))
        if self.decision is not None:
            for part in self.decision.demand:
                names |= {part.name, *_framework_and_item(part.name)}
        for reason in self.reasons:
            names.update(_names_in(reason))
        return names - {""}


@dataclass(slots=True)
class Line:
    """What was decided together. `usd_per_hour` is the sum of what its entries change.

    `steps` are those of a removal: kind and time, in their order. `spread_s` is the time between
    the first and the last of equal decisions of several passes.
    """

    at: float
    until: float
    kind: str
    entries: list[Entry] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    spread_s: float = 0.0

    @property
    def rows(self) -> list[Row]:
        return [entry.row for entry in self.entries]

    @property
    def machines(self) -> list[str]:
        return list(dict.fromkeys(name for entry in self.entries for name in entry.machines))

    @property
    def agents(self) -> list[str]:
        return list(dict.fromkeys(name for entry in self.entries for name in entry.agents))

    @property
    def usd_per_hour(self) -> float:
        return round(sum(entry.usd_per_hour for entry in self.entries), 6)

    @property
    def what(self) -> str:
        """What was done, with how many machines of which types."""
        if self.kind == "buy" and len(self.entries) > 1:  # a fleet for each type and zone
            return f"{self._bought()} for pool {self.entries[0].row.get('pool', '')}"
        if self.kind not in DONE or (len(self.machines) == 1 and not self.steps):
            return "; ".join(dict.fromkeys(render_row(entry.row) for entry in self.entries))
        return self._removed()

    def _removed(self) -> str:
        count = len(self.machines)
        spread = f"; one after another within {self.spread_s:.0f} s" if self.spread_s >= 1 else ""
        noun = "machine" if count == 1 else "machines"
        return f"{count} {noun}: {self._types()} {self._how()}{spread}"

    @property
    def reasons(self) -> list[str]:
        """Each reason once; where only numbers differ, with their range."""
        columns: dict[ReasonKey, list[Reason]] = {}
        for entry in self.entries:
            for reason in entry.reasons:
                columns.setdefault(reason_key(reason), []).append(reason)
        decisions = [entry.decision for entry in self.entries if entry.decision is not None]
        packed = dict.fromkeys(text for each in decisions if (text := render_packing(each)))
        return [*(render_range(reasons) for reasons in columns.values()), *packed]

    def add_step(self, line: Line) -> None:
        """Add a later step of the same removal."""
        self.entries += line.entries
        self.steps[line.kind] = line.at
        self.until = line.at

    def _bought(self) -> str:
        counts: Counter[str] = Counter()
        for entry in self.entries:
            if entry.decision is not None:
                counts[entry.decision.instance_type] += entry.decision.count
        return _counted(counts)

    def _types(self) -> str:
        first = {
            name: entry.decision.instance_type if entry.decision else ""
            for entry in reversed(self.entries)
            for name in entry.machines
        }
        return _counted(Counter(instance_type or "machine" for instance_type in first.values()))

    def _how(self) -> str:
        if not self.steps:
            return DONE[self.kind]
        first = next(iter(self.steps.values()))
        parts = [
            DONE[kind] if at == first else f"{DONE[kind]} {_after(at - first)}"
            for kind, at in self.steps.items()
        ]
        return ", ".join(parts)


def _counted(types: Counter[str]) -> str:
    """`2 x m5.large, 1 x c5.large`: the most frequent first."""
    ordered = sorted(types.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} x {instance_type}" for instance_type, count in ordered)


def lines_of(rows: Iterable[Row]) -> list[Line]:
    """The rows in lines, oldest first."""
    entries = sorted((Entry.of(row) for row in rows), key=lambda entry: entry.at)
    return _join_neighbours(_join_removals(_by_pass(entries)))


def single_lines(rows: Iterable[Row]) -> list[Line]:
    """The rows, one a line."""
    entries = (Entry.of(row) for row in rows)
    return [Line(entry.at, entry.at, entry.kind, [entry]) for entry in entries]


def reason_key(reason: Reason) -> ReasonKey:
    """A reason without its numbers."""
    texts = sorted(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in reason.params.items()
        if not isinstance(value, int | float)
    )
    return (reason.code, *texts)


def select(rows: Sequence[Row], selection: Selection) -> list[Row]:
    """The rows that a selection selects.

    A task's app is what its id says. An agent is known by the instance that any row names beside
    it, and the other way round.
    """
    entries = [Entry.of(row) for row in rows]
    names = {selection.subject, *_aliases(entries, selection.subject)}
    return [entry.row for entry in entries if _is_selected(entry, selection, names)]


def _is_selected(entry: Entry, selection: Selection, names: set[str]) -> bool:
    """Whether every field of the selection that is set matches."""
    codes = {str(reason.code) for reason in entry.reasons}
    has_subject = not selection.subject or bool(entry.names & names)
    has_kind = selection.kind in {"", entry.kind}
    return has_subject and has_kind and selection.reason in {"", *codes}


def app_of(task_id: str) -> str | None:
    """The app of the services framework that a task's id names; None for another framework's."""
    name, mark, _ = task_id.partition(".instance-")
    return "/" + name.replace("_", "/") if mark else None


def _framework_and_item(name: str) -> set[str]:
    """Both parts of `framework/item`; nothing for the id of an app, which begins with a slash."""
    framework, mark, item = name.partition("/")
    return {framework, item} if mark and framework else set()


def _names_in(reason: Reason) -> set[str]:
    """The texts among a reason's parameters, whole."""
    names: set[str] = set()
    for value in reason.params.values():
        names.update(_texts(value))
    return names


def _texts(value: Param) -> Iterable[str]:
    if isinstance(value, str):
        return (value,)
    return value if isinstance(value, tuple | list) else ()


def _aliases(entries: Sequence[Entry], subject: str) -> set[str]:
    app = app_of(subject)
    if app is not None:
        return {app}
    aliases: set[str] = set()
    for entry in entries:
        both = {*entry.machines, *entry.agents}
        if len(entry.machines) == len(entry.agents) == 1 and subject in both:
            aliases |= both
    return aliases


def _by_pass(entries: Iterable[Entry]) -> list[Line]:
    """Entries of the same pass, kind and reasons in a line."""
    lines: dict[tuple[object, ...], Line] = {}
    for entry in entries:
        pool = entry.row.get("pool", "") if entry.kind == "buy" else ""
        key: tuple[object, ...] = (entry.at, entry.kind, pool, entry.reason_keys)
        if entry.kind not in DONE and entry.kind != "buy":
            key = (*key, len(lines))
        lines.setdefault(key, Line(entry.at, entry.at, entry.kind)).entries.append(entry)
    return list(lines.values())


def _join_removals(lines: Iterable[Line]) -> list[Line]:
    """The steps of a removal of the same machines in one line, in the place of the first step."""
    joined: list[Line] = []
    open_removals: dict[frozenset[str], Line] = {}
    for line in lines:
        machines = frozenset(line.machines)
        before = open_removals.get(machines)
        if before is not None and _continues(before, line):
            before.add_step(line)
            continue
        joined.append(line)
        _close_removals(open_removals, machines)
        if line.kind in REMOVAL:
            line.steps = {line.kind: line.at}
            open_removals[machines] = line
    for line in joined:
        line.steps = line.steps if len(line.steps) > 1 else {}
    return joined


def _close_removals(open_removals: dict[frozenset[str], Line], machines: frozenset[str]) -> None:
    """Forget removals of any of these machines."""
    for other in [other for other in open_removals if other & machines]:
        del open_removals[other]


def _continues(before: Line, line: Line) -> bool:
    """Whether a line is a later step of the removal in another line."""
    last = next(reversed(before.steps))
    if line.kind not in REMOVAL or line.at - before.until > REMOVED_WITHIN_S:
        return False
    is_later_step = REMOVAL.index(line.kind) > REMOVAL.index(last)
    return is_later_step and bool(_keys(before.entries[:1]) & _keys(line.entries))


def _keys(entries: Iterable[Entry]) -> set[ReasonKey]:
    return {key for entry in entries for key in entry.reason_keys}


def _join_neighbours(lines: Iterable[Line]) -> list[Line]:
    """Equal lines of passes close together, with nothing in between, in one line."""
    joined: list[Line] = []
    for line in lines:
        before = joined[-1] if joined else None
        if before is not None and _is_equal(before, line):
            before.entries += line.entries
            before.spread_s = line.at - before.at
            before.until = max(before.until, line.until)
            before.steps = {kind: min(before.steps[kind], at) for kind, at in line.steps.items()}
        else:
            joined.append(line)
    return joined


def _is_equal(before: Line, line: Line) -> bool:
    if line.kind != before.kind or line.kind not in DONE or line.at - before.until > BESIDE_S:
        return False
    has_equal_steps = list(before.steps) == list(line.steps)
    return has_equal_steps and _keys(before.entries) == _keys(line.entries)


def _after(seconds: float) -> str:
    return f"after {seconds:.0f} s" if seconds >= 1 else "at once"
