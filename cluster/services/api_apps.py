"""Endpoints below `/v2/apps`: create, read, change, restart and delete apps and their tasks.

Parameters and answers are those of Marathon 1.11.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from aiohttp import web
from msgspec.structs import replace

from mesaform.services.api import answer, body_of, core_of, deployed, flag, problem, scheduler_of
from mesaform.services.commands import ApiCommands, Outcome
from mesaform.services.core import Core
from mesaform.services.definitions import InvalidApp, canonical_id, parse
from mesaform.services.effects import AppMissing, Effect
from mesaform.services.model import App, Instance
from mesaform.services.render import app_json, matches, task_json


async def deploy(
    request: web.Request, command: Callable[[ApiCommands, str, float], Outcome]
) -> Outcome:
    """Run a command with a new deployment id and the present time; return once it is stored."""

    def decide(commands: ApiCommands, now: float) -> tuple[Outcome, list[Effect]]:
        outcome = command(commands, str(uuid4()), now)
        return outcome, outcome.effects

    return await scheduler_of(request).change(decide)


async def _put(request: web.Request, apps: list[App]) -> Outcome:
    force = flag(request, "force")
    return await deploy(
        request,
        lambda commands, deployment_id, now: commands.put(apps, deployment_id, now, force=force),
    )


def _app_id(request: web.Request) -> str:
    return canonical_id(request.match_info["app_id"])


def _app_of(core: Core, app_id: str) -> App:
    app = core.state.apps.get(app_id)
    if app is None:
        raise AppMissing(app_id)
    return app


def _parse(core: Core, body: object, app_id: str | None = None, *, is_partial: bool = True) -> App:
    """The app that a body defines.

    If it exists, a partial body changes it and a whole one replaces it; its versions stay. Service
    ports of other apps are not assigned.
    """
    existing = core.state.apps.get(_target_id(body, app_id))
    taken_ports = [
        definition.port
        for app in core.state.apps.values()
        if existing is None or app.id != existing.id
        for definition in app.port_definitions
    ]
    base = existing if is_partial else None
    app = parse(body, base=base, app_id=app_id, taken_ports=taken_ports)
    if existing is None:
        return app
    return replace(app, version=existing.version, config_version=existing.config_version)


def _target_id(body: object, path_id: str | None) -> str:
    """The canonical id of the app that a request concerns; empty if it names none."""
    body_id = body.get("id") if isinstance(body, dict) else None
    app_id = body_id if path_id is None else path_id
    return canonical_id(app_id) if isinstance(app_id, str) else ""


async def list_apps(request: web.Request) -> web.Response:
    """GET /v2/apps, with the filters of `render.matches`."""
    core = core_of(request)
    embed = set(request.query.getall("embed", []))
    with_tasks = not embed.isdisjoint({"apps.tasks", "app.tasks"})
    with_failure = not embed.isdisjoint({"apps.failures", "apps.lastTaskFailure"})
    apps = [app for app in core.state.apps.values() if matches(app, request.query)]
    return answer(
        {
            "apps": [
                app_json(core, app, with_tasks=with_tasks, with_failure=with_failure)
                for app in sorted(apps, key=lambda app: app.id)
            ]
        }
    )


async def create_app(request: web.Request) -> web.Response:
    """POST /v2/apps."""
    core, body = core_of(request), await body_of(request)
    app = _parse(core, body, is_partial=False)
    if app.id in core.state.apps:
        return problem(409, f"An app with id [{app.id}] already exists.")
    outcome = await _put(request, [app])
    created = {
        **app_json(core, core.state.apps[app.id], with_tasks=True),
        "deployments": [{"id": outcome.deployment.id}],
    }
    return deployed(outcome, created, 201, {"Location": f"/v2/apps{app.id}"})


async def put_apps(request: web.Request) -> web.Response:
    """PUT and PATCH /v2/apps: change several apps in one deployment."""
    core, body = core_of(request), await body_of(request)
    if not isinstance(body, list) or not body:
        raise InvalidApp({"/": ["a list of apps is expected"]})
    apps = [_parse(core, item) for item in body]
    if len({app.id for app in apps}) < len(apps):
        raise InvalidApp({"/": ["an app is named more than once"]})
    return deployed(await _put(request, apps))


async def get_app(request: web.Request) -> web.Response:
    """GET /v2/apps/{id}."""
    core = core_of(request)
    return answer({"app": app_json(core, _app_of(core, _app_id(request)), with_tasks=True)})


async def put_app(request: web.Request) -> web.Response:
    """PUT and PATCH /v2/apps/{id}: change the fields of the body.

    PUT creates a missing app; with `partialUpdate=false` it replaces the whole definition.
    """
    core, app_id, body = core_of(request), _app_id(request), await body_of(request)
    exists = app_id in core.state.apps
    if not exists and request.method == "PATCH":
        raise AppMissing(app_id)
    is_partial = request.query.get("partialUpdate", "true").lower() != "false"
    app = _parse(core, body, app_id, is_partial=is_partial)
    return deployed(await _put(request, [app]), status=200 if exists else 201)


async def delete_app(request: web.Request) -> web.Response:
    """DELETE /v2/apps/{id}."""
    app_id, force = _app_id(request), flag(request, "force")
    return deployed(
        await deploy(
            request,
            lambda commands, deployment_id, now: commands.delete(
                app_id, deployment_id, now, force=force
            ),
        )
    )


async def restart_app(request: web.Request) -> web.Response:
    """POST /v2/apps/{id}/restart."""
    app_id, force = _app_id(request), flag(request, "force")
    return deployed(
        await deploy(
            request,
            lambda commands, deployment_id, now: commands.restart(
                app_id, deployment_id, now, force=force
            ),
        )
    )


async def get_tasks(request: web.Request) -> web.Response:
    """GET /v2/apps/{id}/tasks."""
    core, app_id = core_of(request), _app_id(request)
    app = _app_of(core, app_id)
    return answer(
        {"tasks": [task_json(instance, app) for instance in core.state.instances_of(app_id)]}
    )


async def delete_tasks(request: web.Request) -> web.Response:
    """DELETE /v2/apps/{id}/tasks, optionally of one `host`; with `scale` the app shrinks."""
    core, app_id = core_of(request), _app_id(request)
    app = _app_of(core, app_id)
    host = request.query.get("host", "*")
    instances = [
        instance for instance in core.state.instances_of(app_id) if host in ("*", instance.host)
    ]
    if flag(request, "scale"):
        return await kill_and_scale(request, instances)
    await kill_now(request, instances)
    return answer({"tasks": [task_json(instance, app) for instance in instances]})


async def delete_task(request: web.Request) -> web.Response:
    """DELETE /v2/apps/{id}/tasks/{task}; with `scale` the app shrinks."""
    core, app_id, task_id = core_of(request), _app_id(request), request.match_info["task_id"]
    app = _app_of(core, app_id)
    instance = core.state.instances.get(task_id)
    if instance is None or instance.app_id != app_id:
        return problem(404, f"Task '{task_id}' does not exist")
    if flag(request, "scale"):
        return await kill_and_scale(request, [instance])
    await kill_now(request, [instance])
    return answer({"task": task_json(instance, app)})


async def kill_and_scale(request: web.Request, instances: list[Instance]) -> web.Response:
    """Kill instances and reduce the number that their apps want."""
    force = flag(request, "force")
    return deployed(
        await deploy(
            request,
            lambda commands, deployment_id, now: commands.kill_and_scale(
                instances, deployment_id, now, force=force
            ),
        )
    )


async def kill_now(request: web.Request, instances: list[Instance]) -> None:
    """Kill instances; their apps start others."""
    await scheduler_of(request).change(lambda commands, now: (None, commands.kill(instances, now)))


def routes() -> list[web.RouteDef]:
    """The endpoints. An app's id may contain slashes, so longer paths come first."""
    app = "/v2/apps/{app_id:.+?}"
    return [
        web.get("/v2/apps", list_apps),
        web.post("/v2/apps", create_app),
        web.put("/v2/apps", put_apps),
        web.patch("/v2/apps", put_apps),
        web.get(f"{app}/tasks", get_tasks),
        web.delete(f"{app}/tasks/{{task_id}}", delete_task),
        web.delete(f"{app}/tasks", delete_tasks),
        web.post(f"{app}/restart", restart_app),
        web.get(app, get_app),
        web.put(app, put_app),
        web.patch(app, put_app),
        web.delete(app, delete_app),
    ]
