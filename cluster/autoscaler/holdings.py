"""Who holds what on the agents: running tasks by app and role, and how an agent's price is shared among them. Pure.

An agent is used as far as the scarcest of its cpus, memory and gpus; that part of its price is shared by what each holder has of
what it has most of (its dominant share). The rest is nobody's, and told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.autoscaler.shape import Shape, plus
from cluster.autoscaler.wire import app_of
from cluster.mesos.messages import TERMINAL_STATES

Json = Mapping[str, Any]
Holder = tuple[str, str]
"""An app (or the framework, where there is none) and the role it runs in."""

SHARED = (0, 1, 3)
"""Dimensions that are scarce: cpus, memory, gpus. Disk and ports cost nothing by themselves."""

_PLACES = {"cpus": 0, "mem": 1, "disk": 2, "gpus": 3}


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
    """Reads GET_TASKS again and again; a task that was read before is not read anew, since none changes but in its state."""

    def __init__(self) -> None:
        self._known: dict[str, Task] = {}

    def running(self, tasks: Json, frameworks: Json) -> dict[str, Task]:
        """Tasks that hold resources, by id."""
        owners = _owners(frameworks)
        found: dict[str, Task] = {}
        for item in tasks.get("tasks", ()):
            if item.get("state") in TERMINAL_STATES:
                continue
            task_id = item.get("task_id", {}).get("value", "")
            known = self._known.get(task_id)
            if known is None or not known.since or known.agent_id != item.get("agent_id", {}).get("value", ""):
                known = read_task(item, owners)
            found[task_id] = known
        self._known = found
        return found


def ended(tasks: Json, frameworks: Json, since: float) -> list[Task]:
    """Tasks that ended after `since`, as far as the engine still tells of them."""
    owners = _owners(frameworks)
    lists = [item for item in tasks.get("tasks", ()) if item.get("state") in TERMINAL_STATES], tasks.get("completed_tasks", ())
    late = (item for items in lists for item in items if _last(item) > since)
    return [read_task(item, owners) for item in late]


def _owners(frameworks: Json) -> dict[str, tuple[str, str]]:
    found = {}
    for item in (*frameworks.get("frameworks", ()), *frameworks.get("completed_frameworks", ())):
        info = item.get("framework_info", {})
        roles = info.get("roles") or [info.get("role") or "*"]
        found[info.get("id", {}).get("value", "")] = (str(info.get("name", "")), str(roles[0]))
    return found


def read_task(item: Json, owners: Mapping[str, tuple[str, str]]) -> Task:
    """One task of GET_TASKS."""
    task_id = item.get("task_id", {}).get("value", "")
    framework, role = owners.get(item.get("framework_id", {}).get("value", ""), ("(unknown)", "*"))
    amounts, ports = [0, 0, 0, 0], 0
    for resource in item.get("resources", ()):
        place = _PLACES.get(resource.get("name", ""))
        if place is not None:
            amounts[place] += round(float(resource.get("scalar", {}).get("value", 0)) * 1000)
        elif resource.get("name") == "ports":
            ports += sum(one["end"] - one["begin"] + 1 for one in resource.get("ranges", {}).get("range", ()))
        role = resource.get("allocation_info", {}).get("role", role)
    began = [float(status["timestamp"]) for status in item.get("statuses", ()) if "timestamp" in status]
    shape: Shape = (amounts[0], amounts[1], amounts[2], amounts[3], ports)
    over = item.get("state") in TERMINAL_STATES
    return Task(
        task_id=task_id,
        agent_id=item.get("agent_id", {}).get("value", ""),
        app=app_of(task_id) or framework or "(unknown)",
        role=role,
        shape=shape,
        since=min(began, default=0.0),
        ended=max(began, default=0.0) if over else 0.0,
    )


def _last(item: Json) -> float:
    return max((float(status["timestamp"]) for status in item.get("statuses", ()) if "timestamp" in status), default=0.0)


def by_agent(tasks: Iterable[Task]) -> dict[str, dict[Holder, Shape]]:
    """What each holder has on each agent."""
    found: dict[str, dict[Holder, Shape]] = {}
    for task in tasks:
        held = found.setdefault(task.agent_id, {})
        before = held.get(task.holder)
        held[task.holder] = task.shape if before is None else plus(before, task.shape)
    return found


def dominant_share(part: Shape, whole: Shape) -> float:
    """The greatest part of anything scarce that this is of the whole."""
    return max((part[place] / whole[place] for place in SHARED if whole[place]), default=0.0)


def parts(held: Mapping[Holder, Shape], total: Shape) -> tuple[dict[Holder, float], float]:
    """Which part of an agent each holder pays for, and the part that nobody holds: together 1."""
    shares = {holder: dominant_share(shape, total) for holder, shape in held.items()}
    whole = sum(shares.values())
    if not whole:
        return {}, 1.0
    used = min(1.0, max(sum(shape[place] for shape in held.values()) / total[place] for place in SHARED if total[place]))
    return {holder: used * share / whole for holder, share in shares.items()}, 1.0 - used
