"""A signal from the thread that calls moto to coroutines that wait for changes."""

from __future__ import annotations

import asyncio
import contextlib


class ChangeSignal:
    """Wakes every coroutine that waits. Made in the loop that it serves."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wake the coroutines. Any thread may call it."""
        self._loop.call_soon_threadsafe(self._fire)

    def _fire(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        """Take this before a look at the state: a change after it ends `wait` at once."""
        return self._next

    async def wait(self, ticket: asyncio.Event, max_s: float) -> None:
        """Wait until something changed since the ticket was taken, at most `max_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max_s):
                await ticket.wait()
