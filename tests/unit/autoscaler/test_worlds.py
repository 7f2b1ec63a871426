"""Seeded worlds with faults: the invariants of `World.check` hold after every pass."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import a_spec, queued
from mesaform.autoscaler.model.shape import Shape, contains, shape_of
from mesaform.common.errors import Retryable
from mesaform.topology.names import Tag
from tests.support.profiles import examples
from tests.unit.autoscaler.world import World

EXAMPLES = examples(30)
"""Seeded worlds. Run `MESAFORM_TEST_PROFILE=nightly` after a change of the planner."""


def kinds(world: World) -> list[str]:
    return [decision.kind for decision in world.decisions]


def test_a_burst_gets_machines_and_the_machines_go_when_it_is_over():
    world = World(a_spec(idle_after_s=60))
    world.want(queued("/web", count=40))
    world.run(60)
    assert world.running("/web") == 40
    bought = len(world.ours)
    assert bought
    world.want(queued("/web", count=0))
    world.run(120)
    assert not world.ours
    assert [kind for kind in kinds(world) if kind != "buy"] == ["deactivate"] * bought + [
        "drain"
    ] * bought + ["terminate"] * bought


def test_a_burst_is_bought_once_while_the_machines_boot():
    world = World(a_spec(), boot_s=90, lag_s=20)
    world.want(queued("/web", count=40))
    world.run(200)
    assert {decision.at for decision in world.decisions if decision.kind == "buy"} == {
        world.decisions[0].at
    }
    assert world.running("/web") == 40


def test_a_lost_answer_buys_nothing_twice():
    world = World(a_spec(), lag_s=10)
    world.fleet.lose_next_answer = True
    world.want(queued("/web", count=20))
    world.run(100)
    assert sum(request.count for request in world.fleet.launches) == len(world.ours) == 8
    assert world.running("/web") == 20
    assert not world.journal.launches


@pytest.mark.parametrize("line", ["save", "record", "bought", "resolve"])
def test_a_daemon_killed_before_any_write_is_repaired_by_the_next(line):
    world = World(a_spec(idle_after_s=30), lag_s=6)
    world.want(queued("/web", count=20))
    world.journal.crash_before = line
    world.run(100)
    assert world.crashes == 1
    assert world.running("/web") == 20
    assert not world.journal.launches
    world.want(queued("/web", count=0))
    world.run(120)
    assert not world.ours


def test_capacity_that_runs_out_in_one_zone_is_found_in_another():
    world = World(a_spec())
    for offering in world.offerings["default"]:
        if offering.zone == "us-east-1a":
            world.fleet.stock[offering.key] = 0
    world.want(queued("/web", count=20))
    world.run(60)
    assert world.running("/web") == 20
    assert {machine.zone for machine in world.ours} <= {"us-east-1b", "us-east-1c"}


@pytest.mark.slow
def test_a_cloud_without_capacity_is_asked_less_and_less_often():
    world = World(a_spec())
    for offering in world.offerings["default"]:
        world.fleet.stock[offering.key] = 0
    world.want(queued("/web", count=20))
    world.run(900)
    assert 2 <= len(world.fleet.launches) <= 20
    for offering in world.offerings["default"]:
        del world.fleet.stock[offering.key]
    world.run(2000)
    assert world.running("/web") == 20


def test_machines_that_never_register_are_given_up_and_replaced():
    world = World(a_spec(boot_timeout_s=60), boot_s=20)
    world.want(queued("/web", count=10))
    world.run(4)
    first = {machine.instance_id for machine in world.ours}
    world.never_boot |= first
    world.run(160)
    assert "give_up" in kinds(world)
    assert not first & {machine.instance_id for machine in world.ours}
    assert world.running("/web") == 10


def test_a_change_of_leader_removes_nothing_that_was_booting_meanwhile():
    world = World(a_spec(boot_timeout_s=60), boot_s=50)
    world.want(queued("/web", count=10))
    world.run(10)
    world.leader = False
    world.run(60)
    world.leader = True
    world.run(20)
    assert "give_up" not in kinds(world)
    assert world.running("/web") == 10


def test_demand_that_returns_takes_back_a_machine_on_its_way_out():
    world = World(a_spec(idle_after_s=30))
    world.want(queued("/web", count=10))
    world.run(50)
    world.want(queued("/web", count=0))
    while "deactivate" not in kinds(world):
        world.run(2)
    world.want(queued("/web", count=10))
    bought = kinds(world).count("buy")
    world.run(20)
    assert "reactivate" in kinds(world)
    assert kinds(world).count("buy") == bought
    assert world.running("/web") == 10


@pytest.mark.parametrize("call", ["deactivate", "drain"])
def test_a_daemon_killed_in_the_middle_of_a_removal_leaves_no_machine_behind(call):
    world = World(a_spec(idle_after_s=20))
    world.want(queued("/web", count=10))
    world.run(50)
    world.want(queued("/web", count=0))
    world.crash_after = call
    world.run(100)
    assert world.crashes == 1
    assert not world.ours


def test_a_daemon_killed_while_it_takes_a_machine_back_leaves_it_working():
    world = World(a_spec(idle_after_s=30))
    world.want(queued("/web", count=10))
    world.run(50)
    world.want(queued("/web", count=0))
    while "deactivate" not in kinds(world):
        world.run(2)
    world.want(queued("/web", count=10))
    world.crash_after = "reactivate"
    world.run(30)
    assert world.crashes == 1
    assert world.running("/web") == 10
    assert all(running.agent.active for running in world.agents.values())


def test_steady_work_causes_no_churn():
    world = World(a_spec(idle_after_s=20))
    world.want(queued("/web", count=30))
    world.run(400)
    assert set(kinds(world)) == {"buy"}
    assert {decision.at for decision in world.decisions} == {world.decisions[0].at}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    types = draw(
        st.lists(
            st.sampled_from(["m5.large", "m5.xlarge", "m5.2xlarge", "c5.xlarge", "r5.xlarge"]),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    count = draw(st.integers(0, 2))
    pool = {
        "count": count,
        "min": count + draw(st.integers(0, 2)),
        "max": draw(st.integers(4, 12)),
        "types": types,
    }
    spec = a_spec(
        pools=[{**pool, "spot_share": draw(st.sampled_from([0.0, 0.5, 1.0]))}],
        usd=draw(st.sampled_from([None, 1.0, 2.5])),
        idle_after_s=draw(st.sampled_from([10, 40])),
        boot_timeout_s=draw(st.sampled_from([60, 120])),
        consolidation={"enabled": draw(st.booleans()), "payback_s": 600, "underused_after_s": 60},
    )
    return World(
        spec, boot_s=draw(st.sampled_from([4, 20, 40])), lag_s=draw(st.sampled_from([0, 6, 20]))
    )


CRASHES = [
    "save",
    "record",
    "bought",
    "resolve",
    "before launch",
    "after launch",
    "before terminate",
    "after terminate",
    "deactivate",
    "drain",
]
FAULTS = st.sampled_from(
    [
        *["none"] * 6,
        *[f"crash {where}" for where in CRASHES],
        "lost answer",
        "throttled once",
        "throttled",
        "half the offerings",
        "three of each",
        "nothing anywhere",
        "no leader",
        "no zookeeper",
        "deaf machine",
        "deaf cloud",
        "stale lists",
        "clocks apart",
        "a zone dies",
        "an interruption",
        "registers twice",
    ]
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["/a", "/b", "/c"]),
        st.integers(0, 25),
        st.sampled_from([0.5, 1, 2, 3.5]),
        st.sampled_from([256, 2048, 7000]),
        FAULTS,
        st.sampled_from([6, 30, 80]),
    ),
    min_size=1,
    max_size=6,
)


def strike(world: World, fault: str) -> None:
    """One fault starts; the effects of the last one end, except a crash that did not happen yet."""
    heal(world)
    what, _, detail = fault.partition(" ")
    where = world.offerings["default"]
    agents = sorted(world.agents)
    if what == "crash":
        crash(world, detail)
    elif fault == "lost answer":
        world.fleet.lose_next_answer = True
    elif fault == "throttled once":
        world.fleet.fail_next = Retryable("RequestLimitExceeded", after_s=1)
    elif fault in {"half the offerings", "three of each", "nothing anywhere"}:
        world.fleet.stock = {
            offering.key: 3 if what == "three" else 0
            for offering in (where[::2] if what == "half" else where)
        }
    elif fault == "deaf machine":
        world.never_boot |= {
            machine.instance_id for machine in world.ours if machine.instance_id not in world.agents
        }
    elif fault == "a zone dies":
        world.zone_dies(where[0].zone)
    elif fault == "an interruption" and world.ours:
        world.interrupt(world.ours[0].instance_id)
    elif fault == "registers twice" and agents:
        world.registers_twice(agents[-1])
    world.leader = fault != "no leader"
    world.journal.gone = fault == "no zookeeper"
    world.fleet.throttled = fault == "throttled"
    world.fleet.deaf = 3 if fault == "deaf cloud" else 0
    world.fleet.stale_s = 30.0 if fault == "stale lists" else 0.0
    world.skew_s = 4.0 if fault == "clocks apart" else 0.0


def crash(world: World, where: str) -> None:
    side, _, call = where.partition(" ")
    if call:
        setattr(world.fleet, f"crash_{side}", call)
    elif where in {"deactivate", "drain"}:
        world.crash_after = where
    else:
        world.journal.crash_before = where


def heal(world: World) -> None:
    """Everything works again."""
    world.leader, world.skew_s, world.crash_after = True, 0.0, ""
    world.journal.gone, world.journal.crash_before = False, ""
    world.fleet.fail_next, world.fleet.lose_next_answer, world.fleet.throttled, world.fleet.deaf = (
        None,
        False,
        False,
        0,
    )
    world.fleet.stale_s, world.fleet.crash_before, world.fleet.crash_after = 0.0, "", ""
    world.fleet.stock.clear()


def largest_fits(world: World, shape: Shape) -> bool:
    return any(
        contains(shape_of(offering.resources), shape) for offering in world.offerings["default"]
    )


@pytest.mark.slow
@pytest.mark.timeout(120 + 10 * EXAMPLES)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(world=worlds(), steps=STEPS)
def test_whatever_happens_the_bounds_hold_and_in_the_end_idle_machines_are_gone(world, steps):
    for app, count, cpus, mem_mib, fault, seconds in steps:
        entry = world.apps.get(app)
        world.want(
            queued(
                app,
                count,
                *((entry.shape[0] / 1000, entry.shape[1] / 1000) if entry else (cpus, mem_mib)),
            )
        )
        strike(world, fault)
        world.run(seconds)
    heal(world)
    pool = world.spec.agents[0]
    world.run(200)
    if world.spec.cost.max_usd_per_hour is None and len(world.live) - 3 < pool.max:
        world.run(1800, step_s=20)
        for app, entry in world.apps.items():
            if len(world.live) - 3 < pool.max and largest_fits(world, entry.shape):
                assert world.running(app) == entry.count, app
    for app in list(world.apps):
        world.want(queued(app, 0))
    world.run(400, step_s=4)
    terraformed = sum(
        1
        for machine in world.live
        if machine.tags[Tag.MANAGED_BY] == "terraform" and machine.tags[Tag.ROLE] == "agent"
    )
    assert (
        len(world.ours) <= max(0, pool.floor - min(terraformed, pool.count))
        or world.spec.cost.max_usd_per_hour is not None
    )
    before = len(world.decisions)
    world.run(100, step_s=4)
    assert [d.kind for d in world.decisions[before:] if d.kind in {"buy", "terminate"}] == []
