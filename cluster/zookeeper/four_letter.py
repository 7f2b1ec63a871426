"""ZooKeeper's four-letter command `srvr`: in which mode a server serves.

Source: ZooKeeper administrator's guide, "The Four Letter Words". A server that knows no leader
answers "This ZooKeeper instance is not currently serving requests". Depends on asyncio only.
"""

from __future__ import annotations

import asyncio
import re
from typing import Literal

Mode = Literal["leader", "follower", "observer", "standalone"]
MODES: frozenset[Mode] = frozenset({"leader", "follower", "observer", "standalone"})
TIMEOUT_S = 2.0
ANSWER_LIMIT_BYTES = 4096
_MODE = re.compile(r"^Mode: (\w+)\s*$", re.MULTILINE)


async def read_mode(host: str, port: int, timeout_s: float = TIMEOUT_S) -> Mode | None:
    """The mode of a server; None if it does not answer in time or serves no requests."""
    try:
        async with asyncio.timeout(timeout_s):
            return parse_mode(await _ask(host, port, b"srvr"))
    except (OSError, TimeoutError):
        return None


def parse_mode(answer: str) -> Mode | None:
    """The mode in an answer to `srvr`; None if it names none."""
    named = _MODE.search(answer)
    return next((mode for mode in MODES if named and mode == named.group(1)), None)


async def _ask(host: str, port: int, command: bytes) -> str:
    """Send a command; the server answers and closes the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(command)
        await writer.drain()
        answer = b""
        while len(answer) < ANSWER_LIMIT_BYTES and (chunk := await reader.read(1024)):
            answer += chunk
        return answer.decode(errors="replace")
    finally:
        writer.close()
