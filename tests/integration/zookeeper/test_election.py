"""Who leads, and that never two do, against a real server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from harness.zookeeper import ZooKeeperServer
from mesaform.zookeeper import election
from mesaform.zookeeper.election import Candidate, contenders, watch_leader
from mesaform.zookeeper.session import ZooKeeper

pytestmark = pytest.mark.zookeeper


class Contender:
    """A candidate that notes when it leads."""

    def __init__(self, zk, root, name):
        self.zk, self.name = zk, name
        self.candidate = Candidate(zk, root, name.encode())
        self.elected, self.deposed = asyncio.Event(), asyncio.Event()
        self.epochs: list[int] = []
        self.task = asyncio.create_task(self.candidate.run(self._lead))

    async def _lead(self, epoch):
        self.epochs.append(epoch)
        self.elected.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.deposed.set()

    async def leave(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def sessions(hosts, count, timeout_s=4.0):
    opened = [ZooKeeper(hosts, session_timeout_s=timeout_s) for _ in range(count)]
    for session in opened:
        await session.start()
    try:
        yield opened
    finally:
        for session in opened:
            await session.stop()


async def soon(event):
    await asyncio.wait_for(event.wait(), 60)


async def test_the_first_to_enter_leads_and_the_next_follows_when_it_leaves(
    zookeeper_hosts, zookeeper_root
):
    async with sessions(zookeeper_hosts, 2) as (item, two):
        first = Contender(item, zookeeper_root, "first")
        await soon(first.elected)
        second = Contender(two, zookeeper_root, "second")
        leaders = watch_leader(two, zookeeper_root)
        assert await anext(leaders) == b"first"
        assert not second.elected.is_set()
        await first.leave()
        await soon(second.elected)
        assert await anext(leaders) == b"second"
        assert second.epochs[0] > first.epochs[0]
        await second.leave()
        assert await anext(leaders) is None


async def test_a_leader_whose_node_is_deleted_steps_down_and_enters_again(
    zookeeper_hosts, zookeeper_root
):
    async with sessions(zookeeper_hosts, 2) as (item, two):
        first = Contender(item, zookeeper_root, "first")
        await soon(first.elected)
        first.elected.clear()
        (node,) = await two.children(zookeeper_root)
        await two.delete(f"{zookeeper_root}/{node}")
        await soon(first.deposed)
        await soon(first.elected)
        assert first.epochs[1] > first.epochs[0]
        await first.leave()


async def test_work_that_fails_ends_the_candidate_with_its_error(zookeeper_hosts, zookeeper_root):
    async def fail(_epoch):
        raise LookupError("broken")

    async with sessions(zookeeper_hosts, 1) as (item,):
        with pytest.raises(LookupError, match="broken"):
            await Candidate(item, zookeeper_root, b"x").run(fail)
        assert await item.children(zookeeper_root) == []


async def test_a_leader_cut_off_from_the_ensemble_steps_down_before_its_session_can_expire(
    tmp_path,
):
    server = ZooKeeperServer(tmp_path)
    server.start()
    try:
        async with sessions(server.hosts, 1, timeout_s=30.0) as (item,):
            first = Contender(item, "/e", "first")
            await soon(first.elected)
            server.kill()
            started = asyncio.get_running_loop().time()
            await soon(first.deposed)
            assert asyncio.get_running_loop().time() - started < item.session_timeout_s
            first.elected.clear()
            server.start()
            await soon(first.elected)
            await first.leave()
    finally:
        server.kill()


async def test_a_short_outage_changes_no_leader_for_candidates_and_watchers(tmp_path):
    server = ZooKeeperServer(tmp_path)
    server.start()
    try:
        # A server that starts may accept a connection and not answer. kazoo waits for the answer
        # for the session time-out divided by the number of hosts.
        hosts = ",".join([server.hosts] * 3)
        async with sessions(hosts, 2, timeout_s=60.0) as (item, two):
            first = Contender(item, "/e", "first")
            await soon(first.elected)
            leaders = watch_leader(two, "/e")
            assert await anext(leaders) == b"first"
            following = asyncio.ensure_future(anext(leaders))
            server.kill()
            while item.state == "connected":
                await item.wait_state_change()
            server.start()
            await item.wait_connected()
            await two.wait_connected()
            await two.put("/e/log_replicas", b"")  # a change below the path that is no contender
            assert not first.deposed.is_set()
            assert not following.done()
            await first.leave()
            assert await asyncio.wait_for(following, 60) is None
    finally:
        server.kill()


def test_only_nodes_of_the_prefix_contend_in_order_of_their_sequence():
    names = [
        "json.info_0000000012",
        "log_replicas",
        "info_0000000001",
        "json.info_0000000009",
        "json.info_x",
    ]
    assert contenders(names, "json.info_") == ["json.info_0000000009", "json.info_0000000012"]


async def test_waiting_for_a_change_keeps_a_bounded_number_of_watches(
    zookeeper_hosts, zookeeper_root, monkeypatch
):
    monkeypatch.setattr(election, "WATCH_TIMEOUT_S", 0.0)
    reads = 0

    class Counting(ZooKeeper):
        async def children(self, path, watch=None):
            nonlocal reads
            reads += 1
            if reads >= 100:
                enough.set()
            return await super().children(path, watch)

    zk = Counting(zookeeper_hosts)
    await zk.start()
    try:
        for path in (f"{zookeeper_root}/absent", zookeeper_root):
            enough, reads = asyncio.Event(), 0
            following = asyncio.create_task(_follow(zk, path))
            await soon(enough)
            assert zk.watch_count(path) == 1
            following.cancel()
        item = Contender(zk, zookeeper_root, "first")
        await soon(item.elected)
        second = Contender(zk, zookeeper_root, "second")
        enough, reads = asyncio.Event(), 0
        await soon(enough)
        assert zk.watch_count(zookeeper_root) <= 3, "one each: follower, leader, candidate"
        await second.leave()
        await item.leave()
    finally:
        await zk.stop()


async def _follow(zk, path):
    async for _ in watch_leader(zk, path):
        pass
