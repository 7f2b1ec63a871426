"""A master that cannot do a leader's work gives the leadership up, and says why."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from kazoo.client import KazooClient
from kazoo.security import make_acl

from harness.master_process import Running, eventually, running
from mesaform.common.conditions import Condition, Conditions, Limit, Resigned
from mesaform.engine.allocator import Allocation, Allocator
from mesaform.engine.master.core import Master
from mesaform.engine.master.registry_store import RegistryStore
from mesaform.engine.master.state import Config, Ids
from mesaform.engine.master.term import Term
from mesaform.engine.registry import Registry
from mesaform.zookeeper.session import ZooKeeper

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]


async def test_a_master_that_cannot_write_the_registry_resigns_and_leads_once_it_can(
    zookeeper_hosts, zookeeper_url
):
    """Its node stays readable, and another client owns it for a while."""
    root = "/" + zookeeper_url.partition("://")[2].partition("/")[2]
    owner = KazooClient(hosts=zookeeper_hosts)
    await asyncio.to_thread(owner.start)
    try:
        read_only = [make_acl("world", "anyone", read=True, admin=True)]
        await asyncio.to_thread(owner.ensure_path, root)
        await asyncio.to_thread(owner.create, f"{root}/registry", b"{}", acl=read_only)
        async with running(zookeeper_url) as master:
            resignations = master.process.resignations
            await eventually(lambda: resignations.counts.get(Condition.ZOOKEEPER, 0) > 0)
            assert master.process.term is None
            metrics = master.process.metrics()
            assert metrics["mesaform/leader_resignations/zookeeper_writable"] >= 1
            assert "registry was not opened" in resignations.last
            writable = [make_acl("world", "anyone", all=True)]
            await asyncio.to_thread(owner.set_acls, f"{root}/registry", writable)
            await master.leading()
            assert (await state_of(master))["last_resignation"] == resignations.last
    finally:
        await asyncio.to_thread(owner.stop)
        await asyncio.to_thread(owner.close)


async def state_of(master: Running) -> dict[str, object]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{master.base}/state") as answer,
    ):
        state: dict[str, object] = (await answer.json())["mesaform"]
        return state


class BrokenAllocator(Allocator):
    """An allocator that never finds an offer."""

    def allocate(self, now: float) -> list[Allocation]:
        raise ArithmeticError(f"at {now}")


@pytest.mark.expects_unhandled_errors
async def test_a_leader_whose_passes_fail_one_after_another_resigns(
    zookeeper_hosts, zookeeper_root
):
    zk = ZooKeeper(zookeeper_hosts)
    await zk.start()
    try:
        store = RegistryStore(zk, zookeeper_root)
        await store.open(1, 0.0)
        config = Config(allocation_interval_s=0.01)
        core = Master({}, Ids("m"), Registry(1), BrokenAllocator(), config, now=0.0)
        clock = asyncio.get_running_loop().time
        conditions = Conditions((Condition.PASSES,), clock, {Condition.PASSES: Limit(5, 0.0)})
        term = Term(core, store, clock, conditions)
        with pytest.raises(Resigned) as resigned:
            await term.run()
        assert resigned.value.condition is Condition.PASSES
        assert term.faults["Tick"] == 5
        assert term.is_over
    finally:
        await zk.stop()


@pytest.mark.parametrize("data", [b"", b"garbage", b"null", b"[]", b"{}", b'{"pid": 7}', b"\xff"])
async def test_a_leaders_node_that_cannot_be_read_ends_no_master(
    zookeeper_hosts, zookeeper_url, data
):
    root = "/" + zookeeper_url.partition("://")[2].partition("/")[2]
    other = ZooKeeper(zookeeper_hosts)
    await other.start()
    try:
        await other.create_sequential(f"{root}/json.info_", data)
        async with standby(zookeeper_url) as master:
            await eventually(lambda: master.process.metrics()["master/elected"] == 0.0)
            await other.stop()
            await master.leading()
    finally:
        await other.stop()


@contextlib.asynccontextmanager
async def standby(zk_url: str) -> AsyncIterator[Running]:
    """A master that serves while a node that it cannot read leads."""
    master = Running(zk_url)
    running_task = asyncio.create_task(master.process.run())
    try:
        yield master
    finally:
        running_task.cancel()
        await asyncio.gather(running_task, return_exceptions=True)
