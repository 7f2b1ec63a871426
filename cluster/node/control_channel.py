"""Control channel between the node and a service that controls it: a socket pair, one line a call.

| Line of the service | Effect | Line of the node |
|---|---|---|
| `hold` | all other services are stopped | `held` and the processes that remain |
| `release` | the held services are started again | `released` |
| `poweroff` | every service stops, then the machine powers off | none |

Remaining processes are tasks and executors, which belong to no service: below the node, or in the
control groups in which they outlive it. When the channel closes
while services are held, the node releases them. The service inherits its end of the pair; it has no
address, so no other process can use it. Standard library only.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

NODE_FD = "MESAFORM_NODE_FD"
"""Environment variable with the file descriptor of the service's end."""

ANSWER_WITHIN_S = 30.0
"""Longer than any service may take to stop."""


class ChannelBroken(Exception):
    """The node ended or did not answer in time."""


class ControlChannel:
    """The service's end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, environ: Mapping[str, str] = os.environ) -> ControlChannel:
        """Open the channel that the node passed to this process.

        Raises:
            ChannelBroken: the node passed none.

        """
        number = environ.get(NODE_FD, "")
        if not number.isdigit():
            raise ChannelBroken(f"{NODE_FD} is not set: only the node starts this program")
        return cls(*await asyncio.open_connection(sock=socket.socket(fileno=int(number))))

    async def hold(self) -> tuple[str, ...]:
        """Stop all other services and return the names of the processes that remain.

        Raises:
            ChannelBroken: no answer.

        """
        return tuple(await self._call("hold", "held"))

    async def release(self) -> None:
        """Start the held services again.

        Raises:
            ChannelBroken: no answer.

        """
        await self._call("release", "released")

    async def power_off(self) -> None:
        """Power the machine off; the node stops this process with all others."""
        self._writer.write(b"poweroff\n")
        await self._writer.drain()

    async def _call(self, request: str, expected: str) -> list[str]:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                self._writer.write(f"{request}\n".encode())
                await self._writer.drain()
                answer = (await self._reader.readline()).decode().split()
        except (OSError, TimeoutError) as error:
            raise ChannelBroken(
                f"the node does not answer {request}: {error or type(error).__name__}"
            ) from error
        if answer[:1] != [expected]:
            raise ChannelBroken(
                f"the node answers {request} with {' '.join(answer) or 'an end of the channel'}"
            )
        return answer[1:]
