"""The journal on a real ZooKeeper."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mesaform.autoscaler.daemon.journal import Journal
from mesaform.autoscaler.model.planner_state import Backoff, BilledMachine, PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.aws.ports import LaunchRequest
from mesaform.common.errors import LeadershipLost
from mesaform.zookeeper.session import ZooKeeper
from tests.unit.autoscaler.builders import NOW, a_reason, a_snapshot

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]


@pytest.fixture
async def zk(zookeeper_hosts: str) -> AsyncIterator[ZooKeeper]:
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


def an_intent(token: str = "ms-1", at: float = NOW) -> Intent:
    return Intent(
        LaunchRequest("toy", "default", 2, a_snapshot().offerings["default"], token, {"a": "b"}),
        at,
        None,
        a_reason(),
    )


A_MEMORY = PlannerState(
    leader_since=NOW,
    idle_since={"i-1": NOW},
    removals={"i-1": Removal("S1", "draining", NOW, a_reason(), NOW)},
    history={"i-1": ("idle", "deactivated")},
    billed_machines={
        "i-1": BilledMachine(
            "m5.large", "us-east-1a", "spot", 0.03, "default", "autoscaler", "agent", NOW
        )
    },
    backoffs={"m5.large/us-east-1a/spot": Backoff(NOW, 2)},
)


async def test_what_one_term_wrote_the_next_term_reads(zk: ZooKeeper, zookeeper_root: str):
    first = Journal(zk, zookeeper_root, 1)
    assert await first.open() == (PlannerState(), [])
    await first.record(an_intent("ms-2", NOW + 1))
    await first.record(an_intent("ms-1", NOW))
    await first.save(A_MEMORY)
    memory, intents = await Journal(zk, zookeeper_root, 2).open()
    assert memory == A_MEMORY
    assert intents == [an_intent("ms-1", NOW), an_intent("ms-2", NOW + 1)]


async def test_an_answer_is_written_down_and_a_settled_launch_is_forgotten(
    zk: ZooKeeper, zookeeper_root: str
):
    journal = Journal(zk, zookeeper_root, 1)
    await journal.open()
    await journal.record(an_intent())
    await journal.bought(an_intent(), ("i-1", "i-2"))
    assert [intent.instance_ids for intent in await journal.intents()] == [("i-1", "i-2")]
    await journal.resolve("ms-1")
    assert await journal.intents() == []


@pytest.mark.parametrize("write", ["save", "record", "bought", "resolve"])
async def test_a_leader_that_was_deposed_cannot_write_anything(
    zk: ZooKeeper, zookeeper_root: str, write: str
):
    old, new = Journal(zk, zookeeper_root, 1), Journal(zk, zookeeper_root, 2)
    await old.open()
    await new.open()
    calls = {
        "save": lambda: old.save(PlannerState()),
        "record": lambda: old.record(an_intent()),
        "bought": lambda: old.bought(an_intent(), ("i-1",)),
        "resolve": lambda: old.resolve("ms-1"),
    }
    with pytest.raises(LeadershipLost):
        await calls[write]()
    assert await new.intents() == []


async def test_an_older_term_cannot_take_the_journal_back(zk: ZooKeeper, zookeeper_root: str):
    await Journal(zk, zookeeper_root, 7).open()
    with pytest.raises(LeadershipLost, match="term 7 leads"):
        await Journal(zk, zookeeper_root, 6).open()


async def test_memory_that_did_not_change_is_not_written_again(zk: ZooKeeper, zookeeper_root: str):
    journal = Journal(zk, zookeeper_root, 1)
    await journal.open()
    await journal.save(A_MEMORY)
    before = await zk.get(f"{zookeeper_root}/state")
    await journal.save_if_changed(A_MEMORY)
    assert await zk.get(f"{zookeeper_root}/state") == before
