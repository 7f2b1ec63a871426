"""The durable set of agents, which a deposed leader cannot write."""

from __future__ import annotations

import pytest

from mesaform.common.errors import LeadershipLost
from mesaform.engine.master.registry_store import (
    COMPRESS_ABOVE_BYTES,
    RegistryStore,
    decode,
    encode,
)
from mesaform.engine.registry import (
    Admit,
    MarkDrained,
    MarkGone,
    MarkUnreachable,
    Registry,
    Remove,
    SetDeactivated,
    StartDrain,
)
from mesaform.mesos.messages import AgentInfo
from mesaform.zookeeper.session import ZooKeeper

INFO = AgentInfo(hostname="h")


def test_changes_are_idempotent_and_in_order():
    registry = Registry().apply(
        Admit("a", INFO, 1.0), SetDeactivated("a", deactivated=True), StartDrain("a", 2.0, 3.0)
    )
    record = registry.agents["a"]
    assert record.drain is not None
    assert record.deactivated
    assert record.drain is not None
    assert (record.drain.state, record.drain.max_grace_s) == ("DRAINING", 3.0)
    assert registry.apply(MarkDrained("a")) == registry.apply(MarkDrained("a"), MarkDrained("a"))
    drained = registry.apply(MarkDrained("a")).agents["a"].drain
    assert drained is not None
    assert drained.state == "DRAINED"


def test_an_agent_that_comes_back_keeps_its_drain_and_deactivation():
    registry = Registry().apply(
        Admit("a", INFO, 1.0),
        StartDrain("a", 2.0),
        MarkUnreachable("a", 3.0),
        Admit("a", INFO, 4.0),
    )
    assert registry.agents["a"].state == "admitted"
    assert registry.agents["a"].drain is not None


def test_reactivation_ends_the_drain():
    registry = Registry().apply(
        Admit("a", INFO, 1.0),
        StartDrain("a", 2.0),
        MarkDrained("a"),
        SetDeactivated("a", deactivated=False),
    )
    assert registry.agents["a"].drain is None
    assert not registry.agents["a"].deactivated


def test_changes_of_unknown_agents_do_nothing():
    assert Registry().apply(MarkGone("a", 1.0), Remove("b"), StartDrain("c", 1.0)) == Registry()


def test_gone_and_unreachable_agents_are_forgotten_after_two_weeks():
    day = 86400.0
    registry = Registry().apply(
        Admit("a", INFO, 0.0),
        Admit("b", INFO, 0.0),
        Admit("c", INFO, 0.0),
        MarkGone("b", 0.0),
        MarkUnreachable("c", 10 * day),
    )
    assert set(registry.pruned(15 * day).agents) == {"a", "c"}


def test_a_large_registry_is_stored_small():
    registry = Registry(3).apply(*(Admit(f"agent-{number}", INFO, 1.0) for number in range(8000)))
    data = encode(registry)
    assert len(data) < COMPRESS_ABOVE_BYTES
    assert decode(data) == registry
    assert decode(encode(Registry(1))) == Registry(1)


@pytest.fixture
async def sessions(zookeeper_hosts):
    opened = [ZooKeeper(zookeeper_hosts), ZooKeeper(zookeeper_hosts)]
    for session in opened:
        await session.start()
    yield opened
    for session in opened:
        await session.stop()


@pytest.mark.zookeeper
async def test_what_one_leader_wrote_the_next_one_reads(sessions, zookeeper_root):
    first, second = (RegistryStore(zk, f"{zookeeper_root}/registry") for zk in sessions)
    assert await first.open(1, 0.0) == Registry(1)
    await first.write(Admit("a", INFO, 1.0), MarkGone("a", 2.0))
    assert (await second.open(2, 3.0)).agents["a"].state == "gone"


@pytest.mark.zookeeper
async def test_a_deposed_leader_cannot_write(sessions, zookeeper_root):
    first, second = (RegistryStore(zk, f"{zookeeper_root}/registry") for zk in sessions)
    await first.open(1, 0.0)
    await second.open(2, 0.0)
    with pytest.raises(LeadershipLost):
        await first.write(Admit("a", INFO, 1.0))
    await second.write(Admit("b", INFO, 1.0))
    assert set(second.value.agents) == {"b"}


@pytest.mark.zookeeper
async def test_an_earlier_epoch_cannot_open_after_a_later_one(sessions, zookeeper_root):
    first, second = (RegistryStore(zk, f"{zookeeper_root}/registry") for zk in sessions)
    await second.open(2, 0.0)
    with pytest.raises(LeadershipLost):
        await first.open(1, 0.0)
