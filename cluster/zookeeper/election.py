"""Elections as Mesos holds them: below a path, the ephemeral node with the lowest sequence number leads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from mesaform.common.errors import MesaformError
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable

SUSPENDED_SHARE = 0.6
"""The part of the session timeout for which a leader that cannot reach the ensemble goes on. The ensemble counts from the
last heartbeat, at most a third of the time-out before the break was noticed, so a leader is done before another is elected."""

RETRY_S = 0.5
LEAVE_TIMEOUT_S = 2.0
LOOK_AGAIN_S = 5.0
"""Longest wait for a watch: a watch that was lost with its session costs this much, not for ever."""


def sequence_of(name: str) -> int:
    """The sequence number at the end of a node's name: `json.info_0000000007` is 7."""
    return int(name[-10:])


def contenders(names: list[str], prefix: str) -> list[str]:
    """The names that contend, the leading one first; anything else below the path (such as `log_replicas`) is left out."""
    mine = [name for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    return sorted(mine, key=sequence_of)


async def watch_leader(
    zk: ZooKeeper, path: str, prefix: str = "json.info_"
) -> AsyncIterator[bytes | None]:
    """The leading contender's payload, now and at each change; None when there is none, or the session is lost.

    A session that is only suspended keeps the last answer: a short break of the network is no change of leader.
    """
    last: object = _NEVER
    while True:
        moved = asyncio.Event()
        try:
            payload = await _leading_payload(zk, path, prefix, moved.set)
        except ZooKeeperUnavailable:
            payload = None if zk.state == "lost" else _as_payload(last)
            if zk.state == "connected":
                moved.set()
                await asyncio.sleep(RETRY_S)
        if payload != last:
            last = payload
            yield payload
        await _first_of(moved.wait(), zk.wait_state_change())


class Candidate:
    """One contender for leadership below `path`.

    Args:
        zk: a started session.
        path: where the contenders' nodes are.
        payload: what others read of the leader (MasterInfo JSON for masters).
        prefix: how the nodes are named.

    """

    def __init__(
        self, zk: ZooKeeper, path: str, payload: bytes, prefix: str = "json.info_"
    ) -> None:
        self._zk = zk
        self._path = path
        self._payload = payload
        self._prefix = prefix
        self.leading = False

    async def run(self, on_elected: Callable[[int], Awaitable[None]]) -> None:
        """Contend for ever. While leading, `on_elected(epoch)` runs; it is cancelled when leadership is lost.

        `epoch` is the node's sequence number: greater for each later leader, so it can fence writes.
        An `on_elected` that returns gives leadership up and contends again; one that raises ends `run` with that error.
        """
        name: str | None = None
        try:
            while True:
                await self._zk.wait_connected()
                try:
                    name = await self._enter()
                    if await self._until_lowest(name):
                        await self._lead(name, on_elected)
                    await self._leave(name)
                except ZooKeeperUnavailable:
                    await asyncio.sleep(RETRY_S)
        finally:
            if name is not None:
                await self._leave(name)

    async def _enter(self) -> str:
        """The name of this session's node: one whose creation was not heard of is found again by its owner."""
        await self._zk.ensure(self._path)
        for name in contenders(await self._zk.children(self._path), self._prefix):
            if await self._zk.owner(f"{self._path}/{name}") == self._zk.session_id:
                return name
        full = await self._zk.create_sequential(f"{self._path}/{self._prefix}", self._payload)
        return full.rpartition("/")[2]

    async def _until_lowest(self, name: str) -> bool:
        """Whether `name` became the lowest; False when it is gone or the session was lost."""
        while True:
            moved = asyncio.Event()
            names = contenders(await self._zk.children(self._path, moved.set), self._prefix)
            if name not in names:
                return False
            if names[0] == name:
                return True
            await _first_of(moved.wait(), self._zk.wait_state_change())
            if self._zk.state == "lost":
                return False
            await self._zk.wait_connected()

    async def _lead(self, name: str, on_elected: Callable[[int], Awaitable[None]]) -> None:
        self.leading = True
        work = asyncio.ensure_future(on_elected(sequence_of(name)))
        watch = asyncio.ensure_future(self._until_deposed(name))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.leading = False
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error

    async def _until_deposed(self, name: str) -> None:
        """Return when this node no longer leads, or may soon not."""
        while True:
            moved = asyncio.Event()
            try:
                names = contenders(await self._zk.children(self._path, moved.set), self._prefix)
            except ZooKeeperUnavailable:
                if not await self._reconnected():
                    return
                continue
            if not names or names[0] != name:
                return
            await _first_of(moved.wait(), self._zk.wait_state_change())
            if self._zk.state != "connected" and not await self._reconnected():
                return

    async def _reconnected(self) -> bool:
        """Whether the same session is up again before the ensemble could have given it up."""
        try:
            async with asyncio.timeout(self._zk.session_timeout_s * SUSPENDED_SHARE):
                while self._zk.state == "suspended":
                    await self._zk.wait_state_change()
        except TimeoutError:
            return False
        return self._zk.state == "connected"

    async def _leave(self, name: str) -> None:
        with contextlib.suppress(MesaformError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._zk.delete(f"{self._path}/{name}")


_NEVER = object()


def _as_payload(last: object) -> bytes | None:
    return last if isinstance(last, bytes) else None


async def _leading_payload(
    zk: ZooKeeper, path: str, prefix: str, on_change: Callable[[], None]
) -> bytes | None:
    await zk.ensure(path)
    for name in contenders(await zk.children(path, on_change), prefix):
        found = await zk.get(f"{path}/{name}")
        if found is not None:
            return found[0]
    return None


async def _first_of(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
