"""Which path goes where, and what a master that does not lead answers: 307 to the leader, 503 without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from mesaform.engine.master.http_common import empty, text
from mesaform.engine.master.http_legacy import PATHS, answer, health, legacy
from mesaform.engine.master.http_operator import Facts, operator
from mesaform.engine.master.http_scheduler import scheduler
from mesaform.webui import assets

if TYPE_CHECKING:
    from typing import Any

    from mesaform.engine.master.term import Term

_EVERYWHERE = frozenset({"health", "version", "flags", "metrics/snapshot", "redirect"})
_LEADING = frozenset({"api/v1", "api/v1/scheduler", *PATHS})


class Host(Protocol):
    """What the routes need to know of the process."""

    term: Term | None
    leader: dict[str, Any] | None

    def version(self) -> dict[str, Any]: ...
    def flags(self) -> dict[str, str]: ...
    def metrics(self) -> dict[str, float]: ...
    def master(self) -> dict[str, Any]: ...
    def process(self) -> dict[str, Any]: ...


async def _anonymous(_request: web.Request, response: web.StreamResponse) -> None:
    """Which software answers is nobody's business."""
    response.headers.popall("Server", None)


class HttpApi:
    """All of port 5050."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._facts: Facts = {
            "version": host.version,
            "flags": host.flags,
            "metrics": host.metrics,
            "master": host.master,
        }
        self._assets = assets.load("master")
        self._known = _EVERYWHERE | _LEADING | set(self._assets)

    def app(self, max_body_bytes: int) -> web.Application:
        app = web.Application(client_max_size=max_body_bytes)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        app.on_response_prepare.append(_anonymous)
        return app

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        raw = request.match_info["path"].strip("/")
        path = self._match(raw)
        if path is None:
            return text(404, "404 Not Found.")
        if path in _EVERYWHERE:
            return self._own(request, path)
        if path and path in self._assets:
            return self._asset(path)
        term = self._host.term
        if term is None:
            return self._elsewhere(path, request.query_string)
        if path == "":
            return self._asset(path)
        if path == "api/v1/scheduler":
            return await scheduler(request, term)
        if path == "api/v1":
            return await operator(request, term, self._facts)
        return legacy(request, path, term.core.state, self._host.process())

    def _match(self, raw: str) -> str | None:
        """The route for a path: `master/` in front is optional, and what follows a route is ignored, as in Mesos."""
        path = "" if raw == "master" else raw.removeprefix("master/")
        while path not in self._known:
            path, slash, _ = path.rpartition("/")
            if not slash:
                return None
        return path

    def _own(self, request: web.Request, path: str) -> web.Response:
        """What every master answers for itself."""
        if path == "health":
            return health(request)
        if path == "redirect":
            return self._elsewhere("redirect", "")
        body: Any = (
            self._host.version()
            if path == "version"
            else self._host.metrics()
            if path != "flags"
            else None
        )
        return answer(request, {"flags": self._host.flags()} if body is None else body)

    def _elsewhere(self, path: str, query: str) -> web.Response:
        """307 to the leader, protocol-relative as Mesos does."""
        leader = self._host.leader
        own = self._host.master()["master_info"]["address"]
        if leader is None or (
            path != "redirect" and leader["address"] == own
        ):  # what this address was before it restarted still counts as leading
            return (
                self._asset(path, 503) if path == "" else text(503, "No leader elected")
            )  # the page itself waits, and says so
        address = leader["address"]
        target = f"//{address.get('hostname') or address['ip']}:{address['port']}"
        if path == "":
            target += "/"
        elif path != "redirect":
            target += f"/master/{path}" + (f"?{query}" if query else "")
        return empty(307, {"Location": target})

    def _asset(self, name: str, status: int = 200) -> web.Response:
        asset = self._assets[name]
        peers = assets.peers_of(
            self._host.flags()["zk"], self._host.master()["master_info"]["address"]["port"]
        )
        headers = assets.headers(peers)
        return web.Response(
            status=status,
            body=asset.body,
            content_type=asset.content_type,
            charset="utf-8",
            headers=headers,
        )
