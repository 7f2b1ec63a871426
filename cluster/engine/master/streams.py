"""Event streams in RecordIO (a length, a line feed, the record) over chunked HTTP. A subscriber that cannot keep up is cut off."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_WAITING_RECORDS = 20_000

_encoder = msgspec.json.Encoder()


def record(event: dict[str, Any]) -> bytes:
    """An event as one RecordIO record of JSON."""
    body = _encoder.encode(event)
    return b"%d\n%s" % (len(body), body)


class Stream:
    """What waits to be written to one subscriber, within bounds.

    Args:
        cut: drops the connection at once, even when the other side reads nothing.
        max_bytes: more waiting than this cuts it.

    """

    def __init__(self, cut: Callable[[], None], max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._cut = cut
        self._max_bytes = max_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._news = asyncio.Event()

    def push(self, data: bytes) -> None:
        """Queue a record; ignored once the stream ended."""
        if self._ended:
            return
        self._waiting.append(data)
        self._bytes += len(data)
        self._news.set()
        if self._bytes > self._max_bytes or len(self._waiting) > MAX_WAITING_RECORDS:
            self._waiting.clear()
            self._ended = True
            self._cut()

    def finish(self) -> None:
        """End the stream after what is queued."""
        self._ended = True
        self._news.set()

    async def pump(self, response: web.StreamResponse) -> None:
        """Write records until the stream is finished. Raises what a broken connection raises."""
        while True:
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                await response.write(data)
                self._bytes = sum(len(one) for one in self._waiting)
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()
