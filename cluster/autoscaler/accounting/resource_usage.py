"""Who holds what on the agents: running tasks by app and role, and how an agent's price is shared among them. Pure.

An agent is used as far as the scarcest of its cpus, memory and gpus; that part of its price is shared by what each holder has of
what it has most of (its dominant share). The rest is nobody's, and told apart.
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
"""An app (or the framework, where there is none) and the role it runs in."""

SHARED = (0, 1, 3)
"""Dimensions that are scarce: cpus, memory, gpus. Disk and ports cost nothing by themselves."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task that runs, or ran. `since` and `ended` are as the engine says; 0 where it does not."""

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
    """Running tasks with their holders, again and again; of a task that was there before nothing is made anew."""

    def __init__(self) -> None:
        self._known: dict[str, Task] = {}

    def running(self, tasks: ClusterTasks, frameworks: Json) -> dict[str, Task]:
        """Tasks that hold resources, by id."""
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
    """Tasks that ended after `since`, as far as the engine still tells of them."""
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
    """A task with who holds it."""
    framework, role = owners.get(seen.framework_id, ("(unknown)", "*"))
    app = seen.app or framework or "(unknown)"
    return Task(
        seen.task_id, seen.agent_id, app, seen.role or role, seen.shape, seen.since, seen.ended
    )


def by_agent(tasks: Iterable[Task]) -> dict[str, dict[Holder, Shape]]:
    """What each holder has on each agent."""
    agents: dict[str, dict[Holder, Shape]] = {}
    for task in tasks:
        held = agents.setdefault(task.agent_id, {})
        before = held.get(task.holder)
        held[task.holder] = task.shape if before is None else plus(before, task.shape)
    return agents


def dominant_share(part: Shape, whole: Shape) -> float:
    """The greatest part of anything scarce that this is of the whole."""
    return max((part[place] / whole[place] for place in SHARED if whole[place]), default=0.0)


def parts(held: Mapping[Holder, Shape], total: Shape) -> tuple[dict[Holder, float], float]:
    """Which part of an agent each holder pays for, and the part that nobody holds: together 1."""
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
