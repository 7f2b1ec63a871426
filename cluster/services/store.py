"""The state in ZooKeeper: one node per app, instance and deployment, and one for the framework id.

Nodes hold the JSON of the structs in `model`, below `<root>/apps`, `<root>/instances` and
`<root>/deployments`; names are URL-quoted keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from mesaform.services.effects import Effect, Kind, Store
from mesaform.services.model import App, Deployment, Instance
from mesaform.services.state import State
from mesaform.zookeeper.session import ZooKeeper

_encode = msgspec.json.Encoder().encode
Value = TypeVar("Value", App, Instance, Deployment)


class StateStore:
    """Reads everything and writes changes. Only the leader may write."""

    def __init__(self, zk: ZooKeeper, root: str) -> None:
        self._zk = zk
        self._root = root

    async def load(self) -> State:
        """The stored state.

        Raises:
            ZooKeeperUnavailable: no answer.
            msgspec.ValidationError: a node has other content; it is not overwritten.

        """
        apps = await self._all("apps", App)
        instances = await self._all("instances", Instance)
        deployments = await self._all("deployments", Deployment)
        return State.of(apps, instances, deployments)

    async def apply(self, effects: Sequence[Effect]) -> None:
        """Carry out the `Store` effects, the last one of each key; return once all are stored.

        Raises:
            ZooKeeperUnavailable: no answer; some changes may be stored.

        """
        last = {
            (effect.kind, effect.key): effect.value
            for effect in effects
            if isinstance(effect, Store)
        }
        await asyncio.gather(
            *(self._write(kind, key, value) for (kind, key), value in last.items())
        )

    async def framework_id(self) -> str | None:
        """The stored framework id, or None."""
        node = await self._zk.get(f"{self._root}/framework_id")
        return node[0].decode() or None if node else None

    async def store_framework_id(self, framework_id: str | None) -> None:
        """Store the framework id; None deletes it."""
        if framework_id is None:
            await self._zk.delete(f"{self._root}/framework_id")
        else:
            await self._zk.put(f"{self._root}/framework_id", framework_id.encode())

    async def _write(self, kind: Kind, key: str, value: App | Instance | Deployment | None) -> None:
        path = f"{self._root}/{kind}/{quote(key, safe='')}"
        if value is None:
            await self._zk.delete(path)
        else:
            await self._zk.put(path, _encode(value))

    async def _all(self, kind: Kind, struct: type[Value]) -> list[Value]:
        names = await self._zk.children(f"{self._root}/{kind}")
        nodes = await asyncio.gather(
            *(self._zk.get(f"{self._root}/{kind}/{name}") for name in names)
        )
        return [msgspec.json.decode(node[0], type=struct) for node in nodes if node is not None]
