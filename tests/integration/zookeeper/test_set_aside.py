"""Records in a real ZooKeeper: unreadable ones are kept elsewhere, and all others are read."""

from __future__ import annotations

import os

import msgspec
import pytest

from mesaform.common.errors import BadInput, Busy, NotFound
from mesaform.common.records import Codec, Problem, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.zookeeper.access import Credentials
from mesaform.zookeeper.session import (
    CreateNode,
    DeleteNode,
    NodeNotEmpty,
    VersionConflict,
    WriteNode,
    ZooKeeper,
    ZooKeeperRefused,
    ZooKeeperUnavailable,
)
from mesaform.zookeeper.set_aside import ATTEMPTS, RecordNodes, SetAsideNodes, Stored

pytestmark = pytest.mark.zookeeper

KIND = "apps"


class App(msgspec.Struct):
    cpus: float


CODEC = Codec("test.app", App)
LARGEST = 1_048_400  # what one request of ZooKeeper holds beside the path
UNREADABLE = {
    "garbage": (b"garbage", Problem.UNREADABLE),
    "nothing": (b"", Problem.UNREADABLE),
    "null": (b"null", Problem.UNREADABLE),
    "a newer version": (b'{"schema":"test.app/7","cpu":{}}', Problem.NEWER),
    "as large as a node can be": (os.urandom(LARGEST), Problem.TOO_LARGE),
}


@pytest.fixture
async def zk(zookeeper_hosts):
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


async def read_all(zk, root, log):
    return await RecordNodes(zk, root, log, lambda: 5.0).read_all(KIND, f"{root}/apps", CODEC)


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_record_that_cannot_be_read_moves_aside_and_the_others_are_read(
    zk, zookeeper_root, name
):
    data, problem = UNREADABLE[name]
    await zk.put(f"{zookeeper_root}/apps/bad", data)
    await zk.put(f"{zookeeper_root}/apps/good", CODEC.encode(App(1.0)))
    log = SetAsideLog()
    readable, unreadable = await read_all(zk, zookeeper_root, log)
    assert readable == {"good": App(1.0)}
    assert unreadable["bad"].problem is problem
    assert log.counts == {KIND: 1}
    assert await zk.children(f"{zookeeper_root}/apps") == ["good"]
    nodes = SetAsideNodes(zk, zookeeper_root)
    [entry] = await nodes.all()
    assert (entry.id, entry.problem, entry.size_bytes, entry.at) == (
        "apps/bad",
        problem,
        len(data),
        5.0,
    )
    assert await nodes.content(KIND, "bad") == data
    assert await read_all(zk, zookeeper_root, log) == ({"good": App(1.0)}, {})
    assert log.counts == {KIND: 1}


async def test_records_of_one_name_are_all_kept(zk, zookeeper_root):
    for data in (b"first", b"second"):
        await zk.put(f"{zookeeper_root}/apps/web", data)
        await read_all(zk, zookeeper_root, SetAsideLog())
    nodes = SetAsideNodes(zk, zookeeper_root)
    assert [entry.id for entry in await nodes.all()] == ["apps/web", "apps/web~2"]
    assert await nodes.content(KIND, "web") == b"first"
    assert await nodes.content(KIND, "web~2") == b"second"


async def test_a_record_is_put_back_unless_a_new_one_has_its_name(zk, zookeeper_root):
    path = f"{zookeeper_root}/apps/web"
    await zk.put(path, b'{"schema":"test.app/2"}')
    await read_all(zk, zookeeper_root, SetAsideLog())
    nodes = SetAsideNodes(zk, zookeeper_root)
    await zk.put(path, CODEC.encode(App(2.0)))
    with pytest.raises(Busy):
        await nodes.restore(KIND, "web")
    await zk.delete(path)
    await nodes.restore(KIND, "web")
    assert await zk.get(path) == (b'{"schema":"test.app/2"}', 0)
    assert await nodes.all() == []


async def test_a_record_is_removed_for_good(zk, zookeeper_root):
    await zk.put(f"{zookeeper_root}/apps/web", b"garbage")
    await read_all(zk, zookeeper_root, SetAsideLog())
    nodes = SetAsideNodes(zk, zookeeper_root)
    await nodes.remove(KIND, "web")
    assert await nodes.all() == []
    with pytest.raises(NotFound):
        await nodes.remove(KIND, "web")
    with pytest.raises(NotFound):
        await nodes.content(KIND, "web")


async def test_a_move_that_was_cut_short_is_done_again(zk, zookeeper_root):
    await zk.put(f"{zookeeper_root}/apps/web", b"garbage")
    await zk.put(f"{zookeeper_root}/set-aside/apps/web/7", b"a part of an earlier attempt")
    nodes = SetAsideNodes(zk, zookeeper_root)
    assert await nodes.all() == []
    await read_all(zk, zookeeper_root, SetAsideLog())
    assert [entry.id for entry in await nodes.all()] == ["apps/web"]
    assert await nodes.content(KIND, "web") == b"garbage"


async def test_a_record_that_another_client_repaired_is_read(zk, zookeeper_root):
    path = f"{zookeeper_root}/apps/web"
    await zk.put(path, b"garbage")
    records = RecordNodes(zk, zookeeper_root, SetAsideLog())
    await zk.put(path, CODEC.encode(App(2.0)))
    moved = await records._move(
        KIND, path, (b"garbage", 0), Unreadable("test.app", Problem.UNREADABLE, "garbage")
    )
    assert not moved
    assert await records.read(KIND, path, CODEC) == Stored(App(2.0), 1)


async def test_an_entry_that_cannot_be_read_is_listed_and_can_be_removed(zk, zookeeper_root):
    await zk.put(f"{zookeeper_root}/set-aside/apps/web", b"garbage")
    nodes = SetAsideNodes(zk, zookeeper_root)
    [entry] = await nodes.all()
    assert (entry.id, entry.place) == ("apps/web", "")
    with pytest.raises(BadInput):
        await nodes.restore(KIND, "web")
    await nodes.remove(KIND, "web")
    assert await nodes.all() == []


async def test_a_transaction_changes_all_or_nothing(zk, zookeeper_root):
    path = f"{zookeeper_root}/a"
    await zk.put(path, b"1")
    with pytest.raises(VersionConflict):
        await zk.transact([WriteNode(path, b"2"), DeleteNode(f"{path}/absent")])
    with pytest.raises(VersionConflict):
        await zk.transact([CreateNode(f"{path}/b", b""), DeleteNode(path, version=7)])
    assert await zk.get(path) == (b"1", 0)
    await zk.transact([CreateNode(f"{path}/b", b"3"), WriteNode(path, b"2", 0)])
    assert (await zk.get(path), await zk.get(f"{path}/b")) == ((b"2", 1), (b"3", 0))


async def test_a_record_with_nodes_below_it_is_set_aside_with_them(zk, zookeeper_root):
    await zk.put(f"{zookeeper_root}/apps/bad", b"garbage")
    await zk.put(f"{zookeeper_root}/apps/bad/child", b"one")
    await zk.put(f"{zookeeper_root}/apps/bad/child/grandchild", b"two")
    log = SetAsideLog()
    readable, unreadable = await read_all(zk, zookeeper_root, log)
    assert (readable, list(unreadable)) == ({}, ["bad"])
    assert await zk.children(f"{zookeeper_root}/apps") == []
    nodes = SetAsideNodes(zk, zookeeper_root)
    assert {entry.name: await nodes.content(KIND, entry.name) for entry in await nodes.all()} == {
        "bad": b"garbage",
        "child": b"one",
        "grandchild": b"two",
    }
    for name in ("bad", "child", "grandchild"):
        await nodes.restore(KIND, name)
    assert (await zk.get(f"{zookeeper_root}/apps/bad/child/grandchild"))[0] == b"two"


async def test_each_refusal_of_a_transaction_has_its_own_error(zk, zookeeper_root):
    path = f"{zookeeper_root}/a"
    await zk.put(f"{path}/child", b"")
    await zk.put(f"{zookeeper_root}/b", b"")
    first = WriteNode(f"{zookeeper_root}/b", b"x")
    with pytest.raises(NodeNotEmpty) as refused:
        await zk.transact([first, DeleteNode(path), first])
    assert refused.value.where == path
    with pytest.raises(VersionConflict, match="BadVersion"):
        await zk.transact([first, WriteNode(path, b"x", version=7)])
    with pytest.raises(VersionConflict, match="NoNode"):
        await zk.transact([first, DeleteNode(f"{zookeeper_root}/absent")])
    with pytest.raises(VersionConflict, match="NodeExists"):
        await zk.transact([first, CreateNode(path, b"")])
    assert (await zk.get(f"{zookeeper_root}/b"))[0] == b"", "all or nothing"


async def test_a_right_that_is_missing_is_no_conflict(zk, zookeeper_hosts, zookeeper_root):
    owner = ZooKeeper(zookeeper_hosts, credentials=Credentials("owner", "secret"))
    await owner.start()
    await owner.put(f"{zookeeper_root}/owned", b"garbage")
    try:
        with pytest.raises(ZooKeeperRefused, match="NoAuth"):
            await zk.transact([DeleteNode(f"{zookeeper_root}/owned")])
        with pytest.raises(ZooKeeperRefused, match="NoAuth"):
            await RecordNodes(zk, zookeeper_root, SetAsideLog()).read(
                KIND, f"{zookeeper_root}/owned", CODEC
            )
        assert await SetAsideNodes(zk, zookeeper_root).all() == []
        assert await zk.children(f"{zookeeper_root}/set-aside/{KIND}") == []
    finally:
        await owner.delete(f"{zookeeper_root}/owned")
        await owner.stop()


class Interrupted(ZooKeeper):
    """A session before whose transactions another client writes the record, so many times."""

    writes = 0

    async def transact(self, operations):
        if self.writes:
            self.writes -= 1
            await self.put(operations[-1].path, b"garbage")
        await super().transact(operations)


async def test_a_record_that_changes_all_the_time_is_read_a_bounded_number_of_times(
    zookeeper_hosts, zookeeper_root
):
    zk = Interrupted(zookeeper_hosts)
    await zk.start()
    try:
        path = f"{zookeeper_root}/apps/bad"
        await zk.put(path, b"garbage")
        zk.writes = ATTEMPTS
        with pytest.raises(ZooKeeperUnavailable, match=f"each of {ATTEMPTS} attempts"):
            await read_all(zk, zookeeper_root, SetAsideLog())
        assert zk.writes == 0
        zk.writes = ATTEMPTS - 1
        assert list((await read_all(zk, zookeeper_root, SetAsideLog()))[1]) == ["bad"]
        assert len(await SetAsideNodes(zk, zookeeper_root).all()) == 1
    finally:
        await zk.stop()
