"""The registry in one ZooKeeper node, protected against writes of deposed leaders.

Each write names the version that it replaces, and a new leader writes before anything else. The
writes of an earlier leader therefore fail. Depends on `zookeeper.session`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

import msgspec

from mesaform.common.errors import LeadershipLost
from mesaform.engine.master.timing import Timings
from mesaform.engine.registry import Admit, Change, Registry
from mesaform.zookeeper.session import VersionConflict, ZooKeeper

COMPRESS_ABOVE_BYTES = 256 * 1024
MAX_BYTES = 900 * 1024
"""The largest registry. A ZooKeeper node holds at most 1 MiB (jute.maxbuffer), of which the request
that writes it needs a part."""


class RegistryStore:
    """The registry for one term of leadership.

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
        """Times and sizes under Mesos' metric keys."""
        size = {"registrar/registry_size_bytes": float(self._size_bytes)}
        return size | self._fetches.metrics() | self._stores.metrics()

    async def open(self, epoch: int, now: float) -> Registry:
        """Read the registry, and write it with this epoch so that earlier leaders cannot write.

        Raises:
            LeadershipLost: a later leader opened it.
            ZooKeeperUnavailable: no answer.

        """
        started_at = time.monotonic()
        node = await self._zk.get(self._path)
        self._fetches.add((time.monotonic() - started_at) * 1000)
        stored = decode(node[0]) if node else Registry()
        if stored.epoch > epoch:
            raise LeadershipLost(
                f"epoch {stored.epoch} wrote the registry, this is epoch {epoch}", where=self._path
            )
        registry = Registry(epoch, stored.agents).pruned(now)
        try:
            if node:
                await self._put(registry, node[1])
            else:
                await self._zk.create(self._path, encode(registry))
                self._version = 0
        except VersionConflict as error:
            raise LeadershipLost(
                "another master opened the registry at the same time", where=self._path
            ) from error
        self.value = registry
        return registry

    async def write(self, *changes: Change) -> list[str | None]:
        """Make the changes durable.

        Return for each change why it was not stored: the registry would outgrow its node. None
        means that it is stored.

        Raises:
            LeadershipLost: a later leader wrote; none of the changes is stored.
            ZooKeeperUnavailable: no answer. Whether the changes are stored is unknown, so the term
                must end.

        """
        value, refusals = _fitting(self.value, changes)
        try:
            await self._put(value, self._version)
        except VersionConflict as error:
            raise LeadershipLost("another master wrote the registry", where=self._path) from error
        self.value = value
        return refusals

    async def _put(self, value: Registry, version: int) -> None:
        data, started_at = encode(value), time.monotonic()
        self._version = await self._zk.put(self._path, data, version)
        self._stores.add((time.monotonic() - started_at) * 1000)
        self._size_bytes = len(data)


def _fitting(value: Registry, changes: Sequence[Change]) -> tuple[Registry, list[str | None]]:
    """The registry with the changes that fit, and why each of the others does not.

    Only an `Admit` can be refused: the other changes hardly grow the registry.
    """
    everything = value.apply(*changes)
    if len(encode(everything)) <= MAX_BYTES:
        return everything, [None] * len(changes)
    refusals: list[str | None] = []
    for change in changes:
        changed = value.apply(change)
        if isinstance(change, Admit) and len(encode(changed)) > MAX_BYTES:
            refusals.append(
                f"the registry has no place for this agent: it may have {MAX_BYTES} bytes"
            )
        else:
            value = changed
            refusals.append(None)
    return value, refusals


def encode(registry: Registry) -> bytes:
    """JSON, compressed by zlib above `COMPRESS_ABOVE_BYTES`."""
    plain = msgspec.json.encode(registry)
    return zlib.compress(plain, 6) if len(plain) > COMPRESS_ABOVE_BYTES else plain


def decode(data: bytes) -> Registry:
    """The registry that `encode` wrote."""
    return msgspec.json.decode(data if data[:1] == b"{" else zlib.decompress(data), type=Registry)
