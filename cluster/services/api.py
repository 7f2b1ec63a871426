"""The REST server: who answers (the leader; others redirect), and how errors look. The endpoints are in `api_apps` and its neighbours."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from mesaform.services.commands import Outcome
from mesaform.services.core import Core
from mesaform.services.definitions import InvalidApp
from mesaform.services.effects import AppLocked, AppMissing
from mesaform.services.scheduler import NotLeading, Scheduler, StateNotStored
from mesaform.webui import assets


@dataclass(slots=True)
class Standing:
    """Who this server is and who leads, as base URLs; the latter is kept up to date by whoever watches the election."""

    own_url: str
    leader_url: str | None = None


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SCHEDULER = web.AppKey("scheduler", Scheduler)
STANDING = web.AppKey("standing", Standing)
LOCAL_PATHS = ("/ping", "/metrics", "/v2/leader", "/agents/", "/static/")
MAX_BODY_BYTES = 4 * 1024 * 1024
log = logging.getLogger("services.api")


def dumps(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.json_response(value, status=status, headers=headers, dumps=dumps)


def problem(status: int, message: str, **more: Any) -> web.Response:
    """An error in Marathon's shape."""
    return answer({"message": message, **more}, status)


def deployed(
    outcome: Outcome, body: Any = None, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """The answer to a change: the deployment's id and version, or `body`, and the id as a header."""
    what = (
        {"version": outcome.deployment.version, "deploymentId": outcome.deployment.id}
        if body is None
        else body
    )
    return answer(
        what, status, {"Marathon-Deployment-Id": outcome.deployment.id, **(headers or {})}
    )


def flag(request: web.Request, name: str) -> bool:
    """A query parameter such as `?force=true`."""
    return request.query.get(name, "").lower() in ("true", "1", "yes")


def scheduler_of(request: web.Request) -> Scheduler:
    return request.app[SCHEDULER]


def core_of(request: web.Request) -> Core:
    """The leading state; in an endpoint that only the leader serves."""
    return request.app[SCHEDULER].core


async def body_of(request: web.Request) -> Any:
    """The request's JSON.

    Raises:
        web.HTTPBadRequest: it is none; in Marathon's shape.

    """
    try:
        return msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        text = json.dumps(
            {"message": "Invalid JSON", "details": [{"path": "/", "errors": [str(error)]}]}
        )
        raise web.HTTPBadRequest(text=text, content_type="application/json") from None


@web.middleware
async def leader_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Everything but a few paths is the leader's to answer; the others say where it is."""
    path = request.path
    if path.startswith(LOCAL_PATHS):
        return await handler(request)
    try:
        core_of(request)
        return await handler(request)
    except NotLeading:
        standing = request.app[STANDING]
        leader = standing.leader_url
        if leader is None or leader == standing.own_url:
            if path == "/":  # the page itself waits, and says so
                page = await handler(request)
                page.set_status(503)
                return page
            return web.json_response(
                {"message": "No server leads yet; try again shortly"},
                status=503,
                headers={"Retry-After": "1"},
            )
        return web.Response(status=307, headers={"Location": leader + request.path_qs})


@web.middleware
async def own_pages_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Changes from a browser come from this server's own page: elsewhere a page could make its reader's browser run commands here.

    Programs send no Origin.
    """
    origin = request.headers.get("Origin")
    if (
        request.method not in ("GET", "HEAD")
        and origin is not None
        and origin.partition("://")[2] != request.host
    ):
        return problem(403, f"A page of {origin} may not change anything here")
    return await handler(request)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as Marathon's JSON; an unexpected one is logged and says only that it happened."""
    try:
        return await handler(request)
    except InvalidApp as error:
        details = [{"path": path, "errors": texts} for path, texts in error.problems.items()]
        return problem(422, "Object is not valid", details=details)
    except AppMissing as error:
        return problem(404, f"App '{error.app_id}' does not exist")
    except AppLocked as error:
        text = "Another deployment of this app is under way; wait for it, or override it with ?force=true"
        return problem(
            409, text, deployments=[{"id": deployment_id} for deployment_id in error.deployment_ids]
        )
    except StateNotStored as error:
        return problem(503, f"The change could not be stored: {error}")
    except web.HTTPException as error:
        if error.content_type == "application/json" or error.status < 400:
            raise
        return problem(error.status, error.text or error.reason)
    except NotLeading:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return problem(500, "Internal error; see this server's log")


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="pong")


class _Pages:
    """The page and its files. `peers` are the origins it may look for when this server is gone."""

    def __init__(self, peers: list[str]) -> None:
        self._assets = assets.load("services")
        self._headers = assets.headers(peers)

    async def answer(self, request: web.Request) -> web.Response:
        asset = self._assets.get(request.path[1:])
        if asset is None:
            raise web.HTTPNotFound(text=f"There is no {request.path}")
        return web.Response(
            body=asset.body, content_type=asset.content_type, charset="utf-8", headers=self._headers
        )


def build(
    scheduler: Scheduler, standing: Standing, endpoints: list[web.RouteDef], peers: list[str]
) -> web.Application:
    """The web application with these endpoints beside the page and /ping."""
    app = web.Application(
        middlewares=[own_pages_only, leader_only, errors], client_max_size=MAX_BODY_BYTES
    )
    app[SCHEDULER], app[STANDING] = scheduler, standing
    pages = _Pages(peers)
    app.add_routes(endpoints)
    app.add_routes(
        [
            web.get("/ping", _ping),
            web.get("/", pages.answer),
            web.get("/static/{name:.+}", pages.answer),
        ]
    )
    return app
