"""HTTP on port 9550: the page and its data, `/decisions`, `/health`, `/metrics`. Read-only.

A standby names the leader and redirects browsers to it. `topology` opens the port to members and to
the operators' networks.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web
from prometheus_client import generate_latest

from mesaform.autoscaler.reporting.decision_text import decision_view, render_row
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.common.tls import TlsFiles
from mesaform.http import (
    UNHANDLED,
    Access,
    BadRequest,
    HttpPort,
    Limits,
    PortAccess,
    Standbys,
    is_passed_on,
    json_message,
    pass_on,
    paths,
)
from mesaform.topology.ports import Port
from mesaform.topology.user_data import CERTIFICATES_PATH, NOTICES_PATH, SHUTDOWN_REPORTS_PATH
from mesaform.webui import assets

LIMITS = Limits(body_bytes=64 * 1024, json_elements=1000)
"""A machine's notice has 200 bytes."""
HOURS = {"1": 1, "6": 6, "24": 24}


def http_port(
    number: int,
    access: Access | None = None,
    standbys: Standbys = Standbys.AUTOMATIC,
    tls: TlsFiles | None = None,
) -> HttpPort:
    """Port 9550: errors are objects with a message.

    Health checks need no credential; requests of machines have a proof of their own.
    """
    is_open = paths("/health", NOTICES_PATH, SHUTDOWN_REPORTS_PATH, CERTIFICATES_PATH)
    return HttpPort(
        str(number),
        LIMITS,
        json_message,
        access=PortAccess(access, is_open),
        standbys=standbys,
        tls=tls,
    )


class Page:
    """The server's routes.

    Args:
        telemetry: the outputs to serve.
        leader: `host:port` of the leading autoscaler; empty while it is not known.
        masters: hosts of all masters, where the page looks for the leader if its server is gone.
        address: `host:port` of this server.
        scheme: of the URLs of this page and of its peers.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        leader: Callable[[], str],
        masters: Sequence[str],
        address: str,
        scheme: str = "http",
    ) -> None:
        self._telemetry = telemetry
        self._leader = leader
        self._address = address
        self._scheme = scheme
        port = address.rpartition(":")[2] or str(Port.AUTOSCALER)
        self._peers = [f"{scheme}://{host}:{port}" for host in masters]
        self._assets = assets.load("autoscaler")

    def application(self) -> web.Application:
        app = web.Application()
        for path, handler in self._routes().items():
            app.router.add_get(path, handler)
        return app

    def _routes(self) -> dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        return {
            "/": self._page,
            "/view": self._view,
            "/series": self._series,
            "/decisions": self._decisions,
            "/health": self._health,
            "/metrics": self._metrics,
            "/static/{name:.+}": self._static,
        }

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._telemetry.measures.registry)
            + (UNHANDLED.prometheus() + self._telemetry.health.metrics()).encode(),
            content_type="text/plain",
            charset="utf-8",
        )

    async def _decisions(self, _: web.Request) -> web.Response:
        return _json(
            {
                "decisions": [decision_view(row) for row in self._telemetry.recent],
                "plan": self._telemetry.last_plan,
            }
        )

    async def _health(self, _: web.Request) -> web.Response:
        """200 while this process can do its work, 503 with the reasons otherwise."""
        telemetry = self._telemetry
        health = telemetry.health.view(is_leading=bool(telemetry.status["leading"]))
        answer = _json({**telemetry.status, **health, "leader": self._leader()})
        answer.set_status(200 if health["able"] else 503)
        return answer

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return await self._elsewhere(request) or self._file("")

    async def _static(self, request: web.Request) -> web.Response:
        name = f"static/{request.match_info['name']}"
        if name not in self._assets:
            raise BadRequest("no such file", 404)
        return self._file(name)

    async def _view(self, request: web.Request) -> web.StreamResponse:
        """The present state. 503 before the first pass of the leader, and while nobody leads."""
        if (elsewhere := await self._elsewhere(request)) is not None:
            return elsewhere
        telemetry = self._telemetry
        if not telemetry.status["leading"]:
            raise web.HTTPServiceUnavailable(text="no autoscaler leads")
        moment = {
            "address": self._address,
            "peers": self._peers,
            "status": telemetry.status,
            "plan": telemetry.last_plan,
        }
        return _json(
            {
                **moment,
                **telemetry.now_shown,
                "decisions": [decision_view(row) for row in list(telemetry.recent)[-100:][::-1]],
            }
        )

    async def _series(self, request: web.Request) -> web.StreamResponse:
        """The last hours in points, and the decisions of that time by kind."""
        if (elsewhere := await self._elsewhere(request)) is not None:
            return elsewhere
        hours = HOURS.get(request.query.get("hours", "1"))
        if hours is None:
            raise BadRequest(f"hours is one of {', '.join(HOURS)}")
        until = time.time()
        since = until - hours * 3600
        decisions = [
            [row["at"], row["decision"], row.get("count", 0), render_row(row)]
            for row in self._telemetry.recent
        ]
        points = self._telemetry.ring.thinned(since, until)
        return _json(
            {
                "since": since,
                "until": until,
                "points": points,
                "decisions": [decision for decision in decisions if decision[0] >= since],
            }
        )

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse | None:
        """The leader's answer or a redirect to it, if another one is known."""
        leader = self._leader()
        if self._telemetry.status["leading"] or not leader or leader == self._address:
            return None
        if is_passed_on(request):
            return await pass_on(request, leader)
        headers = {
            "Location": f"{self._scheme}://{leader}{request.rel_url}",
            "Cache-Control": "no-store",
        }
        return web.Response(status=307, headers=headers, text=f"the autoscaler at {leader} leads\n")

    def _file(self, name: str) -> web.Response:
        asset = self._assets[name]
        headers = assets.headers(self._peers)
        return web.Response(
            body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers
        )


def _json(what: object) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(what),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
