"""The operator API's and the services API's JSON as values of `model`. Pure, and forgiving: what is absent has its default."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from cluster.autoscaler.model import Agent, ClusterView, Constraint, QueueEntry, Work
from cluster.autoscaler.shape import Shape, make, shape_of
from cluster.autoscaler.wire_frameworks import PROBE, counters_of, framework, quotas, refusals_of
from cluster.mesos.messages import TERMINAL_STATES, Resource, from_wire

Json = Mapping[str, Any]
INSTANCE_MARK = ".instance-"
PROTECT = "mesaform/protect"
"""A task with this label (an agent with this attribute) set to `true` is not disturbed by any policy."""

RUNS_FOR = "mesaform/runs-for-s"
"""A task with this label will be done that many seconds after it began: an agent soon done is not emptied."""


def cluster_view(
    agents: Json,
    tasks: Json,
    frameworks: Json,
    metrics: Mapping[str, float],
    own: Iterable[str] = (),
    *,
    detailed: bool = False,
    quota: Json | None = None,
    elected_at: float = 0.0,
) -> ClusterView:
    """GET_AGENTS, GET_TASKS, GET_FRAMEWORKS, the metrics by name and GET_QUOTA as one view.

    `own` are ids of frameworks whose demand is known better from elsewhere (the services'); they are left out, and so is the
    autoscaler's own framework. `detailed` views have every agent's work, task by task.
    """
    running = [task for task in tasks.get("tasks", []) if task.get("state") not in TERMINAL_STATES]
    by_agent = _grouped(running, "agent_id")
    by_framework = _grouped(running, "framework_id")
    skipped = set(own)
    infos = [item.get("framework_info", {}) for item in frameworks.get("frameworks", [])] if detailed else []
    names = {_id(info): str(info.get("name", "")) for info in infos} if detailed else None
    counters, refusals = counters_of(metrics), refusals_of(metrics)
    return ClusterView(
        agents=tuple(_agent(item, by_agent, names) for item in agents.get("agents", [])),
        frameworks=tuple(
            framework(item, (_shape(task.get("resources", [])) for task in by_framework.get(name, [])), counters.get(name, {}), refusals)
            for name, item in _others(frameworks, skipped)
        ),
        recovered=len(agents.get("recovered_agents", [])),
        quotas=quotas(quota or {}, agents.get("agents", [])),
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
    return tuple(_entry(item) for item in answer.get("queue", []) if item.get("app") or item.get("pod"))


def both_times(before: Iterable[QueueEntry], after: Iterable[QueueEntry]) -> tuple[QueueEntry, ...]:
    """What waited before the agents were read and still waits after it: so nothing counts as waiting and as running too."""
    later = {(entry.source, entry.app): entry for entry in after}
    return tuple(_least(entry, later[key]) for entry in before if (key := (entry.source, entry.app)) in later)


def app_of(task_id: str) -> str | None:
    """The services app of a task: `web_api.instance-….…` is of `/web/api`; None for tasks of other frameworks."""
    name, mark, _ = task_id.partition(INSTANCE_MARK)
    return "/" + name.replace("_", "/") if mark else None


def _least(before: QueueEntry, after: QueueEntry) -> QueueEntry:
    if after.count <= before.count and after.overdue == before.overdue:
        return after
    return replace(after, count=min(before.count, after.count), overdue=before.overdue and after.overdue)


def _grouped(tasks: Iterable[Json], key: str) -> dict[str, list[Json]]:
    groups: dict[str, list[Json]] = {}
    for task in tasks:
        groups.setdefault(task.get(key, {}).get("value", ""), []).append(task)
    return groups


def app_constraints(answer: Json) -> dict[str, tuple[Constraint, ...]]:
    """`GET /v2/apps`: the constraints of every app."""
    return {app["id"]: _constraints(app) for app in answer.get("apps", [])}


def _constraints(app: Json) -> tuple[Constraint, ...]:
    return tuple(Constraint(*(str(part) for part in parts[:3])) for parts in app.get("constraints") or [])


def _agent(item: Json, tasks: Mapping[str, list[Json]], frameworks: Mapping[str, str] | None) -> Agent:
    info = item.get("agent_info", {})
    agent_id = _id(info)
    mine = tasks.get(agent_id, [])
    apps: dict[str, int] = {}
    for task in mine:
        app = app_of(task.get("task_id", {}).get("value", ""))
        if app is not None:
            apps[app] = apps.get(app, 0) + 1
    return Agent(
        agent_id=agent_id,
        hostname=info.get("hostname", ""),
        attributes={attribute["name"]: _attribute(attribute) for attribute in info.get("attributes", [])},
        total=_shape(item.get("total_resources") or info.get("resources", [])),
        allocated=_shape(item.get("allocated_resources", [])),
        active=bool(item.get("active", False)),
        deactivated=bool(item.get("deactivated", False)),
        drain_state=item.get("drain_info", {}).get("state", ""),
        tasks=len(mine),
        apps=apps,
        registered_at=item.get("registered_time", {}).get("nanoseconds", 0) / 1e9,
        work=() if frameworks is None else tuple(_work(task, frameworks) for task in mine),
    )


def _work(task: Json, frameworks: Mapping[str, str]) -> Work:
    labels = {label.get("key", ""): label.get("value", "") for label in task.get("labels", {}).get("labels", [])}
    task_id = task.get("task_id", {}).get("value", "")
    framework = frameworks.get(task.get("framework_id", {}).get("value", ""), "")
    since = min((float(status["timestamp"]) for status in task.get("statuses", []) if "timestamp" in status), default=0.0)
    runs_for_s = _seconds(labels.get(RUNS_FOR, ""))
    return Work(
        task_id=task_id,
        name=app_of(task_id) or framework,
        framework=framework,
        shape=_shape(task.get("resources", [])),
        since=since,
        protected=labels.get(PROTECT) == "true",
        ends_at=since + runs_for_s if since and runs_for_s else 0.0,
    )


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def _entry(item: Json) -> QueueEntry:
    app = item.get("app") or item["pod"]
    ports = app.get("portDefinitions") or app.get("ports") or []
    shape = make(app.get("cpus", 0), app.get("mem", 0), app.get("disk", 0), app.get("gpus", 0), len(ports))
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


def _attribute(attribute: Json) -> str:
    for kind in ("text", "scalar"):
        if kind in attribute:
            return str(attribute[kind].get("value", ""))
    return ""


def _shape(resources: list[Any]) -> Shape:
    return shape_of(from_wire(msgspec.convert(resources, list[Resource])))
