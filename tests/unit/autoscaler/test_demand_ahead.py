"""Capacity for future work: hints, calendar, weekly profile, headroom. Nothing counts twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import NOW, a_machine, a_snapshot, a_spec, an_agent, queued
from mesaform.autoscaler import demand
from mesaform.autoscaler.demand import scheduled
from mesaform.autoscaler.forecasting import weekly_profile
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import Shape, make
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.weekly_profile import Profile
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.reason_text import render_all
from mesaform.aws.overrides import Override
from tests.support.profiles import examples

MONDAY_9 = datetime(2027, 1, 18, 9, tzinfo=UTC).timestamp()
WEEK_S = weekly_profile.WEEK_S
BOOT: dict[str, Any] = {"boot_timeout_s": 600, "ahead_margin_s": 60}
LEAD_S = 600 * scheduled.BOOT_SHARE + 60


def hint(
    name: str = "h1",
    count: int = 10,
    cpus: float = 1,
    mem_mib: float = 512,
    at: float = NOW - 60,
    **fields,
) -> Override:
    order = Override(
        id=name,
        kind="hint",
        by="ops@desk",
        at=at,
        until=NOW + 1800,
        cpus=cpus,
        mem_mib=mem_mib,
        count=count,
    )
    return replace(order, **fields)


def using(cpus: float = 0, mem_mib: float = 0, **fields) -> Snapshot:
    """A cluster whose agents run this much, of one large agent."""
    machine = a_machine("i-t1", by="terraform")
    agent = an_agent(
        machine, total=make(400, 999999), allocated=make(cpus, mem_mib), tasks=round(cpus)
    )
    return a_snapshot(fields.pop("spec", None), machines=[machine], agents=[agent], **fields)


def counts(snapshot: Snapshot, source: str, now: float = NOW) -> list[int]:
    return [unit.count for unit in demand.collect(snapshot, now) if unit.source == source]


def pass_by(snapshot: Snapshot, before: PlannerState, now: float = NOW) -> PlannerState:
    return demand.remember(before, replace(snapshot, state=before), now)


# hints


def test_a_hint_asks_for_all_its_room_beside_what_ran_when_it_was_given():
    first = using(20, 20480, overrides=(hint(),))
    memory = pass_by(first, PlannerState())
    assert counts(first, "hint") == [10]
    assert counts(replace(first, state=memory), "hint") == [10]


def test_work_that_comes_takes_the_hint_s_room_whether_it_waits_or_runs():
    memory = pass_by(using(20, 20480, overrides=(hint(),)), PlannerState())
    some = using(20, 20480, overrides=(hint(),), state=memory, queue=[queued("/new", 4)])
    assert counts(some, "hint") == [6]
    running = using(24, 22528, overrides=(hint(),), state=memory)
    assert counts(running, "hint") == [6]
    assert "4 of them arrived" in next(
        render_all(unit.reasons) for unit in demand.collect(running, NOW) if unit.source == "hint"
    )
    assert counts(using(30, 25600, overrides=(hint(),), state=memory), "hint") == []


def test_room_that_work_left_again_is_kept_until_the_hint_runs_out():
    memory = pass_by(using(20, 20480, overrides=(hint(),)), PlannerState())
    memory = pass_by(using(30, 25600, overrides=(hint(),)), memory)
    assert counts(using(20, 20480, overrides=(hint(),), state=memory), "hint") == [10]
    assert counts(using(20, 20480, overrides=(hint(until=NOW - 1),), state=memory), "hint") == []


def test_other_work_that_ends_does_not_hide_work_that_comes():
    memory = pass_by(using(20, 20480, overrides=(hint(),)), PlannerState())
    memory = pass_by(using(8, 20480, overrides=(hint(),)), memory)
    memory = pass_by(using(8, 8192, overrides=(hint(),)), memory)
    assert counts(using(18, 13312, overrides=(hint(),), state=memory), "hint") == []


def test_two_hints_add_up_and_work_takes_the_older_one_s_room_only_once():
    old, new = hint("h1"), hint("h2", at=NOW - 10)
    memory = pass_by(using(0, 0, overrides=(old,)), PlannerState())
    memory = pass_by(using(5, 2560, overrides=(old, new)), memory)
    assert counts(using(5, 2560, overrides=(old, new), state=memory), "hint") == [5, 10]
    assert counts(using(10, 5120, overrides=(old, new), state=memory), "hint") == [10]
    assert counts(using(17, 8704, overrides=(old, new), state=memory), "hint") == [3]


def test_a_hint_in_a_pool_is_taken_by_work_of_that_pool_only():
    spec = a_spec(pools=[{}, {"name": "big", "count": 0}])
    order = hint(pool="big")
    memory = pass_by(using(0, 0, spec=spec, overrides=(order,)), PlannerState())
    assert counts(using(8, 4096, spec=spec, overrides=(order,), state=memory), "hint") == [10]
    there = using(
        0,
        0,
        spec=spec,
        overrides=(order,),
        state=memory,
        queue=[queued(count=4, constraints=[("pool", "IS", "big")])],
    )
    assert counts(there, "hint") == [6]


def test_a_hint_that_is_gone_is_forgotten():
    memory = pass_by(using(20, 20480, overrides=(hint(),)), PlannerState())
    assert set(memory.hint_baselines) == {"h1"}
    assert pass_by(using(20, 20480), memory).hint_baselines == {}


# the calendar


def calendar_spec(**entry):
    fields = {
        "days": "mon-fri",
        "hours": "09:00-18:00",
        "count": 20,
        "cpus": 1,
        "mem_mib": 512,
        **entry,
    }
    return a_spec(calendar=[fields], **BOOT)


def test_the_calendar_s_work_has_room_a_boot_and_a_margin_before_it_begins_and_none_after_it_ends():
    snapshot = using(spec=calendar_spec())
    assert counts(snapshot, "calendar", MONDAY_9 - LEAD_S - 1) == []
    assert counts(snapshot, "calendar", MONDAY_9 - LEAD_S) == [20]
    assert counts(snapshot, "calendar", MONDAY_9 + 9 * 3600 - 1) == [20]
    assert counts(snapshot, "calendar", MONDAY_9 + 9 * 3600) == []
    assert counts(snapshot, "calendar", MONDAY_9 - 86400) == [], "a Sunday"


def test_an_entry_shorter_than_a_boot_keeps_its_room_from_the_purchase_on():
    snapshot = using(spec=calendar_spec(hours="09:00-09:01"))
    assert all(
        counts(snapshot, "calendar", MONDAY_9 - back) == [20]
        for back in range(0, int(LEAD_S) + 1, 15)
    )


def test_what_runs_and_what_waits_counts_towards_the_calendar():
    snapshot = using(12, 6144, spec=calendar_spec(), queue=[queued(count=3)])
    assert counts(snapshot, "calendar", MONDAY_9) == [5]
    assert counts(using(25, 99999, spec=calendar_spec()), "calendar", MONDAY_9) == []
    reason = next(
        render_all(unit.reasons)
        for unit in demand.collect(snapshot, MONDAY_9)
        if unit.source == "calendar"
    )
    assert (
        reason == "the calendar has 20 x (1 cpus, 512 MiB memory) mon-fri 09:00-18:00 UTC;"
        " 15 are in use, waiting or reserved"
    )


def test_a_hint_s_room_counts_towards_the_calendar():
    order = hint(at=MONDAY_9 - 60, until=MONDAY_9 + 60)
    snapshot = using(spec=calendar_spec(), overrides=(order,))
    assert counts(snapshot, "hint", MONDAY_9) == [10]
    assert counts(snapshot, "calendar", MONDAY_9) == [10]


# past weeks


def weeks(*cpus: float, hour: int = 9, mem_mib_each: float = 1024) -> Profile:
    """So much ran on the Mondays before `MONDAY_9` from then on for an hour, the oldest first."""
    known = Profile()
    for back, level in zip(range(len(cpus), 0, -1), cpus, strict=True):
        start = MONDAY_9 - back * WEEK_S + (hour - 9) * 3600
        for slot in range(-8, 12):
            amount = level if 0 <= slot < 4 else 2
            for second in (0, 450, 890):
                levels = {
                    "default": (
                        round(amount * 1000),
                        round(amount * mem_mib_each * 1000),
                        round(amount),
                    )
                }
                known = weekly_profile.learn(known, levels, start + slot * 900 + second)
    return known


def learned_spec(**fields):
    return a_spec(profile={"enabled": True, **fields}, **BOOT)


def test_what_past_mondays_needed_is_bought_a_boot_and_a_margin_ahead():
    snapshot = using(2, 2048, spec=learned_spec(), profile=weeks(40, 40, 40))
    assert counts(snapshot, "profile", MONDAY_9 - LEAD_S - 1) == []
    assert counts(snapshot, "profile", MONDAY_9 - LEAD_S) == [38]
    unit = next(
        unit for unit in demand.collect(snapshot, MONDAY_9 - 60) if unit.source == "profile"
    )
    assert unit.shape == make(1, 1024)
    assert render_all(unit.reasons) == (
        "the last 3 Mondays 09:00 UTC used 40 cpus and 40960 MiB at p80 in pool default;"
        " 2 cpus and 2048 MiB are in use, waiting or reserved"
    )
    planned = plan(replace(snapshot, state=PlannerState(leader_since=0.0)), MONDAY_9 - LEAD_S)
    assert planned.verdicts[0].unit.source == "profile"


def test_it_is_off_by_default():
    assert counts(using(2, 2048, profile=weeks(40, 40, 40)), "profile", MONDAY_9) == []


def test_one_week_is_not_enough():
    assert counts(using(2, 2048, spec=learned_spec(), profile=weeks(40)), "profile", MONDAY_9) == []
    assert counts(
        using(2, 2048, spec=learned_spec(), profile=weeks(40, 40)), "profile", MONDAY_9
    ) == [38]


def test_what_runs_waits_or_is_kept_already_satisfies_the_forecast():
    known, spec = weeks(40, 40), learned_spec()
    assert counts(
        using(30, 40960, spec=spec, profile=known, queue=[queued(count=6)]), "profile", MONDAY_9
    ) == [4]
    assert counts(using(50, 51200, spec=spec, profile=known), "profile", MONDAY_9) == []
    order = hint(at=MONDAY_9 - 60, until=MONDAY_9 + 60, count=10, mem_mib=1024)
    assert counts(
        using(2, 2048, spec=spec, profile=known, overrides=(order,)), "profile", MONDAY_9
    ) == [28]


def test_the_calendar_and_the_profile_of_the_same_work_do_not_add_up():
    entry = {"days": "mon", "hours": "09:00-10:00", "count": 30, "cpus": 1, "mem_mib": 1024}
    spec = a_spec(profile={"enabled": True}, calendar=[entry], **BOOT)
    snapshot = using(2, 2048, spec=spec, profile=weeks(40, 40))
    assert (counts(snapshot, "calendar", MONDAY_9), counts(snapshot, "profile", MONDAY_9)) == (
        [28],
        [10],
    )


def test_memory_that_is_lacking_is_bought_as_cpus_are():
    assert counts(
        using(40, 2048, spec=learned_spec(), profile=weeks(40, 40)), "profile", MONDAY_9
    ) == [38]


def test_a_holiday_is_given_up_after_half_an_hour_and_the_next_week_believed_again():
    known = weeks(40, 40, 40)
    snapshot = using(2, 2048, spec=learned_spec(), profile=known)
    for second in range(0, 4 * 900, 60):
        known = weekly_profile.learn(
            known, {"default": (2000, 2048000, 2)}, MONDAY_9 - 900 + second
        )
        believed = counts(replace(snapshot, profile=known), "profile", MONDAY_9 - 900 + second)
        assert believed == ([38] if 900 - LEAD_S <= second < 2700 else [])
    assert counts(replace(snapshot, profile=known), "profile", MONDAY_9 + WEEK_S) == [38]


def test_how_far_ahead_follows_what_machines_took_to_boot():
    machines = [a_machine(f"i-{number}", launched_at=NOW - 5000) for number in range(3)]
    took = {"i-0": NOW - 5000 + 80, "i-1": NOW - 5000 + 100, "i-2": NOW - 10}
    memory = PlannerState(registered_at=took)
    assert (
        scheduled.lead(a_snapshot(a_spec(**BOOT), machines=machines, agents=[], state=memory))
        == 90 + 60
    )
    assert scheduled.lead(a_snapshot(a_spec(**BOOT))) == LEAD_S


# headroom


def test_headroom_comes_on_top_of_everything():
    spec = a_spec(headroom_slots=[{"count": 3, "cpus": 1, "mem_mib": 512}], headroom_percent=50)
    snapshot = using(20, 20480, spec=spec, queue=[queued(count=5)], overrides=(hint(),))
    assert sorted(
        unit.count for unit in demand.collect(snapshot, NOW) if unit.source == "headroom"
    ) == [3, 10]


# whatever there is


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    cpus = draw(st.integers(0, 60))
    entries = [
        queued(
            f"/app{number}",
            draw(st.integers(0, 6)),
            cpus=draw(st.sampled_from([0.5, 1, 2])),
            overdue=draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    orders = tuple(
        hint(f"h{number}", draw(st.integers(1, 12)), at=NOW - 60 + number)
        for number in range(draw(st.integers(0, 3)))
    )
    base: dict[str, Shape] = {
        order.id: make(draw(st.integers(0, 60)), draw(st.integers(0, 60)) * 512) for order in orders
    }
    spec = a_spec(
        calendar=[{"count": draw(st.integers(1, 30)), "cpus": 1, "mem_mib": 512}]
        if draw(st.booleans())
        else [],
        headroom_percent=draw(st.sampled_from([0, 20])),
        profile={"enabled": draw(st.booleans())},
        **BOOT,
    )
    return using(
        cpus,
        cpus * 512,
        spec=spec,
        queue=entries,
        overrides=orders,
        state=PlannerState(hint_baselines=base),
        profile=weeks(20, 30, mem_mib_each=512),
    )


AHEAD = ("hint", "calendar", "profile")


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None)
@given(clusters())
def test_fused_demand_is_what_waits_and_no_more_room_ahead_than_was_asked_for(snapshot):
    result = demand.collect(snapshot, MONDAY_9 if snapshot.spec.autoscaler.profile.enabled else NOW)
    waiting = sum(entry.count for entry in snapshot.queue or () if entry.overdue)
    assert sum(unit.count for unit in result if unit.source == "services") == waiting
    assert all(unit.count > 0 and unit.reasons for unit in result)
    assert len({unit.key for unit in result}) == len(result)
    for order in snapshot.overrides:
        assert sum(unit.count for unit in result if unit.name == f"hint {order.id}") <= order.count
    asked = sum(entry.count for entry in snapshot.spec.autoscaler.calendar)
    assert sum(unit.count for unit in result if unit.source == "calendar") <= asked


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None)
@given(clusters(), st.integers(1, 10))
def test_more_work_never_asks_for_more_room_ahead_and_takes_no_more_than_its_own(snapshot, more):
    """Each source of capacity ahead shrinks by at most the work that came, and never grows."""
    arrived = queued("/arrived", more, cpus=1, mem_mib=512)
    after = replace(snapshot, queue=(*(snapshot.queue or ()), arrived))
    for now in (NOW, MONDAY_9):
        for source in AHEAD:
            before_cpus, after_cpus = (
                sum(
                    unit.shape[0] * unit.count
                    for unit in demand.collect(item, now)
                    if unit.source == source
                )
                for item in (snapshot, after)
            )
            if source == "hint":
                assert after_cpus <= before_cpus
        totals = [
            sum(
                unit.shape[0] * unit.count
                for unit in demand.collect(item, now)
                if unit.source in AHEAD
            )
            for item in (snapshot, after)
        ]
        assert totals[1] <= totals[0]


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_hints_never_keep_less_than_what_was_asked_less_what_came(history, first, second):
    """Under any use, reserved capacity and work since the first of two hints cover both hints."""
    orders = (hint("h1", first), hint("h2", second, at=NOW - 30))
    memory, lowest = PlannerState(), None
    for cpus, waiting in history:
        snapshot = using(
            cpus, cpus * 512, overrides=orders, state=memory, queue=[queued(count=waiting)]
        )
        here = cpus + waiting
        lowest = here if lowest is None else min(lowest, here)
        assert sum(counts(snapshot, "hint")) >= first + second - (here - lowest)
        assert sum(counts(snapshot, "hint")) <= first + second
        memory = pass_by(snapshot, memory)


@pytest.mark.parametrize("source", AHEAD)
def test_room_ahead_is_pinned_to_a_pool_only_where_it_is_asked_for(source):
    snapshot = using(
        spec=a_spec(
            profile={"enabled": True}, calendar=[{"count": 60, "cpus": 1, "mem_mib": 512}], **BOOT
        ),
        overrides=(hint(),),
    )
    snapshot = replace(snapshot, profile=weeks(90, 90))
    result = [unit for unit in demand.collect(snapshot, MONDAY_9) if unit.source == source]
    assert [unit.constraints != () for unit in result] == (
        [source == "profile"] if source != "hint" else []
    )
    assert [
        unit.constraints for unit in demand.collect(snapshot, NOW) if unit.source == "hint"
    ] == [()]
