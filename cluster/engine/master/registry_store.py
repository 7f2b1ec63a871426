"""The registry in one ZooKeeper node, fenced against deposed leaders.

Every write names the version it replaces and a new leader writes first of all, so an earlier leader's writes fail.
"""

from __future__ import annotations

import time
import zlib

import msgspec

from mesaform.common.errors import LeadershipLost
from mesaform.engine.master.timing import Timings
from mesaform.engine.registry import Change, Registry
from mesaform.zookeeper.session import VersionConflict, ZooKeeper

COMPRESS_ABOVE_BYTES = 256 * 1024  # a ZooKeeper node holds at most 1 MiB


class RegistryStore:
    """The registry in one ZooKeeper node, for one term of leadership.

    Args:
        zk: a started session.
        path: the node, such as `/mesos/registry`.

    """

    def __init__(self, zk: ZooKeeper, path: str) -> None:
        self._zk = zk
        self._path = path
        self._version = -1
        self.value = Registry()
        self._size_bytes = 0
        self._fetches = Timings("registrar/state_fetch_ms")
        self._stores = Timings("registrar/state_store_ms")

    def measured(self) -> dict[str, float]:
        """Times and sizes, under Mesos' keys."""
        return (
            {"registrar/registry_size_bytes": float(self._size_bytes)}
            | self._fetches.metrics()
            | self._stores.metrics()
        )

    async def open(self, epoch: int, now: float) -> Registry:
        """Read the registry and fence every earlier leader out by writing it with this epoch.

        Raises:
            LeadershipLost: a later leader has been here.
            ZooKeeperUnavailable: no answer.

        """
        began_at = time.monotonic()
        found = await self._zk.get(self._path)
        self._fetches.add((time.monotonic() - began_at) * 1000)
        stored = decode(found[0]) if found else Registry()
        if stored.epoch > epoch:
            raise LeadershipLost(
                f"epoch {stored.epoch} wrote the registry, this is epoch {epoch}", where=self._path
            )
        mine = Registry(epoch, stored.agents).pruned(now)
        try:
            if found:
                await self._put(mine, found[1])
            else:
                await self._zk.create(self._path, encode(mine))
                self._version = 0
        except VersionConflict as error:
            raise LeadershipLost(
                "another master opened the registry at the same time", where=self._path
            ) from error
        self.value = mine
        return mine

    async def write(self, *changes: Change) -> None:
        """Make the changes durable.

        Raises:
            LeadershipLost: a later leader wrote; nothing of this was stored.
            ZooKeeperUnavailable: no answer; the term must end, because it is unknown whether this was stored.

        """
        value = self.value.apply(*changes)
        try:
            await self._put(value, self._version)
        except VersionConflict as error:
            raise LeadershipLost("another master wrote the registry", where=self._path) from error
        self.value = value

    async def _put(self, value: Registry, version: int) -> None:
        data, began_at = encode(value), time.monotonic()
        self._version = await self._zk.put(self._path, data, version)
        self._stores.add((time.monotonic() - began_at) * 1000)
        self._size_bytes = len(data)


def encode(registry: Registry) -> bytes:
    """JSON, deflated when large."""
    plain = msgspec.json.encode(registry)
    return zlib.compress(plain, 6) if len(plain) > COMPRESS_ABOVE_BYTES else plain


def decode(data: bytes) -> Registry:
    return msgspec.json.decode(data if data[:1] == b"{" else zlib.decompress(data), type=Registry)
