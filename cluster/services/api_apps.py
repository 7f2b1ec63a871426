"""/v2/apps: create, read, change, restart and delete apps and their tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from aiohttp import web
from msgspec.structs import replace

from mesaform.services.api import answer, body_of, core_of, deployed, flag, problem, scheduler_of
from mesaform.services.commands import ApiCommands, Outcome
from mesaform.services.core import Core
from mesaform.services.definitions import InvalidApp, canonical_id, parse
from mesaform.services.effects import AppMissing, Effect
from mesaform.services.model import App, Instance
from mesaform.services.render import app_json, selected, task_json


async def _change(
    request: web.Request, make: Callable[[ApiCommands, str, float], Outcome]
) -> Outcome:
    def decide(changes: ApiCommands, now: float) -> tuple[Outcome, list[Effect]]:
        outcome = make(changes, str(uuid4()), now)
        return outcome, outcome.effects

    return await scheduler_of(request).change(decide)


def _app_id(request: web.Request) -> str:
    return canonical_id(request.match_info["app_id"])


def _app_of(core: Core, app_id: str) -> App:
    app = core.state.apps.get(app_id)
    if app is None:
        raise AppMissing(app_id)
    return app


def _parsed(core: Core, body: Any, app_id: str | None = None, *, partial: bool = True) -> App:
    """The app that a body makes of what is there, with service ports that no other app has."""
    given = app_id if app_id is not None or not isinstance(body, dict) else body.get("id")
    known = canonical_id(given) if isinstance(given, str) else ""
    base = core.state.apps.get(known)
    taken = [
        part.port
        for app in core.state.apps.values()
        if app.id != known
        for part in app.port_definitions
    ]
    app = parse(body, base=base if partial else None, app_id=app_id, taken_ports=taken)
    return (
        app
        if base is None
        else replace(app, version=base.version, config_version=base.config_version)
    )


async def list_apps(request: web.Request) -> web.Response:
    core = core_of(request)
    embed = request.query.getall("embed", [])
    tasks = "apps.tasks" in embed or "app.tasks" in embed
    failure = "apps.failures" in embed or "apps.lastTaskFailure" in embed
    apps = [app for app in core.state.apps.values() if selected(app, dict(request.query))]
    return answer(
        {
            "apps": [
                app_json(core, app, tasks=tasks, failure=failure)
                for app in sorted(apps, key=lambda app: app.id)
            ]
        }
    )


async def create_app(request: web.Request) -> web.Response:
    core, body = core_of(request), await body_of(request)
    app = _parsed(core, body, partial=False)
    if app.id in core.state.apps:
        return problem(409, f"An app with id [{app.id}] already exists.")
    force = flag(request, "force")
    outcome = await _change(
        request, lambda changes, new_id, now: changes.put([app], new_id, now, force=force)
    )
    created = {
        **app_json(core, core.state.apps[app.id], tasks=True),
        "deployments": [{"id": outcome.deployment.id}],
    }
    return deployed(outcome, created, 201, {"Location": f"/v2/apps{app.id}"})


async def put_apps(request: web.Request) -> web.Response:
    core, body = core_of(request), await body_of(request)
    if not isinstance(body, list) or not body:
        raise InvalidApp({"/": ["a list of apps is expected"]})
    apps = [_parsed(core, item) for item in body]
    if len({app.id for app in apps}) < len(apps):
        raise InvalidApp({"/": ["an app is named more than once"]})
    force = flag(request, "force")
    return deployed(
        await _change(
            request, lambda changes, new_id, now: changes.put(apps, new_id, now, force=force)
        )
    )


async def get_app(request: web.Request) -> web.Response:
    core = core_of(request)
    return answer({"app": app_json(core, _app_of(core, _app_id(request)), tasks=True)})


async def put_app(request: web.Request) -> web.Response:
    """PUT and PATCH: change the fields given; PUT makes an app that is not there, or with `partialUpdate=false` replaces it whole."""
    core, app_id, body = core_of(request), _app_id(request), await body_of(request)
    exists = app_id in core.state.apps
    if not exists and request.method == "PATCH":
        raise AppMissing(app_id)
    partial = request.query.get("partialUpdate", "true").lower() != "false"
    app = _parsed(core, body, app_id, partial=partial)
    force = flag(request, "force")
    outcome = await _change(
        request, lambda changes, new_id, now: changes.put([app], new_id, now, force=force)
    )
    return deployed(outcome, status=200 if exists else 201)


async def delete_app(request: web.Request) -> web.Response:
    app_id, force = _app_id(request), flag(request, "force")
    return deployed(
        await _change(
            request, lambda changes, new_id, now: changes.delete(app_id, new_id, now, force=force)
        )
    )


async def restart_app(request: web.Request) -> web.Response:
    app_id, force = _app_id(request), flag(request, "force")
    return deployed(
        await _change(
            request, lambda changes, new_id, now: changes.restart(app_id, new_id, now, force=force)
        )
    )


async def get_tasks(request: web.Request) -> web.Response:
    core, app_id = core_of(request), _app_id(request)
    app = _app_of(core, app_id)
    return answer(
        {"tasks": [task_json(instance, app) for instance in core.state.instances_of(app_id)]}
    )


async def delete_tasks(request: web.Request) -> web.Response:
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
    """Kill instances and want as many fewer."""
    force = flag(request, "force")
    return deployed(
        await _change(
            request,
            lambda changes, new_id, now: changes.kill_and_scale(
                instances, new_id, now, force=force
            ),
        )
    )


async def kill_now(request: web.Request, instances: list[Instance]) -> None:
    """Kill instances; others take their place."""
    await scheduler_of(request).change(lambda changes, now: (None, changes.kill(instances, now)))


def routes() -> list[web.RouteDef]:
    """An app's id may have slashes, so the longer addresses come first."""
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
