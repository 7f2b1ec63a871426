"""Follows the output of a task, through the proxy of the services on the masters.

The proxy serves an agent's HTTP API below `/agents/{id}/`. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import aiohttp

from mesaform.common.json_types import Json, JsonObject, as_list, as_object

STREAMS = ("stdout", "stderr")
PAGE_BYTES = 64 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=20.0, sock_connect=2.0)
RETRY_AFTER_END_S = 5.0
"""Seconds after a task's end in which a missing sandbox or a silent agent is tried again."""

Write = Callable[[str, str], None]
Answer = TypeVar("Answer")


class SandboxUnreadable(Exception):
    """The output cannot be read at present. The text says why."""


@dataclass(slots=True)
class _File:
    """A file that is followed, and the offset in bytes of what comes next."""

    path: str
    write: Callable[[str], None]
    offset: int = 0


class Sandboxes:
    """Reads files of agents.

    Args:
        services: base URLs of the masters' services, such as `http://10.0.0.10:8080`. Each of them
            serves every agent.
        session: the caller closes it.

    """

    def __init__(self, services: Sequence[str], session: aiohttp.ClientSession) -> None:
        self._services = list(services)
        self._session = session

    async def follow(
        self, agent_id: str, task_id: str, ended: asyncio.Event, write: Write, pause_s: float = 0.25
    ) -> None:
        """Pass on all output of the task until it has `ended` and everything is read.

        `write(stream, text)` is called with `stdout` or `stderr`. `pause_s` is the time between two
        reads.

        Raises:
            SandboxUnreadable: the task has ended and its output cannot be read.

        """
        folder = await self._retry(partial(self._folder, agent_id, task_id), ended, pause_s)
        files = [_File(f"{folder}/{stream}", partial(write, stream)) for stream in STREAMS]
        while True:
            is_last_round = ended.is_set()
            for file in files:
                await self._retry(partial(self._read_on, agent_id, file), ended, pause_s)
            if is_last_round:
                return
            await _pause(ended, pause_s)

    async def _read_on(self, agent_id: str, file: _File) -> None:
        """Pass on what a file has from its offset on.

        A file that is shorter than the offset was rotated meanwhile: what follows in the older file
        comes first, then the new file from its start.
        """
        await self._read_to_end(agent_id, file, file.path)
        if file.offset == 0 or await self._size(agent_id, file.path) >= file.offset:
            return
        with contextlib.suppress(SandboxUnreadable):
            await self._read_to_end(agent_id, file, f"{file.path}.1")
        file.offset = 0
        await self._read_to_end(agent_id, file, file.path)

    async def _read_to_end(self, agent_id: str, file: _File, path: str) -> None:
        while text := await self._read(agent_id, path, file.offset):
            file.offset += _length_in_file(text)
            file.write(text)

    async def _size(self, agent_id: str, path: str) -> int:
        answer = await self._get(agent_id, "files/read", path=path, offset="-1")
        size = answer.get("offset")
        return size if isinstance(size, int) else 0

    async def _folder(self, agent_id: str, task_id: str) -> str:
        state = await self._get(agent_id, "state")
        for framework in _with_completed(state, "frameworks"):
            for executor in _with_completed(as_object(framework), "executors"):
                if _runs(as_object(executor), task_id):
                    return str(as_object(executor)["directory"])
        raise SandboxUnreadable(f"agent {agent_id} has no sandbox of {task_id}")

    async def _read(self, agent_id: str, path: str, offset: int) -> str:
        answer = await self._get(
            agent_id, "files/read", path=path, offset=str(offset), length=str(PAGE_BYTES)
        )
        return str(answer.get("data", ""))

    async def _get(self, agent_id: str, endpoint: str, **query: str) -> JsonObject:
        """Ask the services in turn. The one that answers is asked first from then on."""
        problem = "no address of services is known"
        for base in list(self._services):
            try:
                async with self._session.get(
                    f"{base}/agents/{agent_id}/{endpoint}", params=query, timeout=TIMEOUT
                ) as response:
                    if response.status == 200:
                        others = [service for service in self._services if service != base]
                        self._services = [base, *others]
                        return as_object(await response.json(content_type=None))
                    problem = f"{base}: {response.status} {(await response.text()).strip()[:200]}"
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                problem = f"{base}: {error or type(error).__name__}"
        raise SandboxUnreadable(problem)

    async def _retry(
        self, read: Callable[[], Awaitable[Answer]], ended: asyncio.Event, pause_s: float
    ) -> Answer:
        """Call `read` until it succeeds; after the task's end for `RETRY_AFTER_END_S`."""
        loop = asyncio.get_running_loop()
        give_up_at: float | None = None
        while True:
            try:
                return await read()
            except SandboxUnreadable:
                if ended.is_set():
                    give_up_at = give_up_at or loop.time() + RETRY_AFTER_END_S
                    if loop.time() >= give_up_at:
                        raise
                    await asyncio.sleep(pause_s)
                else:
                    await _pause(ended, pause_s)


def _with_completed(document: JsonObject, name: str) -> list[Json]:
    return [*as_list(document.get(name)), *as_list(document.get(f"completed_{name}"))]


def _runs(executor: JsonObject, task_id: str) -> bool:
    tasks = _with_completed(executor, "tasks")
    return executor.get("id") == task_id or any(
        as_object(task).get("id") == task_id for task in tasks
    )


def _length_in_file(text: str) -> int:
    """The bytes of the file that a text stands for.

    Agents cut pages at whole characters and replace each byte that is not UTF-8 by U+FFFD.
    """
    return sum(1 if character == "\ufffd" else len(character.encode()) for character in text)


async def _pause(ended: asyncio.Event, pause_s: float) -> None:
    try:
        async with asyncio.timeout(pause_s):
            await ended.wait()
    except TimeoutError:
        return
