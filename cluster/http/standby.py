"""Answers of a standby: a redirect to the leader, or the leader's own answer.

Leaders announce private addresses. A client that called a standby by its private address reaches
the leader, and is redirected. One that called by another name, such as a public address or that of
a load balancer, may not reach it: its request is passed on. Depends on aiohttp.
"""

from __future__ import annotations

import aiohttp
from aiohttp import web

from mesaform.common.tls import scheme, trust_of
from mesaform.http.body import PORT, read_body
from mesaform.http.client import open_session
from mesaform.http.errors import BadRequest
from mesaform.http.hosts import LOCALHOST, host_of
from mesaform.http.port import Standbys
from mesaform.http.stream import mark_stream

PASSED_ON = "X-Mesaform-Passed-On"
"""Marks a request that a standby passed on. A second standby does not pass it on again."""

FORWARDED_FOR = "X-Forwarded-For"
"""The addresses for which a request was passed on."""

CONNECT_TIMEOUT_S = 5.0
_NOT_PASSED = frozenset(
    {
        *("connection", "content-length", "host", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "server", "date"),
        *("origin", "sec-fetch-site"),
    }
)
"""Headers of a connection; and those by which this server has checked where a page comes from."""


def is_passed_on(request: web.Request) -> bool:
    """Whether this standby answers with the leader's answer instead of a redirect."""
    if PASSED_ON in request.headers:
        return False
    port = request.get(PORT)
    wanted = Standbys.AUTOMATIC if port is None else port.standbys
    if wanted is not Standbys.AUTOMATIC:
        return wanted is Standbys.PROXY
    return host_of(request.host) not in {_own_address(request), LOCALHOST}


def callers(request: web.Request) -> tuple[str, ...]:
    """The peer's address, and those for which it or a standby says that it passes the request on.

    A caller can add addresses and leave none out: rules may refuse by them, and allow nothing.
    """
    named = ",".join(request.headers.getall(FORWARDED_FOR, ())).split(",")
    return (request.remote or "", *(name.strip() for name in named if name.strip()))


def _own_address(request: web.Request) -> str:
    address = request.transport.get_extra_info("sockname") if request.transport else None
    return str(address[0]) if address else ""


async def pass_on(request: web.Request, leader: str) -> web.StreamResponse:
    """The leader's answer to a request, piece by piece as it comes.

    Args:
        request: the request.
        leader: the leader's address and port.

    Raises:
        BadRequest: 503, the leader does not answer.

    """
    body = await read_body(request, decompresses=False)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    port = request.get(PORT)
    tls = None if port is None else port.tls
    async with open_session(trust=trust_of(tls), timeout=timeout, decompresses=False) as session:
        try:
            answer = await session.request(
                request.method,
                f"{scheme(tls)}://{leader}{request.raw_path}",
                headers=_passed_headers(request),
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise BadRequest(f"The leader at {leader} does not answer: {reason}", 503) from error
        async with answer:
            return await _copy(request, answer)


def _passed_headers(request: web.Request) -> list[tuple[str, str]]:
    kept = [
        (name, value) for name, value in request.headers.items() if name.lower() not in _NOT_PASSED
    ]
    peer = request.remote or ""
    return [*kept, (PASSED_ON, "1"), (FORWARDED_FOR, peer)]


async def _copy(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Send the answer on; it may be a stream that lasts for weeks."""
    if answer.content_length is None:
        mark_stream(request)
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in _NOT_PASSED:
            response.headers.add(name, value)
    response.content_length = answer.content_length
    await response.prepare(request)
    if request.method != "HEAD":
        async for piece in answer.content.iter_any():
            await response.write(piece)
    await response.write_eof()
    return response
