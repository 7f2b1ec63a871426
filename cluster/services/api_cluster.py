"""The other /v2 endpoints: the queue, deployments, all tasks, and what this server says of itself."""

from __future__ import annotations

from uuid import uuid4

from aiohttp import web

from mesaform.services.api import (
    STANDING,
    answer,
    body_of,
    core_of,
    deployed,
    flag,
    problem,
    scheduler_of,
)
from mesaform.services.api_apps import kill_and_scale, kill_now
from mesaform.services.commands import ApiCommands, Outcome
from mesaform.services.definitions import InvalidApp, canonical_id
from mesaform.services.effects import Effect
from mesaform.services.render import deployments_json, metrics_text, queue_json, task_json
from mesaform.services.scheduler import FAILOVER_TIMEOUT_S, NotLeading
from mesaform.services.settings import Settings

MARATHON_VERSION = "1.11.0"
"""The version of Marathon's API that is spoken; clients choose their behaviour by it."""
SETTINGS = web.AppKey("settings", Settings)
STATES = {"running": ("TASK_RUNNING",), "staging": ("TASK_STAGING", "TASK_STARTING")}


async def queue(request: web.Request) -> web.Response:
    return answer(queue_json(core_of(request), scheduler_of(request).clock()))


async def reset_delay(request: web.Request) -> web.Response:
    app_id = canonical_id(request.match_info["app_id"])
    if app_id not in core_of(request).state.waiting:
        return problem(404, f"Application {app_id} not found in the launch queue")
    await scheduler_of(request).change(
        lambda changes, now: (None, changes.reset_delay(app_id, now))
    )
    return web.Response(status=204)


async def deployments(request: web.Request) -> web.Response:
    return answer(deployments_json(core_of(request).state.deployments.values()))


async def delete_deployment(request: web.Request) -> web.Response:
    """With `force` the deployment is only forgotten (202); otherwise what it changed is changed back (200)."""
    deployment_id = request.match_info["deployment_id"]
    if deployment_id not in core_of(request).state.deployments:
        return problem(404, f"Deployment {deployment_id} does not exist")
    if flag(request, "force"):
        await scheduler_of(request).change(
            lambda changes, now: (None, changes.cancel(deployment_id, now))
        )
        return web.Response(status=202)

    def roll_back(changes: ApiCommands, now: float) -> tuple[Outcome, list[Effect]]:
        outcome = changes.roll_back(deployment_id, str(uuid4()), now)
        return outcome, outcome.effects

    return deployed(await scheduler_of(request).change(roll_back))


async def tasks(request: web.Request) -> web.Response:
    state = core_of(request).state
    wanted = [
        part for name in request.query.getall("status", []) for part in STATES.get(name, (name,))
    ]
    found = [
        instance for instance in state.instances.values() if not wanted or instance.state in wanted
    ]
    return answer(
        {"tasks": [task_json(instance, state.apps.get(instance.app_id)) for instance in found]}
    )


async def kill_tasks(request: web.Request) -> web.Response:
    state, body = core_of(request).state, await body_of(request)
    ids = body.get("ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise InvalidApp({"/ids": ["a list of task ids is expected"]})
    instances = [state.instances[item] for item in ids if item in state.instances]
    if flag(request, "scale"):
        return await kill_and_scale(request, instances)
    await kill_now(request, instances)
    return answer(
        {"tasks": [task_json(instance, state.apps.get(instance.app_id)) for instance in instances]}
    )


async def info(request: web.Request) -> web.Response:
    scheduler, settings = scheduler_of(request), request.app[SETTINGS]
    return answer(
        {
            "name": "marathon",
            "version": MARATHON_VERSION,
            "buildref": "mesaform",
            "elected": True,
            "leader": settings.url.removeprefix("http://"),
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
            "http_config": {"http_port": settings.http_port, "https_port": None},
        }
    )


async def leader(request: web.Request) -> web.Response:
    url = request.app[STANDING].leader_url
    if url is None:
        return problem(404, "There is no leader")
    return answer({"leader": url.removeprefix("http://")})


async def metrics(request: web.Request) -> web.Response:
    try:
        text = metrics_text(core_of(request))
    except NotLeading:
        text = metrics_text(None)
    return web.Response(text=text)


def routes() -> list[web.RouteDef]:
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
    ]
