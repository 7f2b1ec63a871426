"""Consolidation and overrides in worlds: which machines are disturbed, when, and which never."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import NOW, a_spec, queued
from mesaform.aws.overrides import Override
from tests.support.profiles import examples
from tests.unit.autoscaler.world import World

SOON = {
    "enabled": True,
    "payback_s": 120.0,
    "underused_after_s": 30.0,
    "underused_percent": 60.0,
    "usd_per_task": 0.0,
    "usd_per_task_hour": 0.0,
    "max_agents_percent": 50.0,
}


def a_world(
    *, pools: list[dict] | None = None, autoscaler: dict | None = None, **consolidation
) -> World:
    """A cluster without machines of Terraform's, in which consolidation is quick."""
    pool = {"count": 0, "types": ["m5.large"], "max": 20}
    spec = a_spec(
        pools=pools or [pool],
        idle_after_s=20,
        consolidation={**SOON, **consolidation},
        **(autoscaler or {}),
    )
    return World(spec, boot_s=10)


def scattered(world: World, app: str = "/web") -> None:
    """Two machines of two cpus with one task of one cpu each, which would fit on one of them."""
    world.want(queued(app, 4))
    world.run(30)
    assert len(world.ours) == 2
    for running in world.agents.values():
        running.tasks.pop()
    world.want(queued(app, 2))


def until(world: World, kind: str) -> None:
    """Let time pass until a decision of this kind."""
    for _ in range(300):
        if kind in [decision.kind for decision in world.decisions]:
            return
        world.run(2)
    pytest.fail(f"no {kind} in ten minutes")


def decided(world: World, policy: str) -> list[str]:
    return [decision.kind for decision in world.decisions if decision.policy == policy]


def test_a_little_used_machine_goes_when_its_tasks_fit_elsewhere():
    world = a_world()
    scattered(world)
    world.run(300)
    assert len(world.ours) == 1
    assert world.running("/web") == 2
    assert decided(world, "underused") == ["deactivate", "drain", "terminate"]
    assert len(world.moved) == 1


def test_nothing_that_runs_is_moved_unless_consolidation_is_switched_on():
    world = a_world(enabled=False)
    scattered(world)
    world.run(600)
    assert len(world.ours) == 2
    assert not world.moved


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["protected", "foreign"])
def test_protected_tasks_and_those_of_frameworks_that_do_not_restart_them_stay(kind):
    world = a_world()
    getattr(world, kind).add("/web")
    scattered(world)
    world.run(600)
    assert len(world.ours) == 2


def test_tasks_of_other_frameworks_move_where_the_spec_says_that_they_may():
    world = a_world(frameworks=["batch"])
    world.foreign.add("/web")
    scattered(world)
    world.foreign.clear()  # what runs still is of that framework
    for running in world.agents.values():
        for task in running.tasks:
            task.framework = "batch"
    world.run(300)
    assert len(world.ours) == 1


def test_a_protected_agent_stays():
    world = a_world()
    scattered(world)
    for running in world.agents.values():
        running.agent = replace(
            running.agent, attributes={**running.agent.attributes, "mesaform/protect": "true"}
        )
    world.run(600)
    assert len(world.ours) == 2


@pytest.mark.slow
def test_a_machine_younger_than_the_payback_time_stays():
    world = a_world(payback_s=1000.0)
    scattered(world)
    world.run(900)
    assert len(world.ours) == 2
    world.run(300)
    assert len(world.ours) == 1


def test_a_machine_whose_tasks_fit_nowhere_else_is_not_even_deactivated():
    world = a_world()
    world.want(queued("/web", 2, cpus=1.1))
    world.run(400)
    assert len(world.ours) == 2
    assert decided(world, "underused") == []


def test_no_more_agents_are_disturbed_at_a_time_than_the_budget_allows():
    world = a_world(max_agents_percent=1.0)
    world.want(queued("/web", 8))
    world.run(30)
    for running in world.agents.values():
        running.tasks.pop()
    world.want(queued("/web", 4))
    most = 0
    for _ in range(150):
        world.run(2)
        most = max(
            most, sum(removal.is_disruptive for removal in world.journal.memory.removals.values())
        )
    assert most == 1
    assert len(world.ours) == 2
    assert len(world.moved) == 2


@pytest.mark.slow
def test_old_tasks_weigh_more_than_the_saving():
    world = a_world(usd_per_task_hour=10.0)
    scattered(world)
    world.run(600)
    assert len(world.ours) == 2


@pytest.mark.slow
def test_a_saving_below_the_minimum_is_left():
    world = a_world(min_saving_usd_per_hour=0.2)
    scattered(world)
    world.run(600)
    assert len(world.ours) == 2


@pytest.mark.slow
def test_outside_its_window_nothing_is_disturbed():
    """NOW is a Friday, 08:00 UTC."""
    world = a_world(
        max_agents_percent=0.0,
        windows=[{"days": "fri", "hours": "08:10-08:30", "max_agents_percent": 50.0}],
    )
    scattered(world)
    world.run(540)
    assert len(world.ours) == 2
    world.run(200)
    assert len(world.ours) == 1


def test_dearer_machines_go_for_one_cheaper_that_is_up_before_they_drain():
    world = a_world(
        pools=[{"count": 0, "types": ["m5.2xlarge", "m5.large"], "max": 20}], underused_percent=0.0
    )
    world.want(queued("/big", 1, cpus=7, mem_mib=20000))
    world.run(30)
    world.want(queued("/web", 1))
    world.run(10)
    world.want(queued("/big", 0, cpus=7, mem_mib=20000))
    assert {machine.instance_type for machine in world.ours} == {"m5.2xlarge"}
    world.run(400)
    assert {machine.instance_type for machine in world.ours} == {"m5.large"}
    assert world.running("/web") == 1
    moved_at = world.moved[0][0]
    new = next(machine for machine in world.ours)
    assert new.launched_at + world.boot_s <= moved_at
    story = [decision.kind for decision in world.decisions if decision.policy == "replace"]
    assert story == ["buy", "deactivate", "drain", "terminate"]


@pytest.mark.slow
def test_a_replacement_that_the_cloud_does_not_have_disturbs_nobody():
    world = a_world(
        pools=[{"count": 0, "types": ["m5.2xlarge", "m5.large"], "max": 20}], underused_percent=0.0
    )
    world.want(queued("/big", 1, cpus=7, mem_mib=20000))
    world.run(30)
    world.want(queued("/web", 1))
    world.run(10)
    world.want(queued("/big", 0, cpus=7, mem_mib=20000))
    for offering in world.offerings["default"]:
        if offering.instance_type == "m5.large":
            world.fleet.stock[offering.key] = 0
    world.run(900)
    assert [machine.instance_type for machine in world.ours] == ["m5.2xlarge"]
    assert not world.moved
    assert len(world.fleet.launches) < 12


def test_a_drain_that_takes_too_long_is_given_up_and_kills_nobody():
    world = a_world(autoscaler={"drain_timeout_s": 60})
    world.stubborn.add("/web")
    scattered(world)
    world.run(600)
    when = {decision.kind: decision.at for decision in reversed(world.decisions)}
    assert 60 < when["drain_timed_out"] - when["drain"] <= 64
    assert len(world.ours) == 2
    assert world.running("/web") == 2


def test_an_agent_whose_drain_was_given_up_works_again_once_the_engine_lets_it():
    world = a_world(autoscaler={"drain_timeout_s": 60})
    world.stubborn.add("/web")
    scattered(world)
    until(world, "drain_timed_out")
    for running in world.agents.values():
        for task in running.tasks:
            task.stubborn = False
    world.run(20)
    assert [running.agent.active for running in world.agents.values()] == [True, True]
    assert "terminate" not in [decision.kind for decision in world.decisions]
    assert world.running("/web") == 2


def test_where_the_spec_says_so_what_outlasts_a_drain_is_killed():
    world = a_world(autoscaler={"drain_timeout_s": 60, "drain_timeout_kills": True})
    world.stubborn.add("/web")
    scattered(world)
    with pytest.raises(AssertionError, match="a task was killed"):
        world.run(600)


def test_demand_that_comes_back_ends_a_removal():
    world = a_world()
    scattered(world)
    until(world, "deactivate")
    world.want(queued("/web", 4))
    world.run(60)
    assert not world.moved
    assert world.running("/web") == 4
    assert len(world.ours) == 2


# orders


def an_order(kind: Any, for_s: float = 100.0, **fields) -> Override:
    return Override(id="1", kind=kind, by="anna", at=NOW, until=NOW + for_s, **fields)


def test_while_paused_nothing_is_bought_or_removed_and_then_it_goes_on_by_itself():
    world = a_world()
    world.orders = [an_order("pause")]
    world.want(queued("/web", 4))
    world.run(90)
    assert not world.fleet.launches
    world.run(60)
    assert world.running("/web") == 4
    world.want(queued("/web", 0))
    world.orders = [an_order("pause", world.now - NOW + 100)]
    world.run(90)
    assert len(world.ours) == 2
    world.run(90)
    assert not world.ours


def test_bounds_set_for_a_time_hold_for_that_time():
    world = a_world()
    world.orders = [an_order("bound", pool="default", bound="min", count=3)]
    world.run(90)
    assert len(world.ours) == 3
    world.run(90)
    assert not world.ours
    world.orders = [an_order("bound", 1e6, pool="default", bound="max", count=1)]
    world.want(queued("/web", 9))
    world.run(60)
    assert len(world.ours) == 1


def test_a_hint_keeps_room_until_it_runs_out():
    world = a_world()
    world.orders = [an_order("hint", 200, cpus=2.0, mem_mib=4096.0, count=3, pool="default")]
    world.run(150)
    assert len(world.ours) == 3
    assert world.decisions[0].reasons[0].code == "hint"
    world.run(120)
    assert not world.ours


def test_headroom_in_slots_is_kept_free():
    world = a_world(autoscaler={"headroom_slots": [{"count": 2, "cpus": 2, "mem_mib": 4000}]})
    world.run(60)
    assert len(world.ours) == 2
    world.want(queued("/web", 2))
    world.run(60)
    assert len(world.ours) == 3


def test_an_agent_that_an_operator_drains_goes_and_its_work_gets_another():
    world = a_world()
    world.want(queued("/web", 4))
    world.run(30)
    target = world.ours[0].instance_id
    world.orders = [an_order("drain", 1e6, target=target)]
    world.run(100)
    assert target not in {machine.instance_id for machine in world.ours}
    assert world.running("/web") == 4
    assert len(world.moved) == 2
    assert decided(world, "operator") == ["deactivate", "drain", "terminate"]


def test_an_agent_of_terraforms_that_is_drained_stays_empty_until_the_order_ends():
    world = a_world(pools=[{"count": 2, "types": ["m5.large"], "max": 20}])
    world.want(queued("/web", 4))
    world.run(30)
    world.orders = [an_order("drain", 200, target="S-i-t-default-0")]
    world.run(100)
    drained = world.agents["i-t-default-0"]
    assert (drained.tasks, drained.agent.deactivated) == ([], True)
    assert world.running("/web") == 4
    world.run(150)
    assert world.agents["i-t-default-0"].agent.active
    assert (
        next(m for m in world.fleet.all_machines() if m.instance_id == "i-t-default-0").state
        == "running"
    )


LIVES = st.lists(
    st.tuples(
        st.sampled_from(["/a", "/b", "/kept", "/batch"]),
        st.integers(0, 14),
        st.sampled_from([1, 2, 3]),
        st.sampled_from(
            ["none", "none", "none", "lost answer", "crash save", "no leader", "stubborn"]
        ),
        st.sampled_from([20, 120, 400]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.timeout(600)
@pytest.mark.slow
@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    steps=LIVES,
    types=st.sampled_from(
        [["m5.large"], ["m5.2xlarge", "m5.large"], ["m5.xlarge", "c5.xlarge", "m5.2xlarge"]]
    ),
)
def test_whatever_happens_protected_work_stays_nobody_is_killed_and_steady_work_ends_in_peace(
    steps, types
):
    world = a_world(
        pools=[{"count": 1, "types": types, "max": 12}], autoscaler={"drain_timeout_s": 60}
    )
    world.protected.add("/kept")
    world.foreign.add("/batch")
    sizes: dict[str, int] = {}
    for app, count, cpus, fault, seconds in steps:
        size = sizes.setdefault(app, cpus)
        world.leader = fault != "no leader"
        world.fleet.lose_next_answer = fault == "lost answer"
        world.journal.crash_before = fault.partition(" ")[2] if fault.startswith("crash") else ""
        if fault == "stubborn":
            world.stubborn.add("/b")
        world.want(
            queued(app, count, cpus=min(size, 2 if types == ["m5.large"] else 3), mem_mib=1000)
        )
        world.run(seconds, step_s=4)
    world.leader, world.fleet.lose_next_answer, world.journal.crash_before = True, False, ""
    world.stubborn.clear()
    for running in world.agents.values():
        for task in running.tasks:
            task.stubborn = False
    world.run(2000, step_s=10)
    if len(world.live) - 3 < 12:
        assert all(world.running(app) == entry.count for app, entry in world.apps.items())
    before = len(world.decisions)
    world.run(1200, step_s=10)
    assert [
        decision.kind for decision in world.decisions[before:] if decision.kind in {"buy", "drain"}
    ] == []


@pytest.mark.slow
def test_a_task_that_was_moved_is_not_moved_again_the_same_day():
    world = a_world()
    scattered(world)
    world.run(200)
    assert len(world.moved) == 1
    world.want(queued("/web", 4))
    world.run(30)
    for running in world.agents.values():  # scattered again
        running.tasks = running.tasks[:1]
    world.want(queued("/web", 2))
    world.run(300)
    assert (
        len(world.moved) == 2
    )  # two tasks, two moves: the second time the other one's turn has come
    world.want(queued("/web", 4))
    world.run(30)
    for running in world.agents.values():
        running.tasks = running.tasks[:1]
    world.want(queued("/web", 2))
    world.run(300)
    assert len(world.moved) == 2
