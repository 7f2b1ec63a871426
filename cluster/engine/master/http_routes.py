"""Routes of port 5050.

A master that does not lead answers 307 to the leader or with the leader's answer
(`mesaform.http.standby`), and 503 without one.
"""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from mesaform.common.json_types import JsonObject, as_object
from mesaform.common.tls import TlsFiles, scheme
from mesaform.engine.documents import Document
from mesaform.engine.master import http_operator, http_scheduler
from mesaform.engine.master.authentication import FrameworkAuthenticator
from mesaform.engine.master.http_common import empty, text
from mesaform.engine.master.http_legacy import PATHS, answer, answer_read, health
from mesaform.engine.master.http_operator import ProcessFacts
from mesaform.engine.master.term import Term
from mesaform.http import HttpPort, Limits, PortAccess, Standbys, is_passed_on, pass_on
from mesaform.topology.instance_identity import (
    IDENTITY_HEADER,
    InstanceVerifier,
    Unproven,
    identity_from_header,
)
from mesaform.webui import assets

_OWN_PATHS = frozenset({"health", "version", "flags", "metrics/snapshot", "redirect"})
"""The paths that every master answers for itself."""
_OPEN_PATHS = frozenset({"health", "api/v1/scheduler"})
"""The paths that need no operator's credential."""
_LEADER_PATHS = frozenset({"api/v1", "api/v1/scheduler", *PATHS})


class Host(Protocol):
    """What the routes need of the process. `leader` is the leader's MasterInfo as JSON."""

    term: Term | None
    leader: JsonObject | None
    own_address: tuple[str, int]
    tls: TlsFiles | None
    authenticator: FrameworkAuthenticator
    verifier: InstanceVerifier | None

    def version(self) -> Document:
        """VersionInfo."""
        ...

    def flags(self) -> dict[str, str]:
        """Mesos' flags by name."""
        ...

    def metrics(self) -> dict[str, float]:
        """Metrics by key."""
        ...

    def master(self) -> Document:
        """The body of GET_MASTER."""
        ...

    def process(self) -> Document:
        """The facts of /state that the core does not know."""
        ...


LIMITS = Limits(body_bytes=8 * 1024 * 1024, json_elements=200_000)
"""A launch of one small task has 36 elements and 300 bytes, so that a call may launch 5,000."""


def http_port(
    number: int,
    *,
    allows_jsonp: bool = False,
    access: PortAccess | None = None,
    standbys: Standbys = Standbys.AUTOMATIC,
    tls: TlsFiles | None = None,
) -> HttpPort:
    """Port 5050: errors in plain text, as Mesos answers. Streams end with their connection."""
    return HttpPort(
        str(number),
        LIMITS,
        allows_jsonp=allows_jsonp,
        cancels_handlers=True,
        access=access,
        standbys=standbys,
        tls=tls,
    )


class HttpApi:
    """The HTTP endpoints of a master."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._facts = ProcessFacts(
            host.version, host.flags, host.metrics, host.master, host.verifier
        )
        self._assets = assets.load("master")
        self._known = _OWN_PATHS | _LEADER_PATHS | set(self._assets)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    def is_open(self, request: web.BaseRequest) -> bool:
        """Whether a request needs no operator's credential.

        These are health checks, the scheduler API, which authenticates frameworks, and calls with
        the proof of an agent's machine, which `agent_calls` limits.
        """
        raw_path = request.raw_path.partition("?")[0]
        if "%" in raw_path:  # routes and this rule may decode it differently
            return False
        path = self._match(raw_path.strip("/"))
        if path in _OPEN_PATHS:
            return True
        return path == "api/v1" and self._is_of_agent(request)

    def _is_of_agent(self, request: web.BaseRequest) -> bool:
        proof = request.headers.get(IDENTITY_HEADER)
        if self._host.verifier is None or not proof:
            return False
        try:
            self._host.verifier.verify(identity_from_header(proof), request.remote or "")
        except Unproven:
            return False
        return True

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = self._match(request.match_info["path"].strip("/"))
        if path is None:
            return text(404, "404 Not Found.")
        if path in _OWN_PATHS:
            return self._answer_own(request, path)
        if path and path in self._assets:
            return self._asset(path)
        term = self._host.term
        if term is None:
            return await self._answer_as_standby(request, path)
        return await self._answer_as_leader(request, path, term)

    async def _answer_as_standby(self, request: web.Request, path: str) -> web.StreamResponse:
        """The leader's answer, a redirect to it, or 503 while there is none.

        A proof is valid from its machine's address only, so its owner has to call the leader.
        """
        leader = self._other_leader()
        if leader and is_passed_on(request) and IDENTITY_HEADER not in request.headers:
            return await pass_on(request, leader)
        return self._redirect(path, request.query_string)

    def _other_leader(self) -> str:
        """Address and port of the leader; empty if there is none besides this master."""
        address = as_object((self._host.leader or {}).get("address"))
        is_own = (address.get("ip"), address.get("port")) == self._host.own_address
        return "" if is_own or not address else f"{address['ip']}:{address['port']}"

    async def _answer_as_leader(
        self, request: web.Request, path: str, term: Term
    ) -> web.StreamResponse:
        match path:
            case "":
                return self._asset(path)
            case "api/v1/scheduler":
                return await http_scheduler.answer_call(request, term, self._host.authenticator)
            case "api/v1":
                return await http_operator.answer_call(request, term, self._facts)
        return answer_read(request, path, term.core.state, self._host.process())

    def _match(self, raw: str) -> str | None:
        """The route of a path.

        As in Mesos, a leading `master/` is optional, and what follows a route is ignored.
        """
        path = "" if raw == "master" else raw.removeprefix("master/")
        while path not in self._known:
            path, slash, _ = path.rpartition("/")
            if not slash:
                return None
        return path

    def _answer_own(self, request: web.Request, path: str) -> web.Response:
        match path:
            case "health":
                return health(request)
            case "redirect":
                return self._redirect("redirect", "")
            case "version":
                return answer(request, self._host.version())
            case "flags":
                return answer(request, {"flags": self._host.flags()})
        return answer(request, self._host.metrics())

    def _redirect(self, path: str, query: str) -> web.Response:
        """307 to the leader, relative to the protocol as Mesos does.

        Just after this master's restart the leader may be its own former registration, which does
        not lead any more.
        """
        address = as_object((self._host.leader or {}).get("address"))
        is_own = (address.get("ip"), address.get("port")) == self._host.own_address
        if not address or (is_own and path != "redirect"):
            # The page itself waits for a leader.
            return self._asset(path, 503) if path == "" else text(503, "No leader elected")
        target = f"//{address.get('hostname') or address['ip']}:{address['port']}"
        return empty(307, {"Location": target + _location_path(path, query)})

    def _asset(self, name: str, status: int = 200) -> web.Response:
        asset = self._assets[name]
        peers = assets.peers_of(
            self._host.flags()["zk"], self._host.own_address[1], scheme(self._host.tls)
        )
        return web.Response(
            status=status,
            body=asset.body,
            content_type=asset.content_type,
            charset="utf-8",
            headers=assets.headers(peers),
        )


def _location_path(path: str, query: str) -> str:
    if path == "redirect":
        return ""
    if path == "":
        return "/"
    return f"/master/{path}" + (f"?{query}" if query else "")
