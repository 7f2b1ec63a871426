"""Announced ends in simulated worlds: crashes, all machines at once, seeds of announcements."""

from __future__ import annotations

from random import Random

import pytest

from harness.autoscaler_builders import a_spec, queued
from mesaform.autoscaler.interruption.controller import absorb
from mesaform.autoscaler.model.notice import Notice
from tests.unit.autoscaler.test_interruption import heard
from tests.unit.autoscaler.world import World


def a_world(**autoscaler) -> World:
    spec = a_spec(
        pools=[{"count": 0, "types": ["m5.large"], "max": 20, "spot_share": 1.0}],
        idle_after_s=20,
        **autoscaler,
    )
    world = World(spec, boot_s=20)
    world.want(queued("/web", 4))
    world.run(60)
    assert len(world.ours) == 2
    return world


def announce(world: World, name: str, kind="interruption", left_s: float = 120.0) -> None:
    """What the daemon does with a message; twice, since queues repeat themselves."""
    notice = Notice(kind, name, world.now, world.now + left_s, "queue", "reported")
    for _ in range(2):
        world.journal.memory = absorb(
            world.journal.memory, heard(notice), world.fleet.machines("toy"), (), world.now
        )


def end(world: World, name: str) -> None:
    world.fleet.set_state(name, "terminated")


@pytest.mark.slow
@pytest.mark.parametrize("crash", ["", "save", "record", "bought", "deactivate", "drain"])
def test_an_interrupted_machine_is_replaced_drained_and_gone_without_a_task_lost(crash):
    world = a_world()
    doomed = world.ours[0].instance_id
    announce(world, doomed)
    began = world.now
    if crash in {"deactivate", "drain"}:
        world.crash_after = crash
    else:
        world.journal.crash_before = crash
    world.run(4)
    (launch,) = [d for d in world.decisions if d.kind == "buy" and d.at > began] or [None]
    assert len(world.ours) == 3
    world.run(114)
    assert world.agents[doomed].tasks == []
    assert world.running("/web") == 4
    end(world, doomed)
    world.run(60)
    assert len(world.ours) == 2
    assert world.running("/web") == 4
    assert world.crashes == (1 if crash else 0)
    assert doomed not in world.journal.memory.notices
    if not crash:
        assert launch is not None
        kinds = [d.kind for d in world.decisions if doomed in d.machines and d.at > began]
        assert kinds == ["notice", "deactivate", "drain"]


def test_all_machines_at_once_are_replaced_once():
    world = a_world()
    doomed = [machine.instance_id for machine in world.ours]
    for name in doomed:
        announce(world, name)
    world.run(118)
    assert len(world.ours) == 4
    for name in doomed:
        end(world, name)
    world.run(60)
    assert world.running("/web") == 4
    assert len(world.ours) == 2


def test_a_retired_machine_is_replaced_and_given_back_long_before():
    world = a_world()
    retired = world.ours[0].instance_id
    announce(world, retired, "scheduled", 7200.0)
    world.run(120)
    assert retired not in {machine.instance_id for machine in world.ours}
    assert world.running("/web") == 4
    assert len(world.ours) == 2


def test_advice_for_every_machine_moves_them_one_after_the_other():
    world = a_world(interruption={"on_rebalance": "replace"}, consolidation={"payback_s": 10.0})
    advised = {machine.instance_id for machine in world.ours}
    for name in advised:
        announce(world, name, "rebalance", 0.0)
    world.run(300)
    assert not advised & {machine.instance_id for machine in world.ours}
    assert len(world.ours) == 2
    starts = [d.at for d in world.decisions if d.kind == "deactivate" and d.policy == "rebalance"]
    ends = [d.at for d in world.decisions if d.kind == "terminate" and d.policy == "rebalance"]
    assert len(starts) == len(ends) == 2
    assert starts[1] >= ends[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_in_any_world_of_announcements_no_task_is_lost_and_peace_returns(seed):
    """Notices of all kinds, repeated and in any order, with crashes; `World.check` holds."""
    chance = Random(seed)
    world = a_world(
        interruption={"on_rebalance": chance.choice(["ignore", "replace"])},
        consolidation={"payback_s": 30.0},
    )
    ends: dict[str, float] = {}
    for _ in range(40):
        live = [
            machine.instance_id for machine in world.ours if machine.instance_id in world.agents
        ]
        if live and chance.random() < 0.25:
            name, kind = (
                chance.choice(live),
                chance.choice(["interruption", "rebalance", "scheduled"]),
            )
            left_s = {
                "interruption": 120.0,
                "rebalance": 0.0,
                "scheduled": chance.choice([300.0, 7200.0]),
            }[kind]
            announce(world, name, kind, left_s)
            if kind == "interruption" and chance.random() < 0.8:
                ends.setdefault(name, world.now + left_s)
        if chance.random() < 0.1:
            world.journal.crash_before = chance.choice(["save", "record", "bought", "resolve"])
        world.run(20)
        for name, at in list(ends.items()):
            if world.now >= at and name in {machine.instance_id for machine in world.live}:
                end(world, name)
                del ends[name]
        world.want(queued("/web", chance.choice([2, 4, 6])))
    world.want(queued("/web", 4))
    for name in {machine.instance_id for machine in world.live} & ends.keys():
        world.run(max(0.0, ends[name] - world.now))
        end(world, name)
    world.run(1500)
    assert world.running("/web") == 4
    assert len(world.ours) <= 4
    assert not [
        name
        for name, removal in world.journal.memory.removals.items()
        if removal.policy == "interruption"
    ]
