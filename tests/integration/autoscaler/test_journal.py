"""The journal on a real ZooKeeper."""

from __future__ import annotations

import random
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from harness.autoscaler_builders import NOW, a_reason, a_snapshot
from mesaform.autoscaler.daemon.journal import LAUNCH, Journal
from mesaform.autoscaler.model.framework_demand import FrameworkVerdict
from mesaform.autoscaler.model.planner_state import Backoff, BilledMachine, PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.aws.ports import LaunchRequest
from mesaform.common.errors import LeadershipLost
from mesaform.common.set_aside import SetAsideLog
from mesaform.zookeeper.session import ZooKeeper

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]


@pytest.fixture
async def zk(zookeeper_hosts: str) -> AsyncIterator[ZooKeeper]:
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


def a_journal(zk: ZooKeeper, root: str, epoch: int, log: SetAsideLog | None = None) -> Journal:
    return Journal(zk, root, epoch, "toy", log or SetAsideLog(), lambda: NOW)


def an_intent(token: str = "ms-1", at: float = NOW) -> Intent:
    """A launch that the first term decided."""
    return Intent(
        LaunchRequest("toy", "default", 2, a_snapshot().offerings["default"], token, {"a": "b"}),
        at,
        None,
        a_reason(),
        epoch=1,
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
    first = a_journal(zk, zookeeper_root, 1)
    assert await first.open() == (PlannerState(), [])
    await first.record(an_intent("ms-2", NOW + 1))
    await first.record(an_intent("ms-1", NOW))
    await first.save(A_MEMORY)
    memory, intents = await a_journal(zk, zookeeper_root, 2).open()
    assert memory == A_MEMORY
    assert intents == [an_intent("ms-1", NOW), an_intent("ms-2", NOW + 1)]


async def test_an_answer_is_written_down_and_a_settled_launch_is_forgotten(
    zk: ZooKeeper, zookeeper_root: str
):
    journal = a_journal(zk, zookeeper_root, 1)
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
    old, new = a_journal(zk, zookeeper_root, 1), a_journal(zk, zookeeper_root, 2)
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
    await a_journal(zk, zookeeper_root, 7).open()
    with pytest.raises(LeadershipLost, match="term 7 leads"):
        await a_journal(zk, zookeeper_root, 6).open()


async def test_memory_that_did_not_change_is_not_written_again(zk: ZooKeeper, zookeeper_root: str):
    journal = a_journal(zk, zookeeper_root, 1)
    await journal.open()
    await journal.save(A_MEMORY)
    before = await zk.get(f"{zookeeper_root}/state")
    await journal.save_if_changed(A_MEMORY)
    assert await zk.get(f"{zookeeper_root}/state") == before


UNREADABLE = {
    "garbage": b"garbage",
    "nothing": b"",
    "null": b"null",
    "a newer version": b'{"schema":"autoscaler.launch/2"}',
    "a bomb": zlib.compress(b" " * 20_000_000),
    "no offerings": (
        b'{"request":{"cluster":"toy","pool":"default","count":3,"offerings":[],'
        b'"token":"ms-1"},"at":1.0}'
    ),
    "a number that is too large": (
        b'{"request":{"cluster":"toy","pool":"default","count":99999999,"offerings":[],'
        b'"token":"ms-1"},"at":1e300}'
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_launch_that_cannot_be_read_is_set_aside_and_the_others_are_known(
    zk: ZooKeeper, zookeeper_root: str, name: str
):
    first = a_journal(zk, zookeeper_root, 1)
    await first.open()
    await first.save(A_MEMORY)
    await first.record(an_intent("ms-1"))
    await first.record(an_intent("ms-2"))
    await zk.put(f"{zookeeper_root}/launches/ms-1", UNREADABLE[name])
    log = SetAsideLog()
    second = a_journal(zk, zookeeper_root, 2, log)
    assert await second.open() == (A_MEMORY, [an_intent("ms-2")])
    assert (log.counts, second.launches_lost_at) == ({"launches": 1}, NOW)
    assert await second.intents() == [an_intent("ms-2")]
    third = a_journal(zk, zookeeper_root, 3)
    await third.open()
    assert third.launches_lost_at == NOW, "the next leader waits as well"


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_planner_state_that_cannot_be_read_is_set_aside_and_launches_are_known(
    zk: ZooKeeper, zookeeper_root: str, name: str
):
    first = a_journal(zk, zookeeper_root, 1)
    await first.open()
    await first.record(an_intent())
    await zk.put(f"{zookeeper_root}/state", UNREADABLE[name])
    log = SetAsideLog()
    second = a_journal(zk, zookeeper_root, 2, log)
    assert await second.open() == (PlannerState(), [an_intent()])
    assert log.counts == {"planner-state": 1}
    with pytest.raises(LeadershipLost):
        await first.save(PlannerState())
    await second.save(A_MEMORY)
    assert await a_journal(zk, zookeeper_root, 3).open() == (A_MEMORY, [an_intent()])


@pytest.mark.parametrize(
    "forged",
    [
        ("ms-9", an_intent("ms-9")),
        ("ms-9", an_intent("ms-1")),
        ("ms-1", replace(an_intent(), request=replace(an_intent().request, cluster="other"))),
    ],
    ids=["that is not announced", "with the token of another", "of another cluster"],
)
async def test_a_launch_that_no_leader_wrote_is_set_aside(
    zk: ZooKeeper, zookeeper_root: str, forged: tuple[str, Intent]
):
    journal = a_journal(zk, zookeeper_root, 1)
    await journal.open()
    await journal.record(an_intent("ms-2"))
    name, intent = forged
    await zk.put(f"{zookeeper_root}/launches/{name}", LAUNCH.encode(intent))
    assert await journal.intents() == [an_intent("ms-2")]
    assert await zk.children(f"{zookeeper_root}/set-aside/launches") == [name]
    _, intents = await a_journal(zk, zookeeper_root, 2).open()
    assert intents == [an_intent("ms-2")]


async def test_a_state_that_frameworks_make_too_large_is_stored_without_what_they_said(
    zk: ZooKeeper, zookeeper_root: str
):
    numbers = random.Random(1)
    frameworks = {
        f"F-{n}": FrameworkVerdict(f"F-{n}", numbers.randbytes(100).hex(), "unknown", NOW, NOW)
        for n in range(12_000)
    }
    journal = a_journal(zk, zookeeper_root, 1)
    await journal.open()
    await journal.record(an_intent())
    await journal.save(replace(A_MEMORY, frameworks=frameworks))
    await journal.save(replace(A_MEMORY, frameworks=frameworks, leader_since=NOW - 1))
    state, intents = await a_journal(zk, zookeeper_root, 2).open()
    assert (state, intents) == (replace(A_MEMORY, leader_since=NOW - 1), [an_intent()])


async def test_a_state_with_which_no_pass_succeeds_is_kept_and_begun_anew(
    zk: ZooKeeper, zookeeper_root: str
):
    journal = a_journal(zk, zookeeper_root, 1)
    await journal.open()
    await journal.record(an_intent())
    await journal.save(A_MEMORY)
    await journal.set_state_aside("KeyError: i-1")
    assert await a_journal(zk, zookeeper_root, 2).open() == (PlannerState(), [an_intent()])
    assert await zk.children(f"{zookeeper_root}/set-aside/planner-state") == ["state"]


async def test_a_restored_planner_state_begins_a_new_term_with_that_terms_own_epoch(
    zk, zookeeper_root
):
    lost = a_journal(zk, zookeeper_root, 41)
    await lost.open()
    await lost.save(A_MEMORY)
    state = await zk.get(f"{zookeeper_root}/state")
    assert state is not None
    await zk.delete(f"{zookeeper_root}/state")
    leader = a_journal(zk, zookeeper_root, 1)
    assert (await leader.open())[0] == PlannerState()
    await leader.require_unrestored()
    await zk.put(f"{zookeeper_root}/restored-state", state[0])
    with pytest.raises(LeadershipLost, match="restored"):
        await leader.require_unrestored()
    successor = a_journal(zk, zookeeper_root, 2)
    assert (await successor.open())[0] == A_MEMORY
    await successor.require_unrestored()
    await successor.save(replace(A_MEMORY, leader_since=NOW + 1))


@pytest.mark.parametrize("damaged", [b"garbage", b'{"schema":"autoscaler.state/9"}'])
async def test_a_restored_planner_state_that_cannot_be_read_changes_nothing(
    zk, zookeeper_root, damaged
):
    leader = a_journal(zk, zookeeper_root, 1)
    await leader.open()
    await leader.save(A_MEMORY)
    await zk.put(f"{zookeeper_root}/restored-state", damaged)
    successor = a_journal(zk, zookeeper_root, 2)
    assert (await successor.open())[0] == A_MEMORY
    await successor.require_unrestored()
