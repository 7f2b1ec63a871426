"""Proxy to agents' sandboxes for clients that reach only the masters.

Serves GET of `/files/*` and `/state` of each registered agent and nothing else of its API. Every
server answers these paths itself: the leader's own address may be unreachable for the client.
Marathon has no such endpoint. Depends on aiohttp.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from mesaform.common.errors import MesaformError
from mesaform.services.api import problem

CACHE_TTL_S = 30.0
"""How long the list of agents is used before it is read again."""

TIMEOUT = aiohttp.ClientTimeout(total=30.0, sock_connect=3.0)
COPIED_HEADERS = ("Content-Type", "Content-Disposition", "Content-Range")
SENT_HEADERS = ("Range",)
CHUNK_BYTES = 64 * 1024
MAX_ERROR_BYTES = 4096
_UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)


class _Agent(msgspec.Struct):
    """An entry of the master's `/slaves`; `pid` is `slave(1)@ip:port`."""

    id: str
    pid: str


class _Agents(msgspec.Struct):
    slaves: list[_Agent] = []


@dataclass(slots=True)
class AgentProxy:
    """Finds agents at the leading master and forwards requests to them.

    Args:
        engine: returns the leading master's base URL.
        session: for calls; the caller closes it.

    """

    engine: Callable[[], Awaitable[str]]
    session: aiohttp.ClientSession
    _addresses: dict[str, str] = field(default_factory=dict)
    _read_at: float = 0.0

    def routes(self) -> list[web.RouteDef]:
        """The proxy's endpoints."""
        return [
            web.get("/agents/{agent_id}/files/{what:read|browse|download}", self.forward),
            web.get("/agents/{agent_id}/state", self.forward),
        ]

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Answer as the agent does; errors have Marathon's shape.

        404: unknown agent. 502: the agent does not answer. 503: no leading master.
        """
        agent_id = request.match_info["agent_id"]
        try:
            address, scheme = await self._address(agent_id), URL(await self.engine()).scheme
        except (MesaformError, msgspec.DecodeError, *_UNREACHABLE) as error:
            return problem(503, f"The engine's leading master does not answer: {error}")
        if address is None:
            return problem(404, f"Agent '{agent_id}' is not registered")
        try:
            async with self.session.get(
                _target(request, scheme, address),
                headers={
                    name: request.headers[name] for name in SENT_HEADERS if name in request.headers
                },
                timeout=TIMEOUT,
                allow_redirects=False,
            ) as response:
                if response.status >= 400:
                    return await _error(response)
                return await _copy(request, response)
        except _UNREACHABLE as error:
            self._read_at = 0.0
            reason = error or type(error).__name__
            return problem(502, f"Agent '{agent_id}' at {address} does not answer: {reason}")

    async def _address(self, agent_id: str) -> str | None:
        """`ip:port` of an agent; the master is asked for an unknown agent or an old list."""
        is_recent = time.monotonic() - self._read_at < CACHE_TTL_S
        if not is_recent or agent_id not in self._addresses:
            url = URL(await self.engine()).with_path("/slaves")
            async with self.session.get(url, timeout=TIMEOUT) as response:
                response.raise_for_status()
                agents = msgspec.json.decode(await response.read(), type=_Agents).slaves
            self._addresses = {agent.id: agent.pid.rpartition("@")[2] for agent in agents}
            self._read_at = time.monotonic()
        return self._addresses.get(agent_id)


def _target(request: web.Request, scheme: str, address: str) -> URL:
    """The agent's URL for a request to the proxy. Agents have TLS where masters have."""
    what = request.match_info.get("what")
    path = f"/files/{what}" if what else "/state"
    return URL(f"{scheme}://{address}").with_path(path).with_query(request.query)


async def _error(response: aiohttp.ClientResponse) -> web.Response:
    """The agent's error in Marathon's shape."""
    text = await response.content.read(MAX_ERROR_BYTES)
    return problem(response.status, text.decode("utf-8", "replace").strip())


async def _copy(request: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = {name: response.headers[name] for name in COPIED_HEADERS if name in response.headers}
    copy = web.StreamResponse(status=response.status, headers=headers)
    await copy.prepare(request)
    try:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            await copy.write(chunk)
        await copy.write_eof()
    except _UNREACHABLE:
        # The status was sent already: only a closed connection shows that the body is incomplete.
        if request.transport is not None:
            request.transport.close()
    return copy
