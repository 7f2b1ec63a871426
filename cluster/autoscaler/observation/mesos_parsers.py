"""Conversion of the operator API's and the services API's answers to values of `model`.

Pure. An absent field has its default. An entry that cannot be converted is left out and is a fault
(`common.faults`); the others are converted. Depends on `autoscaler.model` and the parsers of this
package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from mesaform.autoscaler.model.cluster_tasks import Seen
from mesaform.autoscaler.model.cluster_view import (
    ClusterView,
    Framework,
    QueueEntry,
    Quota,
)
from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.shape import Shape, make
from mesaform.autoscaler.observation.agent_tasks import AgentTasks
from mesaform.autoscaler.observation.mesos_agent_parser import Agents
from mesaform.autoscaler.observation.mesos_framework_parser import (
    PROBE,
    counters_of,
    framework,
    quotas,
    refusals_of,
)
from mesaform.common.errors import ClusterUnreachable
from mesaform.common.faults import Fault, contained
from mesaform.common.json_types import as_list, as_object
from mesaform.placement.constraints import Constraint, host_port
from mesaform.placement.ports import fixed_ports
from mesaform.placement.task_labels import TaskLabels, read_labels

Json = Mapping[str, Any]

_ENDED_COUNTERS = tuple(
    f"tasks_{state}"
    for state in ("finished", "failed", "killed", "lost", "error", "gone", "dropped")
)
"""The master's counters of tasks that ended, each in one state."""


_OWNER_AND_SHAPE = attrgetter("framework_id", "shape")


@dataclass(frozen=True, slots=True)
class MasterAnswers:
    """Answers of the elected master: agents, running tasks, GET_FRAMEWORKS, metrics by name.

    `over` are the tasks that ended, `quota` is GET_QUOTA, and `elected_at` is the time of the
    election (epoch s), 0 if it is unknown. `unreadable_tasks` cannot be assigned to an agent.
    """

    agents: Agents
    tasks: Sequence[Seen]
    frameworks: Json
    metrics: Mapping[str, float]
    over: Sequence[Seen] = ()
    quota: Json | None = None
    elected_at: float = 0.0
    unreadable_tasks: int = 0


def cluster_view(
    answers: MasterAnswers,
    own: Iterable[str] = (),
    *,
    detailed: bool = False,
    faults: list[Fault] | None = None,
    agent_tasks: AgentTasks | None = None,
) -> ClusterView:
    """Combine the master's answers into a view.

    `own` are ids of frameworks whose demand comes from another source (the services framework).
    They are left out, and so is the autoscaler's own framework. A `detailed` view lists every
    agent's work by task, and the tasks that ended. `agent_tasks` remembers agents between passes.
    """
    agents, metrics = answers.agents, answers.metrics
    faults = [] if faults is None else faults
    names = _framework_names(answers.frameworks) if detailed else None
    with_tasks = (agent_tasks or AgentTasks()).assign(
        agents.agents, answers.tasks, answers.over, names
    )
    return ClusterView(
        agents=with_tasks,
        frameworks=_frameworks(
            _others(answers.frameworks, set(own)), answers.tasks, metrics, faults
        ),
        recovered=agents.recovered,
        quotas=_quotas(answers, faults),
        ended=() if names is None else _all_ended(answers.over, names),
        elected_at=answers.elected_at,
        allocator_lag_s=_lag_s(metrics),
        unreadable=agents.unreadable + answers.unreadable_tasks,
        tasks_ended=_tasks_ended(metrics),
    )


def _framework_names(frameworks: Json) -> dict[str, str]:
    """Return the name of each framework by id."""
    infos = [as_object(item.get("framework_info")) for item in _objects(frameworks, "frameworks")]
    return {_id(info): str(info.get("name", "")) for info in infos}


def _objects(answer: Json, name: str) -> list[Json]:
    """The objects of a list of an answer; none if it is something else."""
    return [as_object(item) for item in as_list(answer.get(name))]


def _quotas(answers: MasterAnswers, faults: list[Fault]) -> tuple[Quota, ...]:
    with contained("quota", "GET_QUOTA", faults):
        return quotas(answers.quota or {}, answers.agents.resources())
    return ()


def _lag_s(metrics: Mapping[str, float]) -> float:
    lag_ms = metrics.get("allocator/mesos/allocation_run_latency_ms", 0.0)
    return lag_ms / 1000 if isinstance(lag_ms, int | float) else 0.0


def _tasks_ended(metrics: Mapping[str, float]) -> int:
    """The tasks that ended under the leading master."""
    return int(sum(metrics.get(f"master/{name}", 0.0) for name in _ENDED_COUNTERS))


def _frameworks(
    items: Iterable[tuple[str, Json]],
    tasks: Sequence[Seen],
    metrics: Mapping[str, float],
    faults: list[Fault],
) -> tuple[Framework, ...]:
    shapes: dict[str, set[Shape]] = {}
    running: Counter[str] = Counter()
    for (owner, shape), count in Counter(map(_OWNER_AND_SHAPE, tasks)).items():
        shapes.setdefault(owner, set()).add(shape)
        running[owner] += count
    counters, refusals = counters_of(metrics), refusals_of(metrics)
    readable = []
    for framework_id, item in items:
        with contained("framework", framework_id, faults):
            own = counters.get(framework_id, {})
            parsed = framework(item, shapes.get(framework_id, ()), own, refusals)
            readable.append(replace(parsed, tasks=running[framework_id]))
    return tuple(readable)


def _all_ended(over: Iterable[Seen], names: Mapping[str, str]) -> tuple[Ended, ...]:
    """Convert the tasks that ended, without those whose times are unknown or contradictory."""
    return tuple(_ended(task, names) for task in over if 0 < task.since <= task.ended)


def _others(frameworks: Json, skipped: Collection[str]) -> Iterator[tuple[str, Json]]:
    """Yield each framework that is not skipped, with its id."""
    for item in _objects(frameworks, "frameworks"):
        info = as_object(item.get("framework_info"))
        if _id(info) not in skipped and info.get("name") != PROBE:
            yield _id(info), item


def queue_entries(answer: Json, faults: list[Fault] | None = None) -> tuple[QueueEntry, ...]:
    """`GET /v2/queue`."""
    entries = []
    for item in _objects(answer, "queue"):
        app = as_object(item.get("app") or item.get("pod"))
        with contained("app", str(app.get("id", ""))[:200], [] if faults is None else faults):
            if app:
                entries.append(_entry(item))
    return tuple(entries)


def both_times(before: Iterable[QueueEntry], after: Iterable[QueueEntry]) -> tuple[QueueEntry, ...]:
    """Return the entries that wait both before and after the agents are read.

    A task that starts between the two reads is then not counted as waiting and as running.
    """
    later = {entry.app: entry for entry in after}
    return tuple(_least(entry, later[entry.app]) for entry in before if entry.app in later)


def _least(before: QueueEntry, after: QueueEntry) -> QueueEntry:
    if after.count <= before.count and after.overdue == before.overdue:
        return after
    return replace(
        after, count=min(before.count, after.count), overdue=before.overdue and after.overdue
    )


@dataclass(frozen=True, slots=True)
class AppPlacements:
    """What decides where apps may run: their constraints, and the versions of their configurations.

    Both by app id. The constraints are None when they were not read.
    """

    constraints: dict[str, tuple[Constraint, ...]] | None = None
    configs: dict[str, str] = field(default_factory=dict)


def app_placements(answer: Json) -> AppPlacements:
    """`GET /v2/apps`: the constraints and the configuration of every app.

    Raises:
        ClusterUnreachable: those of an app cannot be read, so that no task may be moved.

    """
    faults: list[Fault] = []
    constraints, configs = {}, {}
    for app in _objects(answer, "apps"):
        with contained("app", str(app.get("id", ""))[:200], faults):
            constraints[str(app["id"])] = _constraints(app)
            configs[str(app["id"])] = config_of(app)
    if faults:
        raise ClusterUnreachable(
            f"the constraints of {faults[0].subject} cannot be read: {faults[0].text}",
            where="/v2/apps",
        )
    return AppPlacements(constraints, configs)


def _constraints(app: Json) -> tuple[Constraint, ...]:
    """The app's constraints, with those of its labels and of its host ports."""
    stated = app.get("constraints") or []
    own = [Constraint.of([str(part) for part in parts[:3]]) for parts in stated]
    own += _labels(app).constraints
    own += map(host_port, _fixed_ports(app))
    return tuple(own)


def _labels(app: Json) -> TaskLabels:
    stated = as_object(app.get("labels"))
    return read_labels({name: str(value) for name, value in stated.items()})


def _fixed_ports(app: Json) -> tuple[int, ...]:
    definitions = _objects(app, "portDefinitions")
    defined = [int(item.get("port") or 0) for item in definitions]
    return fixed_ports(defined, is_required=app.get("requirePorts") is True)


def _ended(task: Seen, frameworks: Mapping[str, str]) -> Ended:
    return Ended(
        task.app or frameworks.get(task.framework_id, ""),
        task.ended - task.since,
        task.ended,
        task.agent_id,
    )


def _entry(item: Json) -> QueueEntry:
    app = item.get("app") or item["pod"]
    return QueueEntry(
        app=app["id"],
        shape=_app_shape(app),
        count=int(item.get("count", 0)),
        overdue=bool(item.get("delay", {}).get("overdue", False)),
        constraints=_constraints(app),
        role=item.get("role") or app.get("role") or "*",
        since=_time(item.get("since")),
        rejections=_rejections(item.get("processedOffersSummary", {})),
        accepts_unreserved=_accepts_unreserved(app),
        config=config_of(app),
        labels=_labels(app),
    )


def _accepts_unreserved(app: Json) -> bool:
    """Whether the app takes resources that are reserved for no role; Marathon's default is yes."""
    roles = app.get("acceptedResourceRoles")
    return not roles or "*" in roles


def config_of(app: Json) -> str:
    """The version of the app's last change of configuration; empty if it is not stated."""
    return str(as_object(app.get("versionInfo")).get("lastConfigChangeAt") or "")


def _app_shape(app: Json) -> Shape:
    ports = app.get("portDefinitions") or app.get("ports") or []
    return make(
        app.get("cpus", 0), app.get("mem", 0), app.get("disk", 0), app.get("gpus", 0), len(ports)
    )


def _rejections(summary: Json) -> dict[str, int]:
    """Return the number of offers declined by reason, without zeros."""
    rows = summary.get("rejectSummaryLastOffers") or summary.get("rejectSummaryLaunchAttempt") or []
    return {row["reason"]: int(row["declined"]) for row in rows if row.get("declined")}


def _time(text: Any) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else 0.0
    except ValueError:
        return 0.0


def _id(info: Json) -> str:
    return str(as_object(info.get("id")).get("value", ""))
