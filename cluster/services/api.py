"""REST server: leadership, errors of services, and helpers of the endpoints.

The endpoints are in `api_apps`, `api_agents` and `api_cluster`. Only the leader serves `/v2`;
another server answers 307 with the leader's address (Marathon proxies instead). Errors have
Marathon's shape: `{"message": …, "details": …}`. Depends on aiohttp, `mesaform.http` and
`scheduler`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web

from mesaform.common.tls import TlsFiles
from mesaform.http import (
    Access,
    HttpPort,
    Limits,
    PortAccess,
    Standbys,
    is_passed_on,
    json_message,
    pass_on,
    paths,
    read_json,
)
from mesaform.services.commands import Outcome
from mesaform.services.core import Core
from mesaform.services.definitions import InvalidApp
from mesaform.services.effects import AppLocked, AppMissing
from mesaform.services.scheduler import NotLeading, Scheduler, StateNotStored
from mesaform.webui import assets


@dataclass(slots=True)
class Leadership:
    """Base URLs of this server and of the leader; the election's watcher updates the latter."""

    own_url: str
    leader_url: str | None = None

    @property
    def other_leader(self) -> str | None:
        """The leader's URL if another server leads."""
        return None if self.leader_url == self.own_url else self.leader_url


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SCHEDULER = web.AppKey("scheduler", Scheduler)
LEADERSHIP = web.AppKey("leadership", Leadership)
LOCAL_PATHS = ("/ping", "/health", "/metrics", "/zookeeper", "/v2/leader", "/agents/", "/static/")
"""Prefixes of the paths that every server answers itself."""

LIMITS = Limits(body_bytes=4 * 1024 * 1024)
"""An app of 10 KB has 300 elements, so that a call may change 300 of them."""
LOCKED_MESSAGE = (
    "Another deployment of this app is under way; wait for it, or override it with ?force=true"
)


class InvalidJson(ValueError):
    """The body is not JSON."""


def http_port(
    number: int,
    access: Access | None = None,
    standbys: Standbys = Standbys.AUTOMATIC,
    tls: TlsFiles | None = None,
) -> HttpPort:
    """Port 8080: errors as Marathon answers. Only health checks need no credential."""
    return HttpPort(
        str(number),
        LIMITS,
        json_message,
        access=PortAccess(access, paths("/ping", "/health")),
        standbys=standbys,
        tls=tls,
    )


def dumps(value: object) -> str:
    """JSON text of a value, structs included."""
    return msgspec.json.encode(value).decode()


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.json_response(value, status=status, headers=headers, dumps=dumps)


def problem(status: int, message: str, **fields: object) -> web.Response:
    """An error in Marathon's shape, with further fields."""
    return answer({"message": message, **fields}, status)


def deployed(
    outcome: Outcome, body: object = None, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """The answer to a change.

    Without a body it is the deployment's id and version. The id is also in Marathon's header.
    """
    deployment = outcome.deployment
    if body is None:
        body = {"version": deployment.version, "deploymentId": deployment.id}
    return answer(body, status, {"Marathon-Deployment-Id": deployment.id, **(headers or {})})


def flag(request: web.Request, name: str) -> bool:
    """Whether a query parameter such as `?force=true` is set."""
    return request.query.get(name, "").lower() in ("true", "1", "yes")


def scheduler_of(request: web.Request) -> Scheduler:
    """The server's scheduler."""
    return request.app[SCHEDULER]


def core_of(request: web.Request) -> Core:
    """The leading core.

    Raises:
        NotLeading: this server does not lead.

    """
    return request.app[SCHEDULER].core


async def body_of(request: web.Request) -> object:
    """The request's JSON.

    Raises:
        BadRequest: it exceeds a limit.
        InvalidJson: it is not JSON.

    """
    text = await read_json(request)
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)) from None


@web.middleware
async def leader_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Serve if this server leads or the path is local; otherwise have the leader answer."""
    if request.path.startswith(LOCAL_PATHS):
        return await handler(request)
    try:
        core_of(request)
        return await handler(request)
    except NotLeading:
        leader_url = request.app[LEADERSHIP].other_leader
        if leader_url is not None and is_passed_on(request):
            return await pass_on(request, leader_url.partition("://")[2])
        if leader_url is not None:
            return web.Response(status=307, headers={"Location": leader_url + request.path_qs})
    if request.path == "/":  # the page shows that it waits for a leader
        page = await handler(request)
        page.set_status(503)
        return page
    return web.json_response(
        {"message": "No server leads yet; try again shortly"},
        status=503,
        headers={"Retry-After": "1"},
    )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer the errors of services as Marathon does."""
    try:
        return await handler(request)
    except (InvalidApp, InvalidJson, AppMissing, AppLocked, StateNotStored) as error:
        return _known_problem(error)


_KnownError = InvalidApp | InvalidJson | AppMissing | AppLocked | StateNotStored


def _known_problem(error: _KnownError) -> web.Response:
    match error:
        case InvalidJson():
            details = [{"path": "/", "errors": [str(error)]}]
            return problem(400, "Invalid JSON", details=details)
        case InvalidApp(problems=problems):
            details = [{"path": path, "errors": texts} for path, texts in problems.items()]
            return problem(422, "Object is not valid", details=details)
        case AppMissing(app_id=app_id):
            return problem(404, f"App '{app_id}' does not exist")
        case AppLocked(deployment_ids=ids):
            return problem(409, LOCKED_MESSAGE, deployments=[{"id": item} for item in ids])
        case _:
            return problem(503, f"The change could not be stored: {error}")


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="pong")


class _Pages:
    """The web page and its files.

    `peers` are the origins of the other servers; the page looks there when this server is gone.
    """

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
    scheduler: Scheduler, leadership: Leadership, endpoints: list[web.RouteDef], peers: list[str]
) -> web.Application:
    """The web application with these endpoints, the page and `/ping`."""
    app = web.Application(middlewares=[leader_only, errors])
    app[SCHEDULER], app[LEADERSHIP] = scheduler, leadership
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
