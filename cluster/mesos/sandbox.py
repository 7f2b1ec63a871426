"""Following what a task writes, through the proxy that services keeps on the masters (`/agents/{id}/…`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import aiohttp

STREAMS = ("stdout", "stderr")
PAGE_BYTES = 64 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=20.0, sock_connect=2.0)
GIVE_UP_S = 5.0
"""How long the sandbox of a task that has ended is looked for, or an agent that does not answer is asked again."""

Write = Callable[[str, str], None]
Answer = TypeVar("Answer")


class SandboxUnreadable(Exception):
    """The output cannot be had (now): why."""


class Sandboxes:
    """Reads files of agents.

    Args:
        services: base URLs of the masters' services, such as `http://10.0.0.10:8080`; any of them will do.
        session: owned by the caller.

    """

    def __init__(self, services: Sequence[str], session: aiohttp.ClientSession) -> None:
        self._services = list(services)
        self._session = session

    async def follow(
        self, agent_id: str, task_id: str, ended: asyncio.Event, write: Write, pause_s: float = 0.25
    ) -> None:
        """Pass on everything that the task writes, until it has `ended` and all was read.

        `write(stream, text)` is called with `stdout` or `stderr`.

        Raises:
            SandboxUnreadable: it has ended and its output cannot be read.

        """
        folder = await self._retry(partial(self._folder, agent_id, task_id), ended, pause_s)
        offsets = dict.fromkeys(STREAMS, 0)
        while True:
            last_round = ended.is_set()
            for stream in STREAMS:
                path = f"{folder}/{stream}"
                while text := await self._retry(
                    partial(self._read, agent_id, path, offsets[stream]), ended, pause_s
                ):
                    offsets[stream] += _length(text)
                    write(stream, text)
            if last_round:
                return
            await _pause(ended, pause_s)

    async def _folder(self, agent_id: str, task_id: str) -> str:
        state = await self._get(agent_id, "state")
        for framework in [*state.get("frameworks", []), *state.get("completed_frameworks", [])]:
            for executor in [
                *framework.get("executors", []),
                *framework.get("completed_executors", []),
            ]:
                tasks = [*executor.get("tasks", []), *executor.get("completed_tasks", [])]
                if executor.get("id") == task_id or any(
                    task.get("id") == task_id for task in tasks
                ):
                    return str(executor["directory"])
        raise SandboxUnreadable(f"agent {agent_id} knows no sandbox of {task_id}")

    async def _read(self, agent_id: str, path: str, offset: int) -> str:
        answer = await self._get(
            agent_id, "files/read", path=path, offset=str(offset), length=str(PAGE_BYTES)
        )
        return str(answer.get("data", ""))

    async def _get(self, agent_id: str, what: str, **query: str) -> dict[str, Any]:
        """Ask the services in turn; the one that answered is the first to be asked next time."""
        why = "no address of services is known"
        for base in list(self._services):
            try:
                async with self._session.get(
                    f"{base}/agents/{agent_id}/{what}", params=query, timeout=TIMEOUT
                ) as response:
                    if response.status == 200:
                        self._services = [
                            base,
                            *(other for other in self._services if other != base),
                        ]
                        answer: dict[str, Any] = await response.json(content_type=None)
                        return answer
                    why = f"{base}: {response.status} {(await response.text()).strip()[:200]}"
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                why = f"{base}: {error or type(error).__name__}"
        raise SandboxUnreadable(why)

    async def _retry(
        self, read: Callable[[], Awaitable[Answer]], ended: asyncio.Event, pause_s: float
    ) -> Answer:
        """Until it can be read; once the task has ended, only so long."""
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        while True:
            try:
                return await read()
            except SandboxUnreadable:
                if ended.is_set():
                    give_up_at = give_up_at or loop.time() + GIVE_UP_S
                    if loop.time() >= give_up_at:
                        raise
                    await asyncio.sleep(pause_s)
                else:
                    await _pause(ended, pause_s)


def _length(text: str) -> int:
    """How many bytes of the file a text came from: agents cut pages at whole characters and replace what is not UTF-8."""
    return sum(1 if character == "\ufffd" else len(character.encode()) for character in text)


async def _pause(ended: asyncio.Event, pause_s: float) -> None:
    try:
        async with asyncio.timeout(pause_s):
            await ended.wait()
    except TimeoutError:
        return
