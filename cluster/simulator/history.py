"""A trace out of a cluster's own history: the ledger's rows of `mesaform.autoscaler.accounting.task_history`, task by task. Pure.

What ran before the stretch began is there from its first moment, with the time that it still had; what still ran at its end ends with it,
for nobody knows more. Apps keep their constraints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesaform.autoscaler.model.cluster_view import Constraint
from mesaform.autoscaler.model.shape import Shape
from mesaform.common.errors import BadInput
from mesaform.simulator.trace import Task, Trace, starting_at_zero

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ran:
    """A task as the history has it. Epoch seconds; `ended` is None while it ran on."""

    name: str
    app: str
    role: str
    shape: Shape
    constraints: tuple[Constraint, ...]
    arrived: float
    started: float
    ended: float | None


@dataclass(slots=True)
class _Reader:
    """Reads rows in order of time."""

    groups: dict[int, tuple[str, str, Shape, tuple[Constraint, ...]]] = field(default_factory=dict)
    running: dict[str, Ran] = field(default_factory=dict)
    over: dict[str, Ran] = field(default_factory=dict)

    def read(self, row: Row) -> None:
        if row.get("full"):
            self.groups = {}
        for number, (app, role, shape, constraints) in row["groups"].items():
            self.groups[int(number)] = (
                app,
                role,
                tuple(shape),
                tuple(Constraint(*one) for one in constraints),
            )
        named = set()
        for name, group, arrived, waited in row["started"]:
            named.add(name)
            if name not in self.running and name not in self.over and group in self.groups:
                app, role, shape, constraints = self.groups[group]
                self.running[name] = Ran(
                    name,
                    app,
                    role,
                    shape,
                    constraints,
                    float(arrived),
                    float(arrived) + float(waited),
                    None,
                )
        for name, at in row["ended"]:
            self._end(name, float(at))
        if row.get("full"):  # what it does not name ended while nobody looked
            for name in set(self.running) - named:
                self._end(name, float(row["at"]))

    def _end(self, name: str, at: float) -> None:
        one = self.running.pop(name, None)
        if one is not None:
            self.over[name] = Ran(
                one.name,
                one.app,
                one.role,
                one.shape,
                one.constraints,
                one.arrived,
                one.started,
                max(at, one.started),
            )


def tasks(rows: Iterable[Row]) -> list[Ran]:
    """All tasks that the rows tell of, by arrival."""
    reader = _Reader()
    for row in sorted(rows, key=lambda row: (row["at"], str(row.get("row", "")))):
        if row["kind"] == "history":
            reader.read(row)
    return sorted(
        (*reader.over.values(), *reader.running.values()), key=lambda one: (one.arrived, one.name)
    )


def trace(rows: Iterable[Row], since: float, until: float, name: str) -> tuple[Trace, float]:
    """The work of a stretch of time, and when its first task came: there the trace's time begins.

    Raises:
        BadInput: nothing ran in it, as far as the rows tell.

    """
    found = [
        one
        for one in tasks(rows)
        if one.arrived < until and (one.ended is None or one.ended > since)
    ]
    if not found:
        raise BadInput(
            "the ledger tells of no task in this time",
            where=name,
            fix="a longer --history, or a trace in a file",
        )
    works = [_task(one, since, until) for one in found if one.started < until]
    plain = [one for one in works if not one.shape[3]]
    constraints = {_app(one): one.constraints for one in found if one.constraints}
    began = min((task.at for task in plain), default=since)
    return starting_at_zero(
        Trace(name, tuple(plain), left_out=len(works) - len(plain), constraints=constraints)
    ), began


def _task(one: Ran, since: float, until: float) -> Task:
    """It goes on where it stopped if it was a service's: those are told by their app's name."""
    end = min(until, until if one.ended is None else one.ended)
    shape: Shape = (*one.shape[:4], 0)
    began = max(since, one.started)
    return Task(
        one.name,
        _app(one),
        shape,
        max(since, one.arrived),
        max(0.0, end - began),
        keeps_work=one.app.startswith("/"),
    )


def _app(one: Ran) -> str:
    """An app with another shape is another one: a trace's app has one shape."""
    cpus, mem, disk, gpus, _ = one.shape
    return (
        f"{one.app} {cpus / 1000:g}c {mem / 1000:g}m"
        + (f" {disk / 1000:g}d" if disk else "")
        + (f" {gpus / 1000:g}g" if gpus else "")
    )
