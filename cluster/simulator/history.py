"""Conversion of a cluster's ledger to a trace. Pure.

Reads the rows of `autoscaler.accounting.task_history`. A task that ran before the period starts
with it and has its remaining duration. A task that ran at the end of the period ends with it. Apps
keep their constraints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesaform.autoscaler.model.shape import Shape
from mesaform.common.errors import BadInput
from mesaform.placement.constraints import Constraint
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
        """Take in one row. A full row ends every running task that it does not name."""
        if row.get("full"):
            self.groups = {}
        for number, group in row["groups"].items():
            self.groups[int(number)] = _group(group)
        for name, number, arrived, waited in row["started"]:
            self._start(name, number, float(arrived), float(waited))
        for name, at in row["ended"]:
            self._end(name, float(at))
        if row.get("full"):
            named = {name for name, *_ in row["started"]}
            for name in set(self.running) - named:
                self._end(name, float(row["at"]))

    def _start(self, name: str, number: int, arrived: float, waited_s: float) -> None:
        is_known = name in self.running or name in self.over
        if is_known or number not in self.groups:
            return
        app, role, shape, constraints = self.groups[number]
        started = arrived + waited_s
        self.running[name] = Ran(name, app, role, shape, constraints, arrived, started, None)

    def _end(self, name: str, at: float) -> None:
        task = self.running.pop(name, None)
        if task is not None:
            self.over[name] = Ran(
                task.name,
                task.app,
                task.role,
                task.shape,
                task.constraints,
                task.arrived,
                task.started,
                max(at, task.started),
            )


Group = tuple[str, str, Shape, tuple[Constraint, ...]]
"""App, role, shape and constraints that tasks share."""


def _group(fields: Sequence[Any]) -> Group:
    app, role, shape, constraints = fields
    return app, role, tuple(shape), tuple(Constraint(*constraint) for constraint in constraints)


def tasks(rows: Iterable[Row]) -> list[Ran]:
    """All tasks that the rows tell of, by arrival."""
    reader = _Reader()
    for row in sorted(rows, key=lambda row: (row["at"], str(row.get("row", "")))):
        if row["kind"] == "history":
            reader.read(row)
    return sorted(
        (*reader.over.values(), *reader.running.values()),
        key=lambda task: (task.arrived, task.name),
    )


def trace(rows: Iterable[Row], since: float, until: float, name: str) -> tuple[Trace, float]:
    """The work of a period, and when its first task arrived: the trace's time begins there.

    Raises:
        BadInput: the rows have no task in the period.

    """
    in_period = _in_period(tasks(rows), since, until)
    if not in_period:
        raise BadInput(
            "the ledger has no task in this period",
            where=name,
            fix="a longer --history, or a trace in a file",
        )
    works = [_task(task, since, until) for task in in_period if task.started < until]
    plain = [work for work in works if not work.shape[3]]
    began = min((work.at for work in plain), default=since)
    left_out = len(works) - len(plain)
    result = Trace(name, tuple(plain), left_out=left_out, constraints=_constraints(in_period))
    return starting_at_zero(result), began


def _constraints(in_period: Iterable[Ran]) -> dict[str, tuple[Constraint, ...]]:
    """Constraints by app, of the apps that have some."""
    return {_app(task): task.constraints for task in in_period if task.constraints}


def _in_period(everything: Iterable[Ran], since: float, until: float) -> list[Ran]:
    """Tasks that waited or ran in the period."""
    return [
        task
        for task in everything
        if task.arrived < until and (task.ended is None or task.ended > since)
    ]


def _task(task: Ran, since: float, until: float) -> Task:
    """The task of a ledger row; one with an app's name belongs to a service and is resumable."""
    end = min(until, until if task.ended is None else task.ended)
    shape = task.shape
    began = max(since, task.started)
    return Task(
        task.name,
        _app(task),
        shape,
        max(since, task.arrived),
        max(0.0, end - began),
        keeps_work=task.app.startswith("/"),
    )


def _app(task: Ran) -> str:
    """An app with another shape is another one: a trace's app has one shape."""
    cpus, mem, disk, gpus, _ = task.shape
    return (
        f"{task.app} {cpus / 1000:g}c {mem / 1000:g}m"
        + (f" {disk / 1000:g}d" if disk else "")
        + (f" {gpus / 1000:g}g" if gpus else "")
    )
