"""Leader election in the form of Mesos: the ephemeral node with the lowest sequence number leads.

Mesos' own recipe (src/zookeeper/group.cpp), compatible with its `json.info_` nodes. Depends on
`session`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from mesaform.common.errors import MesaformError
from mesaform.zookeeper.ownership import claim, protect_tree
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable

SUSPENDED_SHARE = 0.6
"""Part of the session time-out for which a leader without a connection keeps leading.

The ensemble counts from the last heartbeat, which is at most a third of the time-out older than the
noticed break. A leader therefore stops before another one is elected.
"""

RETRY_PAUSE_S = 0.5
LEAVE_TIMEOUT_S = 2.0
WATCH_TIMEOUT_S = 5.0
"""Longest wait for a watch; afterwards the children are read again, in case the watch was lost."""


def sequence_of(name: str) -> int:
    """The sequence number at the end of a node's name: `json.info_0000000007` is 7."""
    return int(name[-10:])


def contenders(names: list[str], prefix: str) -> list[str]:
    """The contenders' node names, the leader's first; other nodes (`log_replicas`) are ignored."""
    matching = [name for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    return sorted(matching, key=sequence_of)


async def watch_leader(
    zk: ZooKeeper, path: str, prefix: str = "json.info_"
) -> AsyncIterator[bytes | None]:
    """Yield the leader's payload, now and at each change; None: no leader, or session lost.

    While the session is suspended the last payload stays: a short network failure is no change of
    leader.
    """
    last: object = _NEVER
    changed = asyncio.Event()
    while True:
        changed.clear()
        try:
            payload = await _leading_payload(zk, path, prefix, changed.set)
        except ZooKeeperUnavailable:
            payload = None if zk.state == "lost" else _as_payload(last)
            if zk.state == "connected":
                changed.set()
                await asyncio.sleep(RETRY_PAUSE_S)
        if payload != last:
            last = payload
            yield payload
        await _first_of(changed.wait(), zk.wait_state_change())


class Candidate:
    """One contender for leadership below `path`.

    Args:
        zk: a started session.
        path: the parent of the contenders' nodes.
        payload: data of this contender's node (MasterInfo JSON for masters).
        prefix: the start of the nodes' names.

    """

    def __init__(
        self, zk: ZooKeeper, path: str, payload: bytes, prefix: str = "json.info_"
    ) -> None:
        self._zk = zk
        self._path = path
        self._payload = payload
        self._prefix = prefix
        self._changed = asyncio.Event()
        self.is_leading = False

    async def run(self, on_elected: Callable[[int], Awaitable[float | None]]) -> None:
        """Contend until cancelled; while this contender leads, `on_elected(epoch)` runs.

        `epoch` is the node's sequence number, which grows with each leader: a fencing token for
        writes. `on_elected` is cancelled when leadership is lost. When it returns, leadership is
        given up, and the contender enters again after the seconds that it returned (at once for
        None). When it raises, `run` raises the same error.
        """
        name: str | None = None
        try:
            while True:
                await self._zk.wait_connected()
                try:
                    name = await self._enter()
                    pause_s = None
                    if await self._until_lowest(name):
                        pause_s = await self._lead(name, on_elected)
                    await self._leave(name)
                    await asyncio.sleep(pause_s or 0.0)
                except ZooKeeperUnavailable:
                    await asyncio.sleep(RETRY_PAUSE_S)
        finally:
            if name is not None:
                await self._leave(name)

    async def _enter(self) -> str:
        """Create this session's node and return its name.

        A node whose creation was not confirmed is recognised by its owner.
        """
        await claim(self._zk)
        await self._zk.ensure(self._path)
        for name in contenders(await self._zk.children(self._path), self._prefix):
            if await self._zk.owner(f"{self._path}/{name}") == self._zk.session_id:
                return name
        full = await self._zk.create_sequential(f"{self._path}/{self._prefix}", self._payload)
        return full.rpartition("/")[2]

    async def _until_lowest(self, name: str) -> bool:
        """Wait until `name` is the lowest; False when it is gone or the session was lost."""
        while True:
            names = await self._contenders()
            if name not in names:
                return False
            if names[0] == name:
                return True
            await _first_of(self._changed.wait(), self._zk.wait_state_change())
            if self._zk.state == "lost":
                return False
            await self._zk.wait_connected()

    async def _lead(
        self, name: str, on_elected: Callable[[int], Awaitable[float | None]]
    ) -> float | None:
        self.is_leading = True
        work = asyncio.ensure_future(on_elected(sequence_of(name)))
        watch = asyncio.ensure_future(self._until_deposed(name))
        migration = asyncio.ensure_future(protect_tree(self._zk, self._path))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_leading = False
            for task in (work, watch, migration):
                task.cancel()
            await asyncio.gather(work, watch, migration, return_exceptions=True)
        return None if work.cancelled() else work.result()

    async def _until_deposed(self, name: str) -> None:
        """Return when this node no longer leads, or may stop leading before that is known."""
        while True:
            try:
                names = await self._contenders()
            except ZooKeeperUnavailable:
                if not await self._reconnected():
                    return
                continue
            if not names or names[0] != name:
                return
            await _first_of(self._changed.wait(), self._zk.wait_state_change())
            if self._zk.state != "connected" and not await self._reconnected():
                return

    async def _contenders(self) -> list[str]:
        """The contenders; `_changed` is set at their next change."""
        self._changed.clear()
        return contenders(await self._zk.children(self._path, self._changed.set), self._prefix)

    async def _reconnected(self) -> bool:
        """Whether the session is connected again before the ensemble can have expired it."""
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
    for name in contenders(await zk.children(path, on_change), prefix):
        node = await zk.get(f"{path}/{name}")
        if node is not None:
            return node[0]
    return None


async def remove_contenders(
    zk: ZooKeeper, path: str, is_ended: Callable[[bytes], bool], prefix: str = "json.info_"
) -> int:
    """Delete the nodes of contenders that have ended for certain; return how many there were.

    The ensemble would delete them at the end of their sessions. A process knows that its
    predecessor has ended, for example, when it listens at the predecessor's address.
    """
    names = contenders(await zk.children(path), prefix)
    ended = 0
    for name in names:
        node = await zk.get(f"{path}/{name}")
        if node is not None and is_ended(node[0]):
            await zk.delete(f"{path}/{name}")
            ended += 1
    return ended


async def _first_of(*awaitables: Awaitable[object]) -> None:
    """Return when the first of them is done, or after `WATCH_TIMEOUT_S`."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, timeout=WATCH_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
