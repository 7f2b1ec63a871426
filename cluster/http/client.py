"""The one factory of HTTP sessions towards a cluster's ports. Depends on aiohttp.

A session with a trust verifies servers against the cluster's CA, and against no other.
"""

from __future__ import annotations

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.typedefs import LooseHeaders

from mesaform.common.tls import Trust
from mesaform.http.login import OperatorLogin


class _PresentTrust:
    """Middleware: CAs that were replaced are read before each request."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self._trust.context()
        return await handler(request)


def open_session(
    login: OperatorLogin | None = None,
    *,
    trust: Trust | None = None,
    headers: LooseHeaders | None = None,
    timeout: aiohttp.ClientTimeout | None = None,
    decompresses: bool = True,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """A session; the caller closes it. Must be called while an event loop runs.

    Args:
        login: sends the operator's token to masters.
        trust: the cluster's CA; None where the cluster has no TLS.
        headers: of every request.
        timeout: of every request that has none of its own; None is aiohttp's.
        decompresses: false gives bodies as they were sent.
        resolver: of host names; None is aiohttp's.

    Raises:
        OSError: the CA cannot be read.

    """
    ssl = trust.context() if trust else True
    connector = aiohttp.TCPConnector(ssl=ssl, resolver=resolver)
    present = (_PresentTrust(trust),) if trust else ()
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        middlewares=(*present, *((login,) if login else ())),
        timeout=timeout or aiohttp.ClientTimeout(total=300, sock_connect=30),
        auto_decompress=decompresses,
    )
