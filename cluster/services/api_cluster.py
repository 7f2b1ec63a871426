"""Endpoints for the launch queue, deployments, all tasks, server information and metrics.

Parameters and answers are those of Marathon 1.11; `/metrics` has Prometheus' text format.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from mesaform.http import UNHANDLED
from mesaform.services.api import (
    LEADERSHIP,
    answer,
    body_of,
    core_of,
    deployed,
    flag,
    problem,
    scheduler_of,
)
from mesaform.services.api_apps import deploy, kill_and_scale, kill_now
from mesaform.services.definitions import InvalidApp, canonical_id
from mesaform.services.model import Instance
from mesaform.services.render import deployments_json, metrics_text, queue_json, task_json
from mesaform.services.scheduler import FAILOVER_TIMEOUT_S, NotLeading
from mesaform.services.settings import Settings
from mesaform.services.state import State
from mesaform.zookeeper.four_letter import read_mode

MARATHON_VERSION = "1.11.0"
"""The version of Marathon's API; clients adapt to it."""

SETTINGS = web.AppKey("settings", Settings)
STATES = {"running": ("TASK_RUNNING",), "staging": ("TASK_STAGING", "TASK_STARTING")}
"""Task states by the value of `?status=`."""


async def queue(request: web.Request) -> web.Response:
    """GET /v2/queue."""
    return answer(queue_json(core_of(request), scheduler_of(request).clock()))


async def reset_delay(request: web.Request) -> web.Response:
    """DELETE /v2/queue/{id}/delay."""
    app_id = canonical_id(request.match_info["app_id"])
    if app_id not in core_of(request).state.queue:
        return problem(404, f"Application {app_id} not found in the launch queue")
    await scheduler_of(request).change(
        lambda commands, now: (None, commands.reset_delay(app_id, now))
    )
    return web.Response(status=204)


async def deployments(request: web.Request) -> web.Response:
    """GET /v2/deployments."""
    return answer(deployments_json(core_of(request).state.deployments.values()))


async def delete_deployment(request: web.Request) -> web.Response:
    """DELETE /v2/deployments/{id}: roll back (200); with `force` only cancel (202)."""
    deployment_id = request.match_info["deployment_id"]
    if deployment_id not in core_of(request).state.deployments:
        return problem(404, f"Deployment {deployment_id} does not exist")
    if flag(request, "force"):
        await scheduler_of(request).change(
            lambda commands, now: (None, commands.cancel(deployment_id, now))
        )
        return web.Response(status=202)
    return deployed(
        await deploy(
            request, lambda commands, new_id, now: commands.roll_back(deployment_id, new_id, now)
        )
    )


async def tasks(request: web.Request) -> web.Response:
    """GET /v2/tasks, optionally by `status`."""
    state = core_of(request).state
    wanted = [
        task_state
        for name in request.query.getall("status", [])
        for task_state in STATES.get(name, (name,))
    ]
    return _tasks_answer(
        state, (item for item in state.instances.values() if not wanted or item.state in wanted)
    )


def _tasks_answer(state: State, instances: Iterable[Instance]) -> web.Response:
    return answer(
        {"tasks": [task_json(instance, state.apps.get(instance.app_id)) for instance in instances]}
    )


async def kill_tasks(request: web.Request) -> web.Response:
    """POST /v2/tasks/delete; with `scale` the apps shrink."""
    state, body = core_of(request).state, await body_of(request)
    ids = body.get("ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise InvalidApp({"/ids": ["a list of task ids is expected"]})
    instances = [state.instances[task_id] for task_id in ids if task_id in state.instances]
    if flag(request, "scale"):
        return await kill_and_scale(request, instances)
    await kill_now(request, instances)
    return _tasks_answer(state, instances)


async def info(request: web.Request) -> web.Response:
    """GET /v2/info."""
    scheduler, settings = scheduler_of(request), request.app[SETTINGS]
    return answer(
        {
            "name": "marathon",
            "version": MARATHON_VERSION,
            "buildref": "mesaform",
            "elected": True,
            "leader": settings.url.partition("://")[2],
            "frameworkId": scheduler.framework_id,
            "marathon_config": {
                "master": settings.master,
                "hostname": settings.hostname,
                "framework_name": "marathon",
                "failover_timeout": FAILOVER_TIMEOUT_S,
                "checkpoint": True,
                "mesos_role": "*",
            },
            "zookeeper_config": {"zk": settings.zk},
            "http_config": _http_config(settings),
        }
    )


def _http_config(settings: Settings) -> dict[str, int | None]:
    has_tls = settings.http.tls is not None
    port = settings.http_port
    return {"http_port": None if has_tls else port, "https_port": port if has_tls else None}


async def leader(request: web.Request) -> web.Response:
    """GET /v2/leader."""
    url = request.app[LEADERSHIP].leader_url
    if url is None:
        return problem(404, "There is no leader")
    return answer({"leader": url.partition("://")[2]})


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics."""
    try:
        text = metrics_text(core_of(request))
    except NotLeading:
        text = metrics_text(None)
    return web.Response(
        text=text + UNHANDLED.prometheus() + scheduler_of(request).outputs.metrics()
    )


async def health(request: web.Request) -> web.Response:
    """GET /health: 200 while this server can do its work, 503 with the reasons otherwise."""
    scheduler = scheduler_of(request)
    body = scheduler.outputs.view(is_leading=scheduler.is_leading)
    return answer(body, 200 if body["able"] else 503)


async def zookeeper(request: web.Request) -> web.Response:
    """GET /zookeeper: the mode of this machine's ZooKeeper; 503 while it serves no requests."""
    server = request.app[SETTINGS].own_zookeeper
    mode = await read_mode(*server) if server else None
    if mode is None:
        return problem(503, "The ZooKeeper of this machine serves no requests")
    return answer({"mode": mode})


def routes() -> list[web.RouteDef]:
    """The endpoints."""
    return [
        web.get("/v2/queue", queue),
        web.delete("/v2/queue/{app_id:.+}/delay", reset_delay),
        web.get("/v2/deployments", deployments),
        web.delete("/v2/deployments/{deployment_id}", delete_deployment),
        web.get("/v2/tasks", tasks),
        web.post("/v2/tasks/delete", kill_tasks),
        web.get("/v2/info", info),
        web.get("/v2/leader", leader),
        web.get("/metrics", metrics),
        web.get("/health", health),
        web.get("/zookeeper", zookeeper),
    ]
