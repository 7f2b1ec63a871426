"""Marathon's JSON and the Prometheus text of the core's state. No I/O.

The shapes are those of Marathon 1.11's `/v2` endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from mesaform.services.core import Core
from mesaform.services.definitions import READ_ONLY
from mesaform.services.model import ROLE, App, Deployment, Instance, timestamp

JsonAnswer = dict[str, object]
"""A JSON object of an answer; msgspec encodes its values."""

HIDDEN_FIELDS = frozenset({"configVersion"}) | READ_ONLY
STAGING_STATES = ("TASK_STAGING", "TASK_STARTING")


def app_json(
    core: Core, app: App, *, with_tasks: bool = False, with_failure: bool = False
) -> JsonAnswer:
    """An app with its counts, deployments and versions.

    `with_tasks` adds its tasks and its last failure, `with_failure` the failure only.
    """
    instances = core.state.instances_of(app.id)
    body = _definition_json(app) | _counts(instances)
    deployments = core.state.deployments_of(app.id)
    body |= {
        "ports": _service_ports(app),
        "version": app.version,
        "versionInfo": {
            "lastScalingAt": app.version,
            "lastConfigChangeAt": app.config_version,
        },
        "deployments": [{"id": deployment.id} for deployment in deployments],
        "uris": [item.uri for item in app.fetch],
        "networks": [{"mode": "host"}],
    }
    if with_tasks:
        body["tasks"] = [task_json(instance, app) for instance in instances]
    failure = core.state.failures.get(app.id) if with_tasks or with_failure else None
    if failure is not None:
        body["lastTaskFailure"] = msgspec.to_builtins(failure)
    return body


def _service_ports(app: App) -> list[int]:
    return [definition.port for definition in app.port_definitions]


def _definition_json(app: App) -> JsonAnswer:
    """The fields of the definition that Marathon shows as they are."""
    fields: JsonAnswer = msgspec.to_builtins(app)
    return {name: value for name, value in fields.items() if name not in HIDDEN_FIELDS}


def _counts(instances: Iterable[Instance]) -> JsonAnswer:
    """Marathon's numbers of tasks by state and health."""
    counts = {"tasksStaged": 0, "tasksRunning": 0, "tasksHealthy": 0, "tasksUnhealthy": 0}
    for instance in instances:
        counts["tasksStaged"] += instance.state in STAGING_STATES
        counts["tasksRunning"] += instance.state == "TASK_RUNNING"
        counts["tasksHealthy"] += instance.is_running and instance.is_healthy is True
        counts["tasksUnhealthy"] += instance.is_running and instance.is_healthy is False
    return dict(counts)


def task_json(instance: Instance, app: App | None) -> JsonAnswer:
    """An instance as a task. `app` is None for an instance of a deleted app."""
    body: JsonAnswer = {
        "id": instance.task_id,
        "appId": instance.app_id,
        "host": instance.host,
        "slaveId": instance.agent_id,
        "ports": instance.ports,
        "servicePorts": _service_ports(app) if app else [],
        "state": instance.state if instance.killing_since is None else "TASK_KILLING",
        "stagedAt": timestamp(instance.staged_at),
        "version": instance.version,
        "ipAddresses": [],
        "localVolumes": [],
        "role": ROLE,
    }
    if instance.is_healthy is not None:
        task_id = instance.task_id
        body["healthCheckResults"] = [
            {"instanceId": task_id, "taskId": task_id, "alive": instance.is_healthy}
        ]
    if instance.started_at is not None:
        body["startedAt"] = timestamp(instance.started_at)
    for field in ("region", "zone"):
        if f"@{field}" in instance.agent_fields:
            body[field] = instance.agent_fields[f"@{field}"]
    return body


def queue_json(core: Core, now: float) -> JsonAnswer:
    """The apps that wait for offers, with reject reasons and the delay before the next launch."""
    return {"queue": [_queue_entry(core, app_id, now) for app_id in sorted(core.state.queue)]}


def _queue_entry(core: Core, app_id: str, now: float) -> JsonAnswer:
    entry, app = core.state.queue[app_id], core.state.apps[app_id]
    delay_s = core.state.launch_delay(app_id).remaining_s(now)
    summary: JsonAnswer = {
        "processedOffersCount": entry.processed,
        "unusedOffersCount": entry.unused,
        "rejectSummaryLastOffers": entry.reject_summary_last_offers(),
        "rejectSummaryLaunchAttempt": entry.reject_summary_launch_attempt(),
    }
    if entry.last_unused_at is not None:
        summary["lastUnusedOfferAt"] = timestamp(entry.last_unused_at)
    if entry.last_used_at is not None:
        summary["lastUsedOfferAt"] = timestamp(entry.last_used_at)
    return {
        "count": core.missing(app_id),
        "delay": {"timeLeftSeconds": round(delay_s), "overdue": delay_s == 0},
        "since": timestamp(entry.since),
        "processedOffersSummary": summary,
        "app": app_json(core, app),
        "role": ROLE,
    }


def deployments_json(deployments: Iterable[Deployment]) -> list[JsonAnswer]:
    """The deployments in progress."""
    return [_deployment_json(deployment) for deployment in deployments]


def _deployment_json(deployment: Deployment) -> JsonAnswer:
    """All steps run at the same time, so every action is a current one."""
    actions = [msgspec.to_builtins(action) for step in deployment.steps for action in step]
    return {
        "id": deployment.id,
        "version": deployment.version,
        "affectedApps": deployment.affected_apps,
        "affectedPods": [],
        "steps": [{"actions": msgspec.to_builtins(step)} for step in deployment.steps],
        "currentActions": [{**action, "readinessCheckResults": []} for action in actions],
        "currentStep": max(1, len(deployment.steps)),
        "totalSteps": len(deployment.steps),
    }


def matches(app: App, query: Mapping[str, str]) -> bool:
    """Whether an app passes the filters `cmd`, `id` and `label` of `GET /v2/apps`."""
    selectors = [part.strip() for part in query.get("label", "").split(",")]
    return (
        query.get("cmd", "") in (app.cmd or "")
        and query.get("id", "") in app.id
        and all(_matches_label(app, selector) for selector in selectors if selector)
    )


def _matches_label(app: App, selector: str) -> bool:
    """Apply one selector: `key`, `key==value` or `key!=value`."""
    if "!=" in selector:
        key, _, value = selector.partition("!=")
        return app.labels.get(key.strip()) != value.strip()
    if "==" in selector:
        key, _, value = selector.partition("==")
        return app.labels.get(key.strip()) == value.strip()
    return selector in app.labels


def metrics_text(core: Core | None) -> str:
    """Gauges in Prometheus' text format; without a core (not leading) only `leading`."""
    rows = [("leading", "1 when this server leads", float(core is not None))]
    if core is not None:
        rows += _gauges(core)
    return "".join(_gauge_text(*row) for row in rows)


def _gauges(core: Core) -> list[tuple[str, str, float]]:
    state = core.state
    wanted = sum(app.instances for app in state.apps.values())
    running = sum(instance.is_running for instance in state.instances.values())
    waiting = sum(core.missing(app_id) for app_id in state.queue)
    return [
        ("apps", "apps defined", len(state.apps)),
        ("instances_wanted", "instances that apps want", wanted),
        ("instances_running", "instances that run", running),
        ("instances_waiting", "instances that wait for offers", waiting),
        ("deployments", "deployments in progress", len(state.deployments)),
    ]


def _gauge_text(name: str, description: str, value: float) -> str:
    metric = f"mesaform_services_{name}"
    return f"# HELP {metric} {description}\n# TYPE {metric} gauge\n{metric} {value:g}\n"
