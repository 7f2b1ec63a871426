"""HTTP client of the adapters: one GET at a time to an address that the guard allows.

It follows no redirect to another host, reads a bounded number of bytes and sends no credential that
was not configured for the URL. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mesaform.autoscaler.observation.adapters.address_guard import Guard, same_host
from mesaform.autoscaler.observation.adapters.answers import MAX_BYTES, AdapterError

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 2
CHUNK_BYTES = 1 << 16


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses addresses that may not be asked.

    The check is made on the address that is connected to, so that a name which changes its address
    between two look-ups does not pass it.
    """

    def __init__(self, guard: Callable[[], Guard], *, is_configured: bool) -> None:
        self._guard = guard
        self._is_configured = is_configured

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: it has none.
            AdapterError: one of them may not be asked.

        """
        loop = asyncio.get_running_loop()
        entries = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for family_of_address, _, proto, _, address in entries:
            self._guard().require_address(str(address[0]), port, is_configured=self._is_configured)
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=family_of_address,
                    proto=proto,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Hold nothing."""


@dataclass(frozen=True, slots=True)
class HttpSource:
    """The API of one framework: see `answers.Source`.

    `url` is its base. `authorization` is the value of that header; empty sends none. `session`
    resolves names with a `GuardedResolver` of the same guard. `count_bytes` receives the length of
    each body.
    """

    session: aiohttp.ClientSession
    guard: Guard
    url: str
    is_configured: bool = False
    authorization: str = ""
    count_bytes: Callable[[int], None] = lambda _count: None

    async def get(self, path: str) -> bytes:
        """The body of a GET.

        Raises:
            AdapterError: the address may not be asked, nothing answers, or not with 200.

        """
        url = self.guard.require_url(self.url.rstrip("/") + path, is_configured=self.is_configured)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._ask(url, path)
            if isinstance(answer, bytes):
                return answer
            target = url.join(answer)
            if not same_host(url, target):
                raise AdapterError(f"{path} redirects to another host")
            if self.is_configured and target.origin() != url.origin():
                raise AdapterError(f"{path} redirects to {target.origin()}; configure that URL")
            url = self.guard.require_url(str(target), is_configured=self.is_configured)
        raise AdapterError(f"{path} redirects more than {MAX_REDIRECTS} times")

    async def _ask(self, url: URL, path: str) -> bytes | URL:
        """The body, or where a redirect leads."""
        headers = {"Accept": "application/json, text/plain;q=0.5"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        try:
            async with self.session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status in REDIRECTS:
                    return URL(response.headers.get("Location", ""), encoded=True)
                if response.status != 200:
                    raise AdapterError(f"{path} is answered with {response.status}")
                body = await _read(response, path)
                self.count_bytes(len(body))
                return body
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise AdapterError(f"{path}: {str(error)[:200] or type(error).__name__}") from None


async def _read(response: aiohttp.ClientResponse, path: str) -> bytes:
    """The body, as long as it is not too long."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise AdapterError(f"{path} is answered with more than {MAX_BYTES} bytes")
    return bytes(body)
