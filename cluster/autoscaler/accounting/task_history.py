"""The history of work: arrival, start, end and shape of each task, in rows of a minute. Pure.

A row has what changed. A full row, at the beginning of a term and a few times a day, has all
running tasks, so that a reader needs no row before it. `mesaform.simulator.history` reads the rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from mesaform.autoscaler.accounting.resource_usage import Task
from mesaform.autoscaler.accounting.usage_recorder import EVERY_S, STATED_EVERY_S
from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.aws.ports.ledger import Row
from mesaform.placement.constraints import Constraint

MOST_WAITING = 100_000
"""Arrivals kept of each app."""

MOST_GROUPS = 5_000
"""New groups since the last full row, after which the next one is due: it numbers them anew."""

Group = tuple[str, str, tuple[int, ...], tuple[Constraint, ...]]
"""App, role, shape and constraints: what tasks have in common."""


class Past:
    """The history of one term of leadership."""

    def __init__(self) -> None:
        self._running: dict[str, Task] = {}
        self._arrivals: dict[str, deque[float]] = {}
        self._arrived: dict[str, float] = {}
        self._constraints: dict[str, tuple[Constraint, ...]] = {}
        self._groups: dict[Group, int] = {}
        self._new_groups: list[int] = []
        self._groups_at_full = 0
        self._started: list[list[object]] = []
        self._ended: list[list[object]] = []
        self._written_at = 0.0
        self._full_at = -STATED_EVERY_S
        self._last: float | None = None

    def absorb(
        self,
        running: Mapping[str, Task],
        ended: Iterable[Task],
        queue: Iterable[QueueEntry],
        now: float,
    ) -> list[Row]:
        """The rows that are due after a pass at `now` (epoch s).

        `ended` are tasks that ended since the last pass, as the engine says; in the first pass of
        a term, those of a while before. Readers recognise by its id what an earlier leader wrote.
        """
        queue = list(queue)
        self._constraints.update({entry.app: entry.constraints for entry in queue})
        is_known = self._last is not None
        before, self._running = self._running, dict(running)
        over = {task.task_id: task for task in ended}
        for task in _absent_from(before, running):
            self._begin(task, now, known=is_known)
        self._end_all(_absent_from(running, before), over, now)
        for task in _absent_from({**running, **before}, over):
            self._add_short(task, now, known=is_known)
        self._wait(queue, now)
        self._forget_constraints(queue)
        self._last = now
        return self._due(now)

    def _forget_constraints(self, queue: Iterable[QueueEntry]) -> None:
        """Keep the constraints of apps that wait or run: only theirs are written again."""
        apps = {entry.app for entry in queue} | {task.app for task in self._running.values()}
        self._constraints = {
            app: constraints for app, constraints in self._constraints.items() if app in apps
        }

    def _end_all(self, tasks: Iterable[Task], over: Mapping[str, Task], now: float) -> None:
        """Tasks that no longer run: they ended when the engine says, else now."""
        for task in tasks:
            is_reported = task.task_id in over
            self._end(task.task_id, min(now, over[task.task_id].ended) if is_reported else now)

    def _add_short(self, task: Task, now: float, *, known: bool) -> None:
        """A task that began and ended between two passes."""
        if task.since:
            self._begin(task, now, known=known)
            self._end(task.task_id, min(now, task.ended))

    def close(self, now: float) -> list[Row]:
        """The remaining rows, at the end of the term."""
        return [self._row(now)] if self._started or self._ended else []

    def _wait(self, queue: Iterable[QueueEntry], now: float) -> None:
        """Note when the instances of each app began to wait.

        Instances beyond those that waited before arrive now; of withdrawn ones, the last go first.
        """
        arrivals: dict[str, deque[float]] = {}
        for entry in queue:
            times = arrivals[entry.app] = self._arrivals.get(entry.app) or deque(
                maxlen=MOST_WAITING
            )
            since = now if times else min(now, entry.since or now)
            while len(times) > entry.count:
                times.pop()
            times.extend([since] * min(MOST_WAITING, entry.count - len(times)))
        self._arrivals = arrivals

    def _begin(self, task: Task, now: float, *, known: bool) -> None:
        """Note the start of a task. The waiting time of tasks before the term is not known."""
        started = min(now, task.since or now)
        waited = self._arrivals.get(task.app)
        arrived = min(started, waited.popleft()) if waited and known else started
        self._arrived[task.task_id] = arrived
        self._started.append(self._entry(task, arrived, started))

    def _end(self, task_id: str, at: float) -> None:
        self._arrived.pop(task_id, None)
        self._ended.append([short(task_id), round(at, 1)])

    def _entry(self, task: Task, arrived: float, started: float) -> list[object]:
        group: Group = (task.app, task.role, task.shape, self._constraints.get(task.app, ()))
        if group not in self._groups:
            self._groups[group] = len(self._groups)
            self._new_groups.append(self._groups[group])
        return [
            short(task.task_id),
            self._groups[group],
            round(arrived, 1),
            round(started - arrived, 1),
        ]

    def _due(self, now: float) -> list[Row]:
        has_many = len(self._groups) - self._groups_at_full >= MOST_GROUPS
        if has_many or now - self._full_at >= STATED_EVERY_S:
            return [*self.close(now), self._full(now)]
        return self.close(now) if now - self._written_at >= EVERY_S else []

    def _full(self, now: float) -> Row:
        """All running tasks, with groups numbered anew."""
        self._full_at, self._groups, self._new_groups = now, {}, []
        for task_id, task in self._running.items():
            started = min(now, task.since or now)
            self._started.append(
                self._entry(task, min(started, self._arrived.get(task_id, started)), started)
            )
        self._groups_at_full = len(self._groups)
        return {**self._row(now), "full": True}

    def _row(self, now: float) -> Row:
        groups = {number: group for group, number in self._groups.items()}
        group_rows = {
            str(number): [
                app,
                role,
                list(shape),
                [
                    [constraint.field, constraint.operator, constraint.value]
                    for constraint in constraints
                ],
            ]
            for number in self._new_groups
            for app, role, shape, constraints in (groups[number],)
        }
        row = {
            "kind": "history",
            "at": now,
            "groups": group_rows,
            "started": self._started,
            "ended": self._ended,
        }
        self._written_at, self._new_groups, self._started, self._ended = now, [], [], []
        return row


def _absent_from(known: Mapping[str, Task], tasks: Mapping[str, Task]) -> list[Task]:
    """The tasks whose ids are not among the known ones."""
    return [task for task_id, task in tasks.items() if task_id not in known]


def short(task_id: str) -> str:
    """A task's id in twelve letters, unique among the tasks of a few months."""
    return blake2b(task_id.encode(), digest_size=6).hexdigest()
