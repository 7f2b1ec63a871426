"""The state in ZooKeeper: one node per app, instance and deployment, and one for the framework id.

Nodes hold records of the structs in `model` (`common.records`), below `<root>/apps`,
`<root>/instances` and `<root>/deployments`; names are URL-quoted keys. A record that cannot be read
is set aside below `<root>/set-aside`, and everything else is loaded:

- An app: its instances run on and are left alone until its record is restored or replaced.
- An instance: one rebuilt from its task id takes its place in the same transaction, so that no
  crash leaves a task without a record. Reconciliation tells its state.
- A deployment: its apps settle without it.
- The framework id: the master is asked for it (`framework_lookup`), also by a later leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, unquote

from mesaform.common.records import Codec, Problem, RecordRefused, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.services.effects import Effect, Kind, Store
from mesaform.services.launch import app_id_of
from mesaform.services.model import App, Deployment, Instance
from mesaform.services.records import (
    APP,
    DEPLOYMENT,
    FRAMEWORK_ID,
    INSTANCE,
    Record,
    encode,
)
from mesaform.services.state import State
from mesaform.zookeeper.session import ZooKeeper
from mesaform.zookeeper.set_aside import RecordNodes, SetAsideNodes, key_of

FRAMEWORK_ID_KIND = "framework-id"
PLAIN_FRAMEWORK_ID = re.compile(rb"[A-Za-z0-9._-]{1,255}")
"""A framework id as stored up to commit 5698494."""

KINDS: tuple[Kind, ...] = ("apps", "instances", "deployments")
Value = TypeVar("Value", App, Instance, Deployment)


class StateStore:
    """Reads everything and writes changes. Only the leader may use it.

    `refused` receives each change that cannot be stored as a record: a defect, since changes are
    checked before they are made. The other changes are stored.
    """

    def __init__(
        self,
        zk: ZooKeeper,
        root: str,
        log: SetAsideLog,
        refused: Callable[[Store, RecordRefused], None] = lambda _store, _error: None,
    ) -> None:
        self._zk = zk
        self._root = root
        self._records = RecordNodes(zk, root, log)
        self._refused = refused
        self._set_aside = SetAsideNodes(zk, root)

    async def load(self, now: float) -> State:
        """The stored state, without the records that were set aside.

        Raises:
            ZooKeeperUnavailable: no answer.

        """
        apps, _ = await self._all("apps", APP, lambda app: app.id)

        rebuilt: dict[str, Instance] = {}

        def replacement(name: str) -> bytes | None:
            """The record of an instance that is rebuilt from its task id, if that names an app."""
            task_id = unquote(name)
            app_id = app_id_of(task_id)
            if not app_id:
                return None
            instance = rebuilt_instance(task_id, apps.get(app_id), now)
            with contextlib.suppress(RecordRefused):
                data = encode(instance)
                rebuilt[task_id] = instance
                return data
            return None

        instances, lost = await self._all(
            "instances", INSTANCE, lambda item: item.task_id, replacement
        )
        deployments, _ = await self._all("deployments", DEPLOYMENT, lambda item: item.id)
        state = State.of(apps.values(), instances.values(), deployments.values())
        state.set_aside_apps = frozenset(
            key_of(entry) for entry in (await self._records.names("apps")).values()
        )
        for task_id in rebuilt.keys() & set(lost):
            state.put_instance(rebuilt[task_id])
        state.take_effects()
        return state

    async def apply(self, effects: Sequence[Effect]) -> None:
        """Carry out the `Store` effects, the last one of each key; return once all are stored.

        Raises:
            ZooKeeperUnavailable: no answer; some changes may be stored.

        """
        last = {
            (effect.kind, effect.key): effect for effect in effects if isinstance(effect, Store)
        }
        await asyncio.gather(*(self._carry_out(effect) for effect in last.values()))

    async def framework_id(self) -> str | Unreadable | None:
        """The stored framework id; None without one."""
        node = await self._zk.get(self._framework_id_path)
        if node is None:
            return await self._lost_framework_id()
        if not node[0]:
            return None
        if PLAIN_FRAMEWORK_ID.fullmatch(node[0]):
            return node[0].decode()
        record = await self._records.read(FRAMEWORK_ID_KIND, self._framework_id_path, FRAMEWORK_ID)
        return record if record is None or isinstance(record, Unreadable) else record.value

    async def _lost_framework_id(self) -> Unreadable | None:
        """Why the id is not known, if an earlier leader set its record aside."""
        entries = [
            entry for entry in await self._set_aside.all() if entry.kind == FRAMEWORK_ID_KIND
        ]
        if not entries:
            return None
        return Unreadable(FRAMEWORK_ID.schema, entries[-1].problem, entries[-1].detail)

    async def store_framework_id(self, framework_id: str | None) -> None:
        """Store the framework id; None deletes it."""
        if framework_id is None:
            await self._zk.delete(self._framework_id_path)
        else:
            await self._zk.put(self._framework_id_path, FRAMEWORK_ID.encode(framework_id))

    async def set_aside(self, watch: Callable[[], None] | None = None) -> frozenset[str]:
        """The entries of records that were set aside; `watch` is called once at a change."""
        entries = set()
        for kind in KINDS:
            folder = f"{self._set_aside.folder}/{kind}"
            entries |= {f"{kind}/{name}" for name in await self._zk.children(folder, watch)}
        return frozenset(entries)

    @property
    def _framework_id_path(self) -> str:
        return f"{self._root}/framework_id"

    async def _carry_out(self, effect: Store) -> None:
        try:
            await self._write(effect.kind, effect.key, effect.value)
        except RecordRefused as error:
            self._refused(effect, error)

    async def _write(self, kind: Kind, key: str, value: Record | None) -> None:
        path = f"{self._root}/{kind}/{quote(key, safe='')}"
        if value is None:
            await self._zk.delete(path)
        else:
            await self._zk.put(path, encode(value))

    async def _all(
        self,
        kind: Kind,
        codec: Codec[Value],
        key: Callable[[Value], str],
        replacement: Callable[[str], bytes | None] = lambda _name: None,
    ) -> tuple[dict[str, Value], list[str]]:
        """The records of a kind by key, and the keys of those that were set aside now.

        `replacement` returns what takes the place of an unreadable record, by its node's name.
        """
        folder = f"{self._root}/{kind}"
        readable, unreadable = await self._records.read_all(kind, folder, codec, replacement)
        lost = [unquote(name) for name in unreadable]
        values: dict[str, Value] = {}
        for name, value in readable.items():
            if key(value) == unquote(name):
                values[key(value)] = value
                continue
            problem = Unreadable(
                codec.schema, Problem.UNREADABLE, f"the record is of {key(value)[:200]!r}"
            )
            await self._records.set_aside(kind, f"{folder}/{name}", problem, replacement(name))
            lost.append(unquote(name))
        return values, lost


def rebuilt_instance(task_id: str, app: App | None, now: float) -> Instance:
    """The instance of a task whose record was set aside, as far as the task's id tells.

    It counts as one of the present configuration, so that it is not replaced. Agent and state come
    with the reconciliation.
    """
    return Instance(
        task_id=task_id,
        app_id=app_id_of(task_id),
        version=app.version if app else "",
        config_version=app.config_version if app else "",
        agent_id="",
        host="",
        staged_at=now,
    )
