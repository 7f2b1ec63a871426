"""Resource usage of agents: tasks by app and role, and how they share an agent's price. Pure.

An agent is used as far as the scarcest of its cpus, memory and gpus. That part of its price is
shared by the dominant shares of the holders. The rest is unused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mesaform.autoscaler.model.cluster_tasks import Seen
from mesaform.autoscaler.model.cluster_tasks import Tasks as ClusterTasks
from mesaform.autoscaler.model.shape import Shape, plus

Json = Mapping[str, Any]
Holder = tuple[str, str]
"""An app (or a framework without one) and its role."""

SHARED = (0, 1, 3)
"""Indexes of scarce dimensions: cpus, memory, gpus. Disk and ports cost nothing by themselves."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `since` and `ended` are as the engine says (epoch s); 0 if it does not."""

    task_id: str
    agent_id: str
    app: str
    role: str
    shape: Shape
    since: float = 0.0
    ended: float = 0.0

    @property
    def holder(self) -> Holder:
        return (self.app, self.role)


class Tasks:
    """Running tasks with their holders. The object of a task that ran before is reused."""

    def __init__(self) -> None:
        self._known: dict[str, Task] = {}

    def running(self, tasks: ClusterTasks, frameworks: Json) -> dict[str, Task]:
        """Running tasks that hold resources, by id."""
        owners = _owners(frameworks)
        running: dict[str, Task] = {}
        for seen in tasks.running:
            before = self._known.get(seen.task_id)
            same = (
                before is not None
                and before.agent_id == seen.agent_id
                and before.since == seen.since
                and before.shape == seen.shape
            )
            running[seen.task_id] = (
                before if before is not None and same else held_task(seen, owners)
            )
        self._known = running
        return running


def ended(tasks: ClusterTasks, frameworks: Json, since: float) -> list[Task]:
    """Tasks that ended after `since` (epoch s), as far as the engine knows them."""
    owners = _owners(frameworks)
    return [held_task(seen, owners) for seen in tasks.over if seen.ended > since]


def _owners(frameworks: Json) -> dict[str, tuple[str, str]]:
    owners = {}
    for item in (*frameworks.get("frameworks", ()), *frameworks.get("completed_frameworks", ())):
        info = item.get("framework_info", {})
        roles = info.get("roles") or [info.get("role") or "*"]
        owners[info.get("id", {}).get("value", "")] = (str(info.get("name", "")), str(roles[0]))
    return owners


def held_task(seen: Seen, owners: Mapping[str, tuple[str, str]]) -> Task:
    """A task with its holder."""
    framework, role = owners.get(seen.framework_id, ("(unknown)", "*"))
    app = seen.app or framework or "(unknown)"
    return Task(
        seen.task_id, seen.agent_id, app, seen.role or role, seen.shape, seen.since, seen.ended
    )


def by_agent(tasks: Iterable[Task]) -> dict[str, dict[Holder, Shape]]:
    """The resources of each holder on each agent."""
    agents: dict[str, dict[Holder, Shape]] = {}
    for task in tasks:
        held = agents.setdefault(task.agent_id, {})
        before = held.get(task.holder)
        held[task.holder] = task.shape if before is None else plus(before, task.shape)
    return agents


def dominant_share(part: Shape, whole: Shape) -> float:
    """The largest part of a scarce dimension."""
    return max((part[place] / whole[place] for place in SHARED if whole[place]), default=0.0)


def parts(held: Mapping[Holder, Shape], total: Shape) -> tuple[dict[Holder, float], float]:
    """The part of an agent that each holder pays for, and the unused part; together 1."""
    shares = {holder: dominant_share(shape, total) for holder, shape in held.items()}
    whole = sum(shares.values())
    if not whole:
        return {}, 1.0
    used = min(
        1.0,
        max(
            sum(shape[place] for shape in held.values()) / total[place]
            for place in SHARED
            if total[place]
        ),
    )
    return {holder: used * share / whole for holder, share in shares.items()}, 1.0 - used
