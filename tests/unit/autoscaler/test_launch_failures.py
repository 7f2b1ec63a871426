"""Faults of AWS, ZooKeeper and the daemon, and the decision for each. `World.check` holds."""

from __future__ import annotations

from typing import Any

import pytest

from harness.autoscaler_builders import a_spec, queued
from tests.unit.autoscaler.world import World

LEAVING = {"deactivate", "drain", "terminate"}


def kinds(world: World) -> list[str]:
    return [decision.kind for decision in world.decisions]


def purchase_times(world: World) -> set[float]:
    """When machines were bought; a purchase has one call for each zone."""
    return {decision.at for decision in world.decisions if decision.kind == "buy"}


def working(count: int = 20, **settings: Any) -> World:
    """A world whose machines have come up for /web."""
    values: dict[str, Any] = {"idle_after_s": 20, **settings}
    world = World(a_spec(**values), boot_s=10)
    world.want(queued("/web", count=count))
    world.run(60)
    assert world.running("/web") == count
    return world


def emptied(world: World) -> None:
    world.want(queued("/web", count=0))


def test_while_ec2_throttles_every_call_nothing_happens_and_afterwards_everything_does():
    world = World(a_spec(), boot_s=10)
    world.want(queued("/web", count=20))
    world.fleet.throttled = True
    world.run(60)
    assert world.failures
    assert not world.fleet.launches
    world.fleet.throttled = False
    world.run(30)
    assert world.running("/web") == 20


@pytest.mark.slow
def test_what_a_half_done_launch_lacks_is_bought_elsewhere_and_no_more_than_that():
    world = World(a_spec(pools=[{"types": ["m5.large"], "max": 30}]), boot_s=10)
    for offering in world.offerings["default"]:
        world.fleet.stock[offering.key] = 3
    world.want(queued("/web", count=20, cpus=2))
    world.run(900)
    assert len(world.ours) == 9
    for offering in world.offerings["default"]:
        del world.fleet.stock[offering.key]
    world.run(2000, step_s=10)
    assert world.running("/web") == 20
    assert len(world.ours) == 18


def test_an_old_list_of_machines_buys_nothing_twice_and_ends_nothing_that_works():
    world = World(a_spec(), boot_s=10)
    world.fleet.stale_s = 40
    world.want(queued("/web", count=20))
    world.run(120)
    assert world.running("/web") == 20
    assert len(purchase_times(world)) == 1
    assert not LEAVING & set(kinds(world))


def test_a_termination_that_does_not_take_is_asked_for_until_it_does():
    world = working()
    before = len(world.ours)
    assert before
    world.fleet.deaf = 3 * before
    emptied(world)
    world.run(60)
    assert world.ours, "EC2 was deaf"
    world.run(60)
    assert not world.ours
    assert world.fleet.deaf == 0


def test_without_zookeeper_nothing_is_bought_that_nobody_would_remember():
    world = World(a_spec(), boot_s=10)
    world.journal.gone = True
    world.want(queued("/web", count=20))
    world.run(60)
    assert world.failures
    assert not world.fleet.launches
    world.journal.gone = False
    world.run(30)
    assert world.running("/web") == 20


def test_zookeeper_that_goes_in_the_middle_of_a_removal_leaves_no_machine_behind():
    world = working()
    emptied(world)
    while "deactivate" not in kinds(world):
        world.run(2)
    world.journal.gone = True
    world.run(60)
    assert world.ours, "nothing is terminated unwritten"
    world.journal.gone = False
    world.run(60)
    assert not world.ours


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["launch", "terminate"])
def test_a_leader_that_is_killed_in_the_middle_of_its_plan_is_followed_by_one_that_finishes_it(
    call: str, moment: str
):
    world = World(a_spec(idle_after_s=20), boot_s=10, lag_s=6)
    setattr(world.fleet, f"crash_{moment}", call)
    world.want(queued("/web", count=20))
    world.run(60)
    assert world.running("/web") == 20
    assert not world.journal.launches
    bought = sum(request.count for request in world.fleet.launches)
    assert bought == len(world.ours)
    emptied(world)
    world.run(90)
    assert world.crashes == 1
    assert not world.ours


@pytest.mark.parametrize("skew_s", [-5.0, 5.0])
def test_a_next_leader_whose_clock_is_seconds_apart_does_nothing_rash(skew_s: float):
    world = working(idle_after_s=40)
    before = list(world.ours)
    world.skew_s = skew_s
    world.run(60)
    assert world.ours == before
    assert not LEAVING & set(kinds(world))
    emptied(world)
    world.run(20)
    assert world.ours == before
    world.skew_s = 0
    world.run(80)
    assert not world.ours


def test_a_zone_that_dies_takes_its_machines_and_they_are_bought_elsewhere():
    world = working(30)
    zone = world.ours[0].zone
    world.zone_dies(zone)
    world.run(60)
    assert world.running("/web") == 30
    assert zone not in {machine.zone for machine in world.ours}


def test_an_agent_that_registers_a_second_time_is_one_machine():
    world = working()
    name = world.ours[0].instance_id
    world.registers_twice(name)
    world.run(40)
    assert world.running("/web") == 20
    assert len(purchase_times(world)) == 1
    emptied(world)
    world.run(80)
    assert not world.ours


def test_without_a_leader_in_the_middle_of_a_removal_nothing_more_goes_until_there_is_one():
    world = working()
    emptied(world)
    while "deactivate" not in kinds(world):
        world.run(2)
    world.leader = False
    held = len(world.ours)
    world.run(60)
    assert len(world.ours) == held
    world.leader = True
    world.run(60)
    assert not world.ours
