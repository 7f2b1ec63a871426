"""Time of the next pass: not before anything can change, and as soon as it can."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from harness.autoscaler_builders import (
    NOW,
    a_framework,
    a_machine,
    a_reason,
    a_snapshot,
    a_spec,
    an_agent,
    full,
    queued,
)
from mesaform.autoscaler.daemon.daemon import rest_s
from mesaform.autoscaler.model.cluster_view import RunningTask
from mesaform.autoscaler.model.planner_state import Backoff, PlannerState
from mesaform.autoscaler.model.removal import Removal, Replacement
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.planner.planner import Plan, plan
from mesaform.aws.overrides import Override
from mesaform.aws.ports import LaunchRequest
from mesaform.config import calendar

ON = {"usd_per_task": 0.0, "enabled": True, "payback_s": 100.0, "usd_per_task_hour": 0.0}


def one_of_ours(
    memory: PlannerState | None = None,
    *,
    spec=None,
    agent: dict | None = None,
    machine: dict | None = None,
    **fields,
) -> Snapshot:
    """One machine that the autoscaler bought and its agent, empty by default."""
    mine = a_machine("i-1", **(machine or {}))
    agents = [] if agent == {"absent": True} else [an_agent(mine, **(agent or {}))]
    spec = spec or a_spec(pools=[{"count": 0}])
    return a_snapshot(
        spec,
        machines=[mine],
        agents=agents,
        state=memory or PlannerState(leader_since=NOW - 9000),
        app_constraints={"/web": ()},
        **fields,
    )


def idle() -> Snapshot:
    return one_of_ours(
        PlannerState(
            leader_since=NOW - 9000, idle_since={"i-1": NOW - 100}, registered_at={"i-1": NOW - 900}
        )
    )


def booting() -> Snapshot:
    return one_of_ours(agent={"absent": True}, machine={"launched_at": NOW - 100})


def lost() -> Snapshot:
    """One of ten: so few that nothing is frozen."""
    machines = [a_machine(f"i-{n}") for n in range(10)]
    names = [machine.instance_id for machine in machines]
    memory = PlannerState(
        leader_since=NOW - 9000,
        registered_at=dict.fromkeys(names, NOW - 4000),
        lost_since={"i-0": NOW - 100},
    )
    return a_snapshot(
        a_spec(pools=[{"count": 0}]),
        machines=machines,
        agents=[full(machine) for machine in machines[1:]],
        state=memory,
    )


def removal(phase: Any, ago: float, *, policy: Any = "", **agent) -> Snapshot:
    memory = PlannerState(
        leader_since=NOW - 9000,
        registered_at={"i-1": NOW - 4000},
        removals={"i-1": Removal("S-i-1", phase, NOW - ago, a_reason(), NOW - ago, policy)},
    )
    return one_of_ours(memory, agent={"active": False, "deactivated": True, **agent})


def little_used(**memory) -> Snapshot:
    """Two machines with little on them: one would do."""
    machines = [
        a_machine(f"i-{n}", launched_at=memory.pop("launched_at", NOW - 5000)) for n in range(2)
    ]
    agents = [
        an_agent(
            machine,
            allocated=make(0.5, 100),
            tasks=1,
            work=(
                RunningTask(
                    f"web.instance-{machine.instance_id}",
                    "/web",
                    "marathon",
                    make(0.5, 100),
                    NOW - 4900,
                ),
            ),
        )
        for machine in machines
    ]
    names = [machine.instance_id for machine in machines]
    remembered = {
        "leader_since": NOW - 9000,
        "registered_at": dict.fromkeys(names, NOW - 4000),
        "underused_since": dict.fromkeys(names, NOW - 9000),
    }
    spec = a_spec(
        pools=[{"count": 0, "types": ["m5.large"]}],
        consolidation={**ON, **memory.pop("consolidation", {})},
    )
    return a_snapshot(
        spec,
        machines=machines,
        agents=agents,
        app_constraints={"/web": ()},
        state=PlannerState(**{**remembered, **memory}),
    )


def no_capacity() -> Snapshot:
    backoffs = {
        offering.key: Backoff(NOW + 40, 1) for offering in a_snapshot().offerings["default"]
    }
    return a_snapshot(
        queue=[queued()], state=PlannerState(leader_since=NOW - 9000, backoffs=backoffs)
    )


def closed_window() -> Snapshot:
    """NOW is a Friday, 08:00 UTC."""
    windows = [{"days": "fri", "hours": "07:00-09:00", "max_agents_percent": 0.0}]
    return little_used(consolidation={"windows": windows, "max_agents_percent": 100.0})


def just_dry() -> Snapshot:
    framework = a_framework(minimal=make(1.5, 2000))
    return a_snapshot(
        frameworks=[framework],
        state=PlannerState(leader_since=NOW - 9000, dry_since={"F-batch": NOW - 2}),
    )


def expected_back() -> Snapshot:
    return a_snapshot(queue=[queued()], recovered=2, state=PlannerState(leader_since=NOW - 5))


def paused() -> Snapshot:
    return a_snapshot(
        queue=[queued()],
        overrides=(Override("p", "pause", "ann", NOW - 5, NOW + 25),),
        state=PlannerState(leader_since=NOW - 5000),
    )


def an_order_that_ec2_does_not_show() -> Snapshot:
    offering = a_snapshot().offerings["default"][0]
    intent = Intent(LaunchRequest("toy", "default", 1, (offering,), "ms-1"), NOW - 20, ("i-9",))
    return a_snapshot(
        queue=[queued()], intents=(intent,), state=PlannerState(leader_since=NOW - 5000)
    )


def a_coming_rush() -> Snapshot:
    """The calendar wants capacity at 09:00; boots take 150 s and the margin is 60 s."""
    calendar = [{"days": "fri", "hours": "09:00-10:00", "count": 40, "cpus": 1.0, "mem_mib": 512.0}]
    return a_snapshot(a_spec(calendar=calendar), state=PlannerState(leader_since=NOW - 5000))


def an_old_machine() -> Snapshot:
    return one_of_ours(
        PlannerState(leader_since=NOW - 9000, registered_at={"i-1": NOW - 4000}),
        spec=a_spec(pools=[{"count": 0}], drift={"max_age_hours": 1.5}, consolidation=ON),
        agent={
            "allocated": make(1, 100),
            "tasks": 1,
            "work": (RunningTask("web.instance-1", "/web", "marathon", make(1, 100), NOW - 900),),
        },
    )


SCENES = {
    "a machine is too old": (an_old_machine, 400.0),
    "an idle machine may go": (idle, 200.0),
    "a machine that never registers is given up": (booting, 500.0),
    "a machine that is lost is given up": (lost, 500.0),
    "a deactivated machine is looked at again": (lambda: removal("deactivated", 0.5), 0.5),
    "a termination is asked for again": (lambda: removal("terminating", 5), 10.0),
    "an empty agent drains too long": (
        lambda: removal("draining", 20, drain_state="DRAINING"),
        50.0,
    ),
    "a drain with tasks is given up": (
        lambda: removal(
            "draining",
            20,
            policy="underused",
            drain_state="DRAINING",
            tasks=1,
            allocated=make(1, 100),
        ),
        580.0,
    ),
    "a little used machine may go": (
        lambda: little_used(underused_since=dict.fromkeys(["i-0", "i-1"], NOW - 500)),
        100.0,
    ),
    "a machine is no longer spared": (
        lambda: little_used(cooldown_until=dict.fromkeys(["i-0", "i-1"], NOW + 70)),
        70.0,
    ),
    "a machine has paid back": (lambda: little_used(launched_at=NOW - 60), 40.0),
    "a calendar lets machines go": (closed_window, 3600.0),
    "an offering may be asked for again": (no_capacity, 40.0),
    "a framework is dry for long enough": (just_dry, 3.0),
    "agents expected back are waited for no longer": (expected_back, 25.0),
    "a pause ends": (paused, 25.0),
    "an order that nobody sees is believed no longer": (an_order_that_ec2_does_not_show, 100.0),
    "a rush is bought for ahead": (a_coming_rush, 3600.0 - 210.0),
}


def outcome(planned: Plan) -> tuple[object, ...]:
    """What a plan would do and say, without its reasons' seconds."""
    verdicts = [
        (v.unit.key, v.fits_now, v.arriving, v.buying, v.unmet, v.refusal and v.refusal.kind)
        for v in planned.verdicts
    ]
    return (
        [step.decision.kind for step in planned.commands if step.decision.kind != "unschedulable"],
        verdicts,
    )


@pytest.mark.parametrize("scene", SCENES)
def test_the_planner_is_asked_again_when(scene):
    build, in_s = SCENES[scene]
    snapshot = build()
    first = plan(snapshot, NOW)
    assert not [step for step in first.commands if step.actions]
    assert first.next_pass_at == pytest.approx(NOW + in_s, abs=0.01)
    snapshot = replace(snapshot, state=first.state)
    just_before = plan(snapshot, first.next_pass_at - 0.1)
    assert outcome(just_before) == outcome(replace(first, commands=()))
    assert outcome(plan(snapshot, first.next_pass_at)) != outcome(just_before)


def test_a_pass_that_acted_is_followed_by_the_next_interval():
    assert plan(a_snapshot(queue=[queued()]), NOW).next_pass_at == NOW + 2


def test_where_nothing_but_an_event_can_change_anything_there_is_no_moment():
    assert plan(a_snapshot(state=PlannerState(leader_since=NOW - 9000)), NOW).next_pass_at is None


def test_a_replacement_without_an_order_is_forgotten_after_a_moment():
    memory = PlannerState(
        leader_since=NOW - 9000,
        replacements={"ms-9": Replacement(("i-0",), 1, NOW - 2, a_reason())},
    )
    snapshot = little_used(replacements=memory.replacements, underused_since={})
    first = plan(snapshot, NOW)
    assert first.next_pass_at == pytest.approx(NOW + 3, abs=0.01)
    assert first.state.replacements
    assert not plan(snapshot, first.next_pass_at).state.replacements


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("days", "hours", "after", "change"),
    [
        ("mon-sun", "08:00-18:00", "2027-01-15T08:00", "2027-01-15T18:00"),
        ("mon-sun", "08:00-18:00", "2027-01-15T18:00", "2027-01-16T08:00"),
        ("fri", "22:00-06:00", "2027-01-15T23:00", "2027-01-16T06:00"),
        ("fri", "08:00-09:00", "2027-01-15T09:30", "2027-01-22T08:00"),
        ("mon,tue", "20:00-24:00", "2027-01-15T00:00", "2027-01-18T20:00"),
    ],
)
def test_the_next_change_of_a_part_of_the_week(days, hours, after, change):
    assert calendar.next_change(days, hours, moment(after)) == moment(change)


@pytest.mark.parametrize(
    ("days", "hours"), [("mon-sun", "00:00-24:00"), ("never", "08:00-09:00"), ("mon", "9-10")]
)
def test_what_is_always_open_or_wrong_never_changes(days, hours):
    assert calendar.next_change(days, hours, NOW) is None


@pytest.mark.parametrize(
    ("look_again_in_s", "rest"), [(None, 60.0), (90.0, 60.0), (7.0, 7.0), (0.01, 0.5), (-3.0, 0.5)]
)
def test_the_daemon_rests_until_a_timer_runs_out_but_no_longer_than_its_interval(
    look_again_in_s, rest
):
    at = None if look_again_in_s is None else NOW + look_again_in_s
    assert rest_s(at, 60.0, NOW) == pytest.approx(rest)
