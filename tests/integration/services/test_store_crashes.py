"""A leader that is killed at any step of reading the state loses no task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from mesaform.common.records import Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.services.records import encode
from mesaform.services.store import StateStore, rebuilt_instance
from mesaform.zookeeper.session import ZooKeeper
from mesaform.zookeeper.set_aside import SetAsideNodes

pytestmark = pytest.mark.zookeeper
TASKS = ("web.instance-1", "web.instance-2")


class Killed(Exception):
    """The process was killed."""


class KilledZooKeeper(ZooKeeper):
    """A session of a process that is killed after so many calls; the last one is carried out."""

    calls_left = 1_000

    async def _call(self, function: Any, *args: Any, absent: Any = ..., **kwargs: Any) -> Any:
        if self.calls_left <= 0:
            raise Killed
        self.calls_left -= 1
        return await super()._call(function, *args, absent=absent, **kwargs)


@pytest.fixture
async def killed(zookeeper_hosts: str) -> AsyncIterator[KilledZooKeeper]:
    session = KilledZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


@pytest.fixture
async def zk(zookeeper_hosts: str) -> AsyncIterator[ZooKeeper]:
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


async def is_killed(killed: KilledZooKeeper, after: int, work: Any) -> bool:
    """Whether the work was ended by the kill after so many calls."""
    killed.calls_left = after
    try:
        await work
    except Killed:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)  # they are killed, too
        return True
    finally:
        killed.calls_left = 1_000
    return False


async def test_tasks_whose_records_cannot_be_read_are_known_after_a_kill_at_any_step(
    killed: KilledZooKeeper, zk: ZooKeeper, zookeeper_root: str
):
    calls = 0
    while True:
        root = f"{zookeeper_root}/{calls}"
        for task in TASKS:
            await zk.put(f"{root}/instances/{quote(task, safe='')}", b"garbage")
        first = StateStore(killed, root, SetAsideLog())
        was_killed = await is_killed(killed, calls, first.load(5.0))
        state = await StateStore(zk, root, SetAsideLog()).load(9.0)
        assert sorted(state.instances) == list(TASKS), f"killed after {calls} calls"
        entries = await SetAsideNodes(zk, root).all()
        assert sorted(entry.name for entry in entries) == list(TASKS), "each record once"
        if not was_killed:
            break
        calls += 1
    assert calls > 10


async def test_the_framework_is_looked_up_after_a_kill_at_any_step(
    killed: KilledZooKeeper, zk: ZooKeeper, zookeeper_root: str
):
    calls = 0
    while True:
        root = f"{zookeeper_root}/{calls}"
        await zk.put(f"{root}/framework_id", b"\x00garbage")
        was_killed = await is_killed(
            killed, calls, StateStore(killed, root, SetAsideLog()).framework_id()
        )
        second = StateStore(zk, root, SetAsideLog())
        assert isinstance(await second.framework_id(), Unreadable), f"killed after {calls} calls"
        await second.store_framework_id("F-1")
        assert await second.framework_id() == "F-1"
        if not was_killed:
            break
        calls += 1
    assert calls > 5


async def test_a_record_under_the_name_of_another_task_is_replaced_at_once(
    zk: ZooKeeper, zookeeper_root: str
):
    store = StateStore(zk, zookeeper_root, SetAsideLog())
    other = rebuilt_instance("web.instance-9", None, 1.0)
    await zk.put(f"{zookeeper_root}/instances/{TASKS[0]}", encode(other))
    assert list((await store.load(5.0)).instances) == [TASKS[0]]
    assert list((await store.load(6.0)).instances) == [TASKS[0]]
