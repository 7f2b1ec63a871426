"""The state in ZooKeeper: one node an app, an instance and a deployment, and one for the framework id."""

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
    """Reads all, writes what changed. Only the leader may write."""

    def __init__(self, zk: ZooKeeper, root: str) -> None:
        self._zk = zk
        self._root = root

    async def load(self) -> State:
        """Everything that was stored.

        Raises:
            ZooKeeperUnavailable: no answer.
            msgspec.ValidationError: a node holds something else; it is not overwritten.

        """
        apps = await self._all("apps", App)
        instances = await self._all("instances", Instance)
        deployments = await self._all("deployments", Deployment)
        return State.of(apps, instances, deployments)

    async def apply(self, effects: Sequence[Effect]) -> None:
        """Carry out the `Store` effects; the last one of each key counts. Returns when ZooKeeper has them all."""
        last = {
            (effect.kind, effect.key): effect.value
            for effect in effects
            if isinstance(effect, Store)
        }
        await asyncio.gather(
            *(self._write(kind, key, value) for (kind, key), value in last.items())
        )

    async def framework_id(self) -> str | None:
        found = await self._zk.get(f"{self._root}/framework_id")
        return found[0].decode() or None if found else None

    async def keep_framework_id(self, framework_id: str | None) -> None:
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

    async def _all(self, kind: Kind, form: type[Value]) -> list[Value]:
        names = await self._zk.children(f"{self._root}/{kind}")
        found = await asyncio.gather(
            *(self._zk.get(f"{self._root}/{kind}/{name}") for name in names)
        )
        return [msgspec.json.decode(item[0], type=form) for item in found if item is not None]
