"""Sends an operator's token to the masters' ports, and to nobody else. Depends on aiohttp.

HTTP Basic is used, which Apache Mesos understands as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

import aiohttp

from mesaform.common.access import OPERATOR, basic_header
from mesaform.http.access import Access

TokenSource = Callable[[bool], Awaitable[str]]
"""Gives the present token; empty without one. True: read it again, since it was refused."""
HTTP_UNAUTHORIZED = 401


class OperatorLogin:
    """Middleware of an aiohttp session.

    Requests that carry another credential are left as they are. A refused token is read again once:
    it may have been replaced. Agents never get it: whoever is root there would be an operator.

    Args:
        hosts: names and addresses of the masters.
        ports: their ports.
        token: the source of the token.
        needs_tls: whether requests without TLS do not get it, such as those of a redirect.

    """

    def __init__(
        self,
        hosts: Callable[[], Collection[str]],
        ports: Collection[int],
        token: TokenSource,
        *,
        needs_tls: bool = False,
    ) -> None:
        self._hosts = hosts
        self._ports = frozenset(ports)
        self._token = token
        self._needs_tls = needs_tls

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request with the token."""
        if not self._is_for_masters(request):
            return await handler(request)
        token = await self._token(False)
        self._sign(request, token)
        response = await handler(request)
        if response.status != HTTP_UNAUTHORIZED:
            return response
        newer = await self._token(True)
        if newer == token:
            return response
        response.release()
        self._sign(request, newer)
        return await handler(request)

    def _is_for_masters(self, request: aiohttp.ClientRequest) -> bool:
        if "Authorization" in request.headers:
            return False
        if self._needs_tls and request.url.scheme != "https":
            return False
        return request.url.port in self._ports and request.url.host in self._hosts()

    @staticmethod
    def _sign(request: aiohttp.ClientRequest, token: str) -> None:
        if token:
            request.headers["Authorization"] = basic_header(OPERATOR, token)


def file_login(
    access: Access | None,
    hosts: Collection[str],
    ports: Collection[int],
    *,
    needs_tls: bool = False,
) -> OperatorLogin | None:
    """The login of a master's own program; None where no token is required."""
    if access is None or not access.is_required:
        return None

    async def token(_was_refused: bool) -> str:
        tokens = access.file.document().tokens
        return tokens[0] if tokens else ""

    return OperatorLogin(lambda: hosts, ports, token, needs_tls=needs_tls)
