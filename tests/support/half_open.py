"""Peers that hold connections whose handshake they never finish, and a process with few files."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

START_S = 60.0
PROGRAM = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
host, port, own = sys.argv[1], int(sys.argv[2]), sys.argv[4]
held = []
for _ in range(int(sys.argv[3])):
    connection = socket.socket()
    connection.bind((own, 0))
    connection.connect((host, port))
    try:
        connection.sendall(bytes([0x16, 3, 1]))
    except OSError:
        pass
    held.append(connection)
print("open", flush=True)
sys.stdin.read()
"""
"""Opens many connections, sends the beginning of a handshake on each, and holds them."""


@asynccontextmanager
async def half_open(target: tuple[str, int], count: int, peer: str) -> AsyncIterator[None]:
    """A process that holds `count` half-open handshakes from the address `peer`."""
    host, port = target
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, host, str(port), str(count), peer,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            assert await process.stdout.readline() == b"open\n"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextmanager
def few_files(free: int) -> Iterator[None]:
    """At most `free` further open files for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
