"""The operator API's and the services API's JSON as values of `model`. Pure, and forgiving: what is absent has its default."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from mesaform.autoscaler.model.cluster_tasks import Seen
from mesaform.autoscaler.model.cluster_view import (
    Agent,
    ClusterView,
    Constraint,
    QueueEntry,
    RunningTask,
)
from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.shape import Shape, make
from mesaform.autoscaler.observation.mesos_agent_parser import Agents
from mesaform.autoscaler.observation.mesos_framework_parser import (
    PROBE,
    counters_of,
    framework,
    quotas,
    refusals_of,
)
from mesaform.autoscaler.observation.mesos_task_parser import by_agent

Json = Mapping[str, Any]


def cluster_view(
    agents: Agents,
    tasks: Sequence[Seen],
    frameworks: Json,
    metrics: Mapping[str, float],
    own: Iterable[str] = (),
    *,
    detailed: bool = False,
    over: Sequence[Seen] = (),
    quota: Json | None = None,
    elected_at: float = 0.0,
) -> ClusterView:
    """The agents, the running tasks, GET_FRAMEWORKS, the metrics by name and GET_QUOTA as one view.

    `own` are ids of frameworks whose demand is known better from elsewhere (the services'); they are left out, and so is the
    autoscaler's own framework. `detailed` views have every agent's work, task by task.
    """
    on_agents = by_agent(tasks)
    shapes: dict[str, set[Shape]] = {}
    for task in tasks:
        shapes.setdefault(task.framework_id, set()).add(task.shape)
    skipped = set(own)
    infos = (
        [item.get("framework_info", {}) for item in frameworks.get("frameworks", [])]
        if detailed
        else []
    )
    names = {_id(info): str(info.get("name", "")) for info in infos} if detailed else None
    counters, refusals = counters_of(metrics), refusals_of(metrics)
    return ClusterView(
        agents=tuple(
            _with_tasks(agent, on_agents.get(agent.agent_id, ()), names) for agent in agents.agents
        ),
        frameworks=tuple(
            framework(item, shapes.get(name, ()), counters.get(name, {}), refusals)
            for name, item in _others(frameworks, skipped)
        ),
        recovered=agents.recovered,
        quotas=quotas(quota or {}, agents.resources()),
        ended=()
        if names is None
        else tuple(_ended(task, names) for task in over if 0 < task.since <= task.ended),
        elected_at=elected_at,
        allocator_lag_s=metrics.get("allocator/mesos/allocation_run_latency_ms", 0.0) / 1000,
    )


def _others(frameworks: Json, skipped: Collection[str]) -> Iterator[tuple[str, Json]]:
    """Frameworks whose demand is known from nowhere else, by id."""
    for item in frameworks.get("frameworks", []):
        info = item.get("framework_info", {})
        if _id(info) not in skipped and info.get("name") != PROBE:
            yield _id(info), item


def queue_entries(answer: Json) -> tuple[QueueEntry, ...]:
    """`GET /v2/queue`."""
    return tuple(
        _entry(item) for item in answer.get("queue", []) if item.get("app") or item.get("pod")
    )


def both_times(before: Iterable[QueueEntry], after: Iterable[QueueEntry]) -> tuple[QueueEntry, ...]:
    """What waited before the agents were read and still waits after it: so nothing counts as waiting and as running too."""
    later = {(entry.source, entry.app): entry for entry in after}
    return tuple(
        _least(entry, later[key]) for entry in before if (key := (entry.source, entry.app)) in later
    )


def _least(before: QueueEntry, after: QueueEntry) -> QueueEntry:
    if after.count <= before.count and after.overdue == before.overdue:
        return after
    return replace(
        after, count=min(before.count, after.count), overdue=before.overdue and after.overdue
    )


def app_constraints(answer: Json) -> dict[str, tuple[Constraint, ...]]:
    """`GET /v2/apps`: the constraints of every app."""
    return {app["id"]: _constraints(app) for app in answer.get("apps", [])}


def _constraints(app: Json) -> tuple[Constraint, ...]:
    return tuple(
        Constraint(*(str(part) for part in parts[:3])) for parts in app.get("constraints") or []
    )


def _with_tasks(agent: Agent, mine: Sequence[Seen], frameworks: Mapping[str, str] | None) -> Agent:
    apps: dict[str, int] = {}
    for task in mine:
        if task.app is not None:
            apps[task.app] = apps.get(task.app, 0) + 1
    work = (
        ()
        if frameworks is None
        else tuple(_work(task, frameworks.get(task.framework_id, "")) for task in mine)
    )
    return replace(agent, tasks=len(mine), apps=apps, work=work)


def _work(task: Seen, framework: str) -> RunningTask:
    return RunningTask(
        task_id=task.task_id,
        name=task.app or framework,
        framework=framework,
        shape=task.shape,
        since=task.since,
        protected=task.protected,
        ends_at=task.since + task.runs_for_s if task.since and task.runs_for_s else 0.0,
    )


def _ended(task: Seen, frameworks: Mapping[str, str]) -> Ended:
    return Ended(
        task.app or frameworks.get(task.framework_id, ""),
        task.ended - task.since,
        task.ended,
        task.agent_id,
    )


def _entry(item: Json) -> QueueEntry:
    app = item.get("app") or item["pod"]
    ports = app.get("portDefinitions") or app.get("ports") or []
    shape = make(
        app.get("cpus", 0), app.get("mem", 0), app.get("disk", 0), app.get("gpus", 0), len(ports)
    )
    summary = item.get("processedOffersSummary", {})
    rows = summary.get("rejectSummaryLastOffers") or summary.get("rejectSummaryLaunchAttempt") or []
    return QueueEntry(
        app=app["id"],
        shape=shape,
        count=int(item.get("count", 0)),
        overdue=bool(item.get("delay", {}).get("overdue", False)),
        constraints=_constraints(app),
        role=item.get("role") or app.get("role") or "*",
        since=_time(item.get("since")),
        rejections={row["reason"]: int(row["declined"]) for row in rows if row.get("declined")},
    )


def _time(text: Any) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else 0.0
    except ValueError:
        return 0.0


def _id(info: Json) -> str:
    return str(info.get("id", {}).get("value", ""))
