"""Event streams to subscribers: RecordIO over chunked HTTP, with a bounded queue for each.

A subscriber that does not keep up is disconnected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
from aiohttp import web

from mesaform.engine.documents import Document

MAX_QUEUED_BYTES = 32 * 1024 * 1024
MAX_QUEUED_RECORDS = 20_000

_encoder = msgspec.json.Encoder()


def record(event: Document) -> bytes:
    """An event as one RecordIO record of JSON."""
    body = _encoder.encode(event)
    return b"%d\n%s" % (len(body), body)


class Stream:
    """The queue of records for one subscriber.

    Args:
        disconnect: drops the connection at once, even when the peer reads nothing.
        max_bytes: the connection is dropped when more than this is queued.

    """

    def __init__(self, disconnect: Callable[[], None], max_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._disconnect = disconnect
        self._max_bytes = max_bytes
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._has_ended = False
        self._changed = asyncio.Event()

    def push(self, data: bytes) -> None:
        """Queue a record. It is ignored after the end of the stream."""
        if self._has_ended:
            return
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._changed.set()
        if self._queued_bytes > self._max_bytes or len(self._queue) > MAX_QUEUED_RECORDS:
            self._queue.clear()
            self._has_ended = True
            self._disconnect()

    def finish(self) -> None:
        """End the stream after what is queued."""
        self._has_ended = True
        self._changed.set()

    async def pump(self, response: web.StreamResponse) -> None:
        """Write records until the stream is finished. Raises what a broken connection raises."""
        while True:
            while self._queue:
                data = b"".join(self._queue)
                self._queue.clear()
                await response.write(data)
                self._queued_bytes = sum(len(queued) for queued in self._queue)
            if self._has_ended:
                return
            self._changed.clear()
            await self._changed.wait()
