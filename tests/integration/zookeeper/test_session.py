"""What a ZooKeeper session promises, against a real server."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from harness.zookeeper import ZooKeeperServer
from mesaform.common.errors import BadInput
from mesaform.zookeeper.session import (
    VersionConflict,
    ZooKeeper,
    ZooKeeperUnavailable,
    split_zk_url,
)

pytestmark = pytest.mark.zookeeper


@pytest.fixture
async def zk(zookeeper_hosts):
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


async def test_put_data_is_read_with_its_version(zk, zookeeper_root):
    path = f"{zookeeper_root}/a/b"
    assert await zk.get(path) is None
    assert await zk.put(path, b"one") == 0
    assert await zk.get(path) == (b"one", 0)
    assert await zk.put(path, b"two", version=0) == 1


async def test_a_write_over_another_version_is_refused(zk, zookeeper_root):
    path = f"{zookeeper_root}/a"
    await zk.put(path, b"one")
    await zk.put(path, b"two")
    with pytest.raises(VersionConflict):
        await zk.put(path, b"mine", version=0)
    assert await zk.get(path) == (b"two", 1)


async def test_a_versioned_write_does_not_create_a_deleted_node(zk, zookeeper_root):
    path = f"{zookeeper_root}/a"
    await zk.put(path, b"one")
    await zk.delete(path)
    with pytest.raises(VersionConflict):
        await zk.put(path, b"mine", version=0)
    assert await zk.get(path) is None


async def test_create_rejects_an_existing_node(zk, zookeeper_root):
    await zk.create(f"{zookeeper_root}/x", b"1")
    with pytest.raises(VersionConflict):
        await zk.create(f"{zookeeper_root}/x", b"2")


async def test_children_and_delete_of_an_absent_node_are_no_errors(zk, zookeeper_root):
    assert await zk.children(f"{zookeeper_root}/none") == []
    await zk.delete(f"{zookeeper_root}/none")


async def test_ephemeral_nodes_end_with_their_session(zk, zookeeper_hosts, zookeeper_root):
    other = ZooKeeper(zookeeper_hosts)
    await other.start()
    path = await other.create_sequential(f"{zookeeper_root}/member_", b"me")
    assert await zk.owner(path) == other.session_id
    await other.stop()
    assert await zk.get(path) is None


async def test_a_watch_fires_once_at_the_next_change(zk, zookeeper_root):
    changed = asyncio.Event()
    await zk.ensure(zookeeper_root)
    assert await zk.children(zookeeper_root, changed.set) == []
    await zk.put(f"{zookeeper_root}/a", b"")
    await asyncio.wait_for(changed.wait(), 60)


async def test_an_ensemble_that_does_not_answer_is_a_named_error():
    session = ZooKeeper("127.99.0.2:1")
    with pytest.raises(ZooKeeperUnavailable, match=r"127\.99\.0\.2:1"):
        await session.start(timeout_s=0.5)


@pytest.mark.slow
async def test_a_session_begins_again_soon_after_the_ensemble_lost_its_data(tmp_path):
    """M7: the emptied servers refused the transaction number that the client had seen."""
    server = ZooKeeperServer(tmp_path / "zk", address="127.99.0.7")
    server.start()
    session = ZooKeeper(server.hosts, session_timeout_s=2.0)
    try:
        await session.start()
        for number in range(20):
            await session.put("/a/b", str(number).encode())
        before = session.session_id
        server.kill()
        shutil.rmtree(tmp_path / "zk" / "data")
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(60):
            while session.session_id in {0, before} or session.state != "connected":
                await session.wait_state_change()
        assert await session.get("/a/b") is None
        await session.put("/a/b", b"new")
        assert await session.get("/a/b") == (b"new", 0)
    finally:
        await session.stop()
        server.kill()


@pytest.mark.parametrize("url", ["127.0.0.1:2181/mesos", "zk://h:1", "zk://h:1/", "http://h/p", ""])
def test_a_url_of_another_form_is_refused(url):
    with pytest.raises(BadInput):
        split_zk_url(url)


def test_a_url_is_split_and_its_credentials_are_dropped():
    assert split_zk_url("zk://a:1,b:2/mesos/x/") == ("a:1,b:2", "/mesos/x")
    assert split_zk_url("zk://user:secret@a:1/mesos") == ("a:1", "/mesos")
