"""A way to agents' sandboxes for those who reach only the masters: GET, `/files/*` and `/state`, nothing else of an agent's API.

Every server answers these itself, also one that does not lead, since a redirect to the leader's own address may be out of reach.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

from mesaform.common.errors import MesaformError
from mesaform.services.api import problem

KNOWN_FOR_S = 30.0
TIMEOUT = aiohttp.ClientTimeout(total=30.0, sock_connect=3.0)
COPIED_HEADERS = ("Content-Type", "Content-Disposition")
CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class AgentProxy:
    """Looks agents up at the engine's leading master and hands requests on.

    Args:
        engine: finds the leading master's base URL.
        session: for calls; owned by the caller.

    """

    engine: Callable[[], Awaitable[str]]
    session: aiohttp.ClientSession
    _known: dict[str, str] = field(default_factory=dict)
    _known_since: float = 0.0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/agents/{agent_id}/files/{what:read|browse|download}", self.forward),
            web.get("/agents/{agent_id}/state", self.forward),
        ]

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """The agent's own answer, or 404 for an unknown agent, 502 for one that does not answer, 503 without a leading master."""
        agent_id, what = request.match_info["agent_id"], request.match_info.get("what")
        try:
            address = await self._address(agent_id)
        except (MesaformError, aiohttp.ClientError, OSError, TimeoutError) as error:
            return problem(503, f"The engine's leading master does not answer: {error}")
        if address is None:
            return problem(404, f"Agent '{agent_id}' is not registered")
        url = (
            URL(f"http://{address}")
            .with_path(f"/files/{what}" if what else "/state")
            .with_query(request.query)
        )
        try:
            async with self.session.get(url, timeout=TIMEOUT, allow_redirects=False) as response:
                return await _copied(request, response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._known_since = 0.0
            return problem(
                502,
                f"Agent '{agent_id}' at {address} does not answer: {error or type(error).__name__}",
            )

    async def _address(self, agent_id: str) -> str | None:
        """`ip:port` of an agent. Asks the master at most once in `KNOWN_FOR_S`, and for an agent that is not known yet."""
        fresh = time.monotonic() - self._known_since < KNOWN_FOR_S
        if not fresh or agent_id not in self._known:
            url = URL(await self.engine()).with_path("/slaves")
            async with self.session.get(url, timeout=TIMEOUT) as response:
                response.raise_for_status()
                slaves = (await response.json(content_type=None)).get("slaves", [])
            self._known = {slave["id"]: slave["pid"].rpartition("@")[2] for slave in slaves}
            self._known_since = time.monotonic()
        return self._known.get(agent_id)


async def _copied(request: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = {name: response.headers[name] for name in COPIED_HEADERS if name in response.headers}
    copy = web.StreamResponse(status=response.status, headers=headers)
    await copy.prepare(request)
    try:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            await copy.write(chunk)
        await copy.write_eof()
    except (aiohttp.ClientError, OSError, TimeoutError):
        if (
            request.transport is not None
        ):  # the answer has begun: only a broken connection can say that it is not whole
            request.transport.close()
    return copy
