"""The line between the node and a service that steers it: a pair of sockets that the service inherits, one word a line.

The service says `hold` (stop all other services; answered by `held`, with the names of the processes that are left below the node
besides services: tasks and executors), `release` (start them again; answered by `released`) and `poweroff` (not answered:
everything stops).
A line that breaks while services are held releases them: a steering service that dies leaves the machine as it found it.
Nobody else can reach it: it has no name, and tasks do not inherit it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

NODE_FD = "MESAFORM_NODE_FD"
ANSWER_WITHIN_S = 30.0
"""Longer than any service may take to stop."""


class LineBroken(Exception):
    """The node is gone, or does not answer."""


class ControlChannel:
    """The service's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, environ: Mapping[str, str] = os.environ) -> ControlChannel:
        """The line that the node gave to this process.

        Raises:
            LineBroken: it gave none.

        """
        number = environ.get(NODE_FD, "")
        if not number.isdigit():
            raise LineBroken(f"{NODE_FD} is not set: only the node starts this program")
        return cls(*await asyncio.open_connection(sock=socket.socket(fileno=int(number))))

    async def hold(self) -> tuple[str, ...]:
        """Have all other services stopped; returns the processes that are left.

        Raises:
            LineBroken: no answer.

        """
        return tuple(await self._ask("hold", "held"))

    async def release(self) -> None:
        """Have them started again.

        Raises:
            LineBroken: no answer.

        """
        await self._ask("release", "released")

    async def power_off(self) -> None:
        """Have the machine powered off; this process is told to end with all others."""
        self._writer.write(b"poweroff\n")
        await self._writer.drain()

    async def _ask(self, word: str, expected: str) -> list[str]:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                self._writer.write(f"{word}\n".encode())
                await self._writer.drain()
                answer = (await self._reader.readline()).decode().split()
        except (OSError, TimeoutError) as error:
            raise LineBroken(
                f"the node does not answer {word}: {error or type(error).__name__}"
            ) from error
        if answer[:1] != [expected]:
            raise LineBroken(f"the node answers {word} with {' '.join(answer) or 'nothing'}")
        return answer[1:]
