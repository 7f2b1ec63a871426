"""Follows the output of a task, through the proxy of the services on the masters.

The proxy serves an agent's HTTP API below `/agents/{id}/`. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
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

REPLACED = "\ufffd"
"""What agents of the embedded engine send instead of bytes that are not UTF-8."""

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
            file.offset += len(bytes_of(text))
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
        text = str(answer.get("data", ""))
        if REPLACED not in text:
            return text
        part = await self._download(agent_id, path, offset)
        return part.decode("utf-8", "surrogateescape")

    async def _download(self, agent_id: str, path: str, offset: int) -> bytes:
        """A page of the exact bytes of a file; agents of Apache Mesos send all that is before."""
        headers = {"Range": f"bytes={offset}-{offset + PAGE_BYTES - 1}"}
        url = f"{self._services[0]}/agents/{agent_id}/files/download"
        part = bytearray()
        try:
            async with self._session.get(
                url, params={"path": path}, headers=headers, timeout=TIMEOUT
            ) as response:
                if response.status not in {200, 206}:
                    raise SandboxUnreadable(f"{url}: {response.status}")
                unwanted = 0 if response.status == 206 else offset
                async for chunk in response.content.iter_any():
                    part += chunk[unwanted:]
                    unwanted = max(0, unwanted - len(chunk))
                    if len(part) >= PAGE_BYTES:
                        break
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SandboxUnreadable(f"{url}: {error or type(error).__name__}") from None
        return bytes(part[:PAGE_BYTES])

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
                        body = await response.read()
                        # Agents of Apache Mesos write all bytes of a file into the JSON.
                        return as_object(json.loads(body.decode("utf-8", "surrogateescape")))
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


def bytes_of(text: str) -> bytes:
    """The bytes of the file that a text stands for: lone surrogates are bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


async def _pause(ended: asyncio.Event, pause_s: float) -> None:
    try:
        async with asyncio.timeout(pause_s):
            await ended.wait()
    except TimeoutError:
        return
