"""The durable set of agents, which a deposed leader cannot write."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec
import pytest

from mesaform.common.errors import LeadershipLost
from mesaform.common.records import Problem, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.engine.master.registry_store import (
    AGENT_KIND,
    COMPRESS_ABOVE_BYTES,
    MAX_BYTES,
    REGISTRY,
    REGISTRY_KIND,
    RegistryEncoder,
    RegistryStore,
    decode_agents,
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
from mesaform.mesos.messages import AgentInfo, Attribute, Text
from mesaform.zookeeper.session import ZooKeeper
from mesaform.zookeeper.set_aside import SetAsideNodes

INFO = AgentInfo(hostname="h")
FIXTURES = Path(__file__).with_name("fixtures")


def decoded(data: bytes) -> Registry:
    stored = REGISTRY.decode(data)
    assert not isinstance(stored, Unreadable)
    agents, unreadable = decode_agents(stored)
    assert unreadable == {}
    return Registry(stored.epoch, agents)


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
    data = RegistryEncoder().encode(registry)
    assert len(data) < COMPRESS_ABOVE_BYTES
    assert decoded(data) == registry
    assert decoded(RegistryEncoder().encode(Registry(1))) == Registry(1)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_registry_from_before_schemas_is_read(is_compressed):
    data = (FIXTURES / "registry-v0.json").read_bytes()
    registry = decoded(zlib.compress(data, 6) if is_compressed else data)
    assert registry.epoch == 7
    assert {agent_id: record.state for agent_id, record in registry.agents.items()} == {
        "11b9c1f4-6b2f-4bd9-a5c1-6f1c5b1cf0aa-S0": "admitted",
        "11b9c1f4-6b2f-4bd9-a5c1-6f1c5b1cf0aa-S1": "unreachable",
        "11b9c1f4-6b2f-4bd9-a5c1-6f1c5b1cf0aa-S2": "gone",
    }
    drained = registry.agents["11b9c1f4-6b2f-4bd9-a5c1-6f1c5b1cf0aa-S0"].drain
    assert drained is not None
    assert (drained.state, drained.max_grace_s) == ("DRAINED", 30.0)
    assert decoded(RegistryEncoder().encode(registry)) == registry


def test_an_agent_of_a_newer_version_is_unreadable_and_the_others_are_read():
    good = RegistryEncoder().encode(Registry(1).apply(Admit("good", INFO, 1.0)))
    document = msgspec.json.decode(good)
    document["agents"]["newer"] = document["agents"]["good"] | {"schema": "engine.agent/9"}
    document["agents"]["null"] = None
    document["agents"]["../x"] = document["agents"]["good"]
    stored = REGISTRY.decode(msgspec.json.encode(document))
    assert not isinstance(stored, Unreadable)
    agents, unreadable = decode_agents(stored)
    assert set(agents) == {"good"}
    assert {name: problem.problem for name, problem in unreadable.items()} == {
        "newer": Problem.NEWER,
        "null": Problem.UNREADABLE,
        "../x": Problem.UNREADABLE,
    }


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
    first, second = (RegistryStore(zk, zookeeper_root) for zk in sessions)
    assert await first.open(1, 0.0) == Registry(1)
    await first.write(Admit("a", INFO, 1.0), MarkGone("a", 2.0))
    assert (await second.open(2, 3.0)).agents["a"].state == "gone"


@pytest.mark.zookeeper
async def test_a_deposed_leader_cannot_write(sessions, zookeeper_root):
    first, second = (RegistryStore(zk, zookeeper_root) for zk in sessions)
    await first.open(1, 0.0)
    await second.open(2, 0.0)
    with pytest.raises(LeadershipLost):
        await first.write(Admit("a", INFO, 1.0))
    await second.write(Admit("b", INFO, 1.0))
    assert set(second.value.agents) == {"b"}


@pytest.mark.zookeeper
async def test_an_earlier_epoch_cannot_open_after_a_later_one(sessions, zookeeper_root):
    first, second = (RegistryStore(zk, zookeeper_root) for zk in sessions)
    await second.open(2, 0.0)
    with pytest.raises(LeadershipLost):
        await first.open(1, 0.0)


POISONED = {
    "an amount that JSON cannot hold (C1)": b'{"epoch":1,"agents":{"bad":{"info":{"hostname":"h",'
    b'"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":null}}]}},'
    b'"good":{"info":{"hostname":"h"}}}}',
    "an amount beyond fixed point": b'{"epoch":1,"agents":{"bad":{"info":{"hostname":"h",'
    b'"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1e308}}]}},'
    b'"good":{"info":{"hostname":"h"}}}}',
    "an id that is no folder": b'{"epoch":1,"agents":{"../bad":{"info":{"hostname":"h"}},'
    b'"good":{"info":{"hostname":"h"}}}}',
}


@pytest.mark.zookeeper
@pytest.mark.parametrize("poison", POISONED)
async def test_an_agent_that_cannot_be_read_is_set_aside_and_the_others_stay(
    sessions, zookeeper_root, poison
):
    zk = sessions[0]
    await zk.put(f"{zookeeper_root}/registry", POISONED[poison])
    log = SetAsideLog()
    registry = await RegistryStore(zk, zookeeper_root, log).open(2, 0.0)
    assert set(registry.agents) == {"good"}
    assert log.counts == {AGENT_KIND: 1}
    [entry] = await SetAsideNodes(zk, zookeeper_root).all()
    assert entry.kind == AGENT_KIND
    content = await SetAsideNodes(zk, zookeeper_root).content(entry.kind, entry.name)
    assert content in POISONED[poison]
    again = SetAsideLog()
    assert set((await RegistryStore(sessions[1], zookeeper_root, again).open(3, 0.0)).agents) == {
        "good"
    }
    assert not again.counts


@pytest.mark.zookeeper
@pytest.mark.parametrize("data", [b"null", b"", b"garbage", b"[1]", b'{"schema":"x/9"}'])
async def test_a_registry_that_cannot_be_read_is_set_aside_and_an_empty_one_begins(
    sessions, zookeeper_root, data
):
    zk = sessions[0]
    await zk.put(f"{zookeeper_root}/registry", data)
    log = SetAsideLog()
    store = RegistryStore(zk, zookeeper_root, log)
    assert await store.open(2, 0.0) == Registry(2)
    await store.write(Admit("a", INFO, 1.0))
    assert log.counts == {REGISTRY_KIND: 1}
    assert await SetAsideNodes(zk, zookeeper_root).content(REGISTRY_KIND, "registry") == data


@pytest.mark.zookeeper
async def test_an_agent_for_which_the_registry_has_no_place_is_refused_and_the_term_goes_on(
    sessions, zookeeper_root
):
    store = RegistryStore(sessions[0], zookeeper_root)
    await store.open(1, 0.0)
    size = MAX_BYTES // 2 + 1
    texts = [Text(value=os.urandom(size // 2).hex()) for _ in range(8)]
    large = [
        AgentInfo(hostname="h", attributes=[Attribute(name="a", type="TEXT", text=text)])
        for text in texts
    ]
    assert await store.write(Admit("a", INFO, 1.0)) == [None]
    refusals = await store.write(
        *(Admit(f"large{number}", info, 1.0) for number, info in enumerate(large)),
        MarkUnreachable("a", 2.0),
    )
    assert refusals[0] is None
    assert refusals[-1] is None
    assert any(refusal is not None for refusal in refusals)
    assert store.value.agents["a"].state == "unreachable"
    after = await RegistryStore(sessions[1], zookeeper_root).open(2, 3.0)
    assert "a" in after.agents
