"""Marathon's JSON for what the core knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from mesaform.services.core import Core
from mesaform.services.definitions import READ_ONLY
from mesaform.services.model import ROLE, App, Deployment, Instance, timestamp

Json = dict[str, Any]
HIDDEN = frozenset({"configVersion"}) | READ_ONLY


def app_json(core: Core, app: App, *, tasks: bool = False, failure: bool = False) -> Json:
    """An app with its counts, deployments and versions; with its tasks, and its last failure, on request."""
    instances = core.state.instances_of(app.id)
    running = sum(instance.state == "TASK_RUNNING" for instance in instances)
    body = {name: value for name, value in msgspec.to_builtins(app).items() if name not in HIDDEN}
    body.update(
        ports=[definition.port for definition in app.port_definitions],
        version=app.version,
        versionInfo={"lastScalingAt": app.version, "lastConfigChangeAt": app.config_version},
        tasksStaged=sum(
            instance.state in ("TASK_STAGING", "TASK_STARTING") for instance in instances
        ),
        tasksRunning=running,
        tasksHealthy=sum(instance.running and instance.healthy is True for instance in instances),
        tasksUnhealthy=sum(
            instance.running and instance.healthy is False for instance in instances
        ),
        deployments=[{"id": deployment.id} for deployment in core.state.deployments_of(app.id)],
        uris=[item.uri for item in app.fetch],
        networks=[{"mode": "host"}],
    )
    if tasks:
        body["tasks"] = [task_json(instance, app) for instance in instances]
    if (failure or tasks) and app.id in core.state.failures:
        body["lastTaskFailure"] = msgspec.to_builtins(core.state.failures[app.id])
    return body


def task_json(instance: Instance, app: App | None) -> Json:
    """An instance as Marathon's task."""
    body: Json = {
        "id": instance.task_id,
        "appId": instance.app_id,
        "host": instance.host,
        "slaveId": instance.agent_id,
        "ports": instance.ports,
        "servicePorts": [definition.port for definition in app.port_definitions] if app else [],
        "state": instance.state if instance.killing_since is None else "TASK_KILLING",
        "stagedAt": timestamp(instance.staged_at),
        "version": instance.version,
        "ipAddresses": [],
        "localVolumes": [],
        "role": ROLE,
    }
    if instance.healthy is not None:
        body["healthCheckResults"] = [
            {"instanceId": instance.task_id, "taskId": instance.task_id, "alive": instance.healthy}
        ]
    if instance.started_at is not None:
        body["startedAt"] = timestamp(instance.started_at)
    for place in ("region", "zone"):
        if f"@{place}" in instance.places:
            body[place] = instance.places[f"@{place}"]
    return body


def queue_json(core: Core, now: float) -> Json:
    """What waits for offers, why, and for how long it is held back."""
    return {"queue": [_queue_entry(core, app_id, now) for app_id in sorted(core.state.waiting)]}


def _queue_entry(core: Core, app_id: str, now: float) -> Json:
    waiting, app = core.state.waiting[app_id], core.state.apps[app_id]
    left_s = core.state.backoff(app_id).left_s(now)
    summary: Json = {
        "processedOffersCount": waiting.processed,
        "unusedOffersCount": waiting.unused,
        "rejectSummaryLastOffers": waiting.reject_summary_last_offers(),
        "rejectSummaryLaunchAttempt": waiting.reject_summary_launch_attempt(),
    }
    for name, at in (
        ("lastUnusedOfferAt", waiting.last_unused_at),
        ("lastUsedOfferAt", waiting.last_used_at),
    ):
        if at is not None:
            summary[name] = timestamp(at)
    return {
        "count": core.missing(app_id),
        "delay": {"timeLeftSeconds": round(left_s), "overdue": left_s == 0},
        "since": timestamp(waiting.since),
        "processedOffersSummary": summary,
        "app": app_json(core, app),
        "role": ROLE,
    }


def deployments_json(deployments: Iterable[Deployment]) -> list[Json]:
    """Deployments under way; all steps of one go on together, so the current actions are all of its actions."""
    answer: list[Json] = []
    for deployment in deployments:
        actions = [msgspec.to_builtins(action) for step in deployment.steps for action in step]
        answer.append(
            {
                "id": deployment.id,
                "version": deployment.version,
                "affectedApps": deployment.affected_apps,
                "affectedPods": [],
                "steps": [{"actions": msgspec.to_builtins(step)} for step in deployment.steps],
                "currentActions": [{**action, "readinessCheckResults": []} for action in actions],
                "currentStep": max(1, len(deployment.steps)),
                "totalSteps": len(deployment.steps),
            }
        )
    return answer


def selected(app: App, query: dict[str, str]) -> bool:
    """Whether an app passes the filters `cmd`, `id` and `label` of a list."""
    if (text := query.get("cmd")) and text not in (app.cmd or ""):
        return False
    if (text := query.get("id")) and text not in app.id:
        return False
    return all(
        _label_holds(app, part.strip())
        for part in query.get("label", "").split(",")
        if part.strip()
    )


def _label_holds(app: App, selector: str) -> bool:
    if "!=" in selector:
        key, _, value = selector.partition("!=")
        return app.labels.get(key.strip()) != value.strip()
    if "==" in selector:
        key, _, value = selector.partition("==")
        return app.labels.get(key.strip()) == value.strip()
    return selector in app.labels


def metrics_text(core: Core | None) -> str:
    """A few numbers in Prometheus' text form; a server that does not lead says only that."""
    rows: list[tuple[str, str, float]] = [
        ("leading", "1 when this server leads", float(core is not None))
    ]
    if core is not None:
        state = core.state
        rows += [
            ("apps", "apps defined", len(state.apps)),
            (
                "instances_wanted",
                "instances that apps want",
                sum(app.instances for app in state.apps.values()),
            ),
            (
                "instances_running",
                "instances that run",
                sum(instance.running for instance in state.instances.values()),
            ),
            (
                "instances_waiting",
                "instances that wait for offers",
                sum(core.missing(app_id) for app_id in state.waiting),
            ),
            ("deployments", "deployments under way", len(state.deployments)),
        ]
    lines = [
        f"# HELP mesaform_services_{name} {text}\n# TYPE mesaform_services_{name} gauge\n"
        for name, text, _ in rows
    ]
    return "".join(
        line + f"mesaform_services_{name} {value:g}\n"
        for line, (name, _, value) in zip(lines, rows, strict=True)
    )
