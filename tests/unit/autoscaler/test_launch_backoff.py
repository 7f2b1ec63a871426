"""Launch budgets: bounded after errors, never starving, remembered by the next leader."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.autoscaler_builders import (
    NOW,
    ZONES,
    a_machine,
    a_snapshot,
    a_spec,
    offerings,
    queued,
)
from mesaform.autoscaler.daemon.journal import STATE, JournalState
from mesaform.autoscaler.model.planner_state import Backoff, PlannerState
from mesaform.autoscaler.planner import launch_backoff
from mesaform.autoscaler.planner.launch_backoff import (
    FIRST_BLOCK_S,
    FIRST_PAUSE_S,
    MAX_AT_ONCE,
    MAX_BLOCK_S,
    MAX_PAUSE_S,
    LaunchQuota,
)
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.verdict_text import render_refusal
from mesaform.aws import capacity_errors
from mesaform.aws.ports import Capacity, LaunchRequest, LaunchResult, Offering
from tests.unit.autoscaler.world import World

POOL = "default"
ALL = offerings(a_spec(pools=[{"types": ["m5.large", "m5.xlarge", "c5.large"]}]))[POOL]


def an_offering(
    kind: str = "m5.large", zone: str = ZONES[0], capacity: Capacity = "on-demand"
) -> Offering:
    return next(o for o in ALL if o.key == f"{kind}/{zone}/{capacity}")


A, B = an_offering(), an_offering("c5.large")


def a_request(count: int, *offered: Offering) -> LaunchRequest:
    return LaunchRequest("toy", POOL, count, offered or (A,), f"ms-{count}")


def a_result(without: tuple[str, ...] = (), **given: int) -> LaunchResult:
    """`given` maps `A` and `B` to machines given."""
    of = {"A": A, "B": B}
    return LaunchResult(
        tuple(
            a_machine(
                f"i-{name}{n}",
                instance_type=of[name].instance_type,
                zone=of[name].zone,
                capacity=of[name].capacity,
            )
            for name, count in given.items()
            for n in range(count)
        ),
        without,
    )


def after(
    *calls: tuple[LaunchRequest, LaunchResult, float], known: dict[str, Backoff] | None = None
) -> dict[str, Backoff]:
    known = known or {}
    for request, result, at in calls:
        known = launch_backoff.absorb(known, request, result, at)
    return known


def asks(
    known: dict[str, Backoff], now: float, count: int = 1000, *offered: Offering
) -> list[tuple[int, list[str]]]:
    actual = LaunchQuota(known, now).split(count, offered or (A,), POOL)
    return [(asked, [o.key for o in named]) for asked, named in actual]


def test_without_errors_one_call_names_all_and_asks_for_all() -> None:
    assert asks({}, NOW, 40, A, B) == [(40, [A.key, B.key])]
    assert LaunchQuota({}, NOW).split(0, (A,), POOL) == []


def test_a_large_purchase_is_cut_into_calls_of_a_bounded_size() -> None:
    assert [count for count, _ in asks({}, NOW, 700, A, B)] == [MAX_AT_ONCE, 200]


def test_an_error_halves_what_is_asked_and_the_offering_is_left_alone_twice_as_long_each_time() -> (
    None
):
    known: dict[str, Any] = {}
    now, waits, windows = NOW, [], []
    asked = 40
    for _ in range(7):
        known = after((a_request(asked), a_result((A.key,)), now), known=known)
        entry = known[A.key]
        waits.append(entry.until - now)
        windows.append(entry.window)
        assert asks(known, entry.until - 0.1) == []
        now = entry.until
        asked = asks(known, now)[0][0]
        assert asked == entry.window
    assert waits == [60, 120, 240, 480, 600, 600, 600]
    assert windows == [20, 10, 5, 2, 1, 1, 1]


def test_what_was_given_before_capacity_ran_out_is_what_may_be_asked_again() -> None:
    known = after((a_request(40), a_result((A.key,), A=30), NOW))
    assert (known[A.key].window, known[A.key].consecutive_errors) == (30, 1)
    assert asks(known, NOW + FIRST_BLOCK_S) == [(30, [A.key])]


def test_each_success_doubles_until_nothing_is_held_against_the_offering() -> None:
    known, now, sizes = {A.key: Backoff(NOW, 9, 1)}, NOW, []
    while A.key in known:
        asked = asks(known, now)[0][0]
        sizes.append(asked)
        known = after((a_request(asked), a_result(A=1), now), known=known)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert asks(known, now) == [(MAX_AT_ONCE, [A.key])]
    assert known == {}


def test_an_offering_on_trial_gets_a_small_call_with_the_others_behind_it() -> None:
    known = {A.key: Backoff(NOW - 1, 3, 2)}
    assert asks(known, NOW, 10, A, B) == [(2, [A.key, B.key]), (8, [B.key])]


def test_one_pass_asks_no_more_than_the_budget_in_all_its_calls() -> None:
    allowance = LaunchQuota({A.key: Backoff(NOW - 1, 3, 4)}, NOW)
    assert [count for count, _ in allowance.split(3, (A,), POOL)] == [3]
    assert [count for count, _ in allowance.split(3, (A,), POOL)] == [1]
    assert allowance.split(3, (A,), POOL) == []


def test_where_there_is_no_capacity_on_demand_spot_is_not_tried_and_the_other_way_round_it_is() -> (
    None
):
    spot = an_offering(capacity="spot")
    on_demand_out = after((a_request(1, A, B), a_result((A.key,), B=1), NOW))
    assert launch_backoff.is_blocked(on_demand_out, spot, POOL, NOW + 1)
    spot_out = after((a_request(1, spot), a_result((spot.key,)), NOW))
    assert not launch_backoff.is_blocked(spot_out, A, POOL, NOW + 1)
    assert not launch_backoff.is_blocked(
        on_demand_out, an_offering(zone=ZONES[1], capacity="spot"), POOL, NOW + 1
    )


@pytest.mark.parametrize(
    ("code", "ends", "goes_on"),
    [
        (
            "InsufficientInstanceCapacity",
            ["m5.large/us-east-1a/on-demand"],
            ["m5.xlarge/us-east-1a/on-demand"],
        ),
        (
            "InsufficientFreeAddressesInSubnet",
            ["c5.large/us-east-1a/on-demand"],
            ["m5.large/us-east-1b/on-demand"],
        ),
        (
            "InsufficientFreeAddressesInSubnet",
            ["m5.large/us-east-1a/spot"],
            ["m5.large/us-east-1b/on-demand"],
        ),
        ("VcpuLimitExceeded", ["c5.large/us-east-1b/on-demand"], ["m5.large/us-east-1a/spot"]),
    ],
)
def test_an_error_speaks_for_all_that_it_is_about(
    code: str, ends: list[str], goes_on: list[str]
) -> None:
    known = after((a_request(1, A, B), a_result((capacity_errors.of_error(code, A.key),)), NOW))
    of = {o.key: o for o in ALL}
    for key in ends:
        assert launch_backoff.is_blocked(known, of[key], "another pool", NOW + 1), key
    for key in goes_on:
        assert not launch_backoff.is_blocked(known, of[key], "another pool", NOW + 1), key


def test_a_machine_from_a_zone_or_a_quota_disproves_what_was_thought_of_it() -> None:
    known = {
        capacity_errors.of_zone(ZONES[0]): Backoff(NOW + 99, 1),
        capacity_errors.of_quota("m5.large", "on-demand"): Backoff(NOW + 99, 1),
    }
    assert after((a_request(1), a_result(A=1), NOW), known=known) == {}


@pytest.mark.parametrize(
    ("name", "quota"),
    [
        ("m5.large", "standard"),
        ("t3.micro", "standard"),
        ("z1d.large", "standard"),
        ("is4gen.large", "standard"),
        ("g5.xlarge", "g"),
        ("p4d.24xlarge", "p"),
        ("inf2.xlarge", "inf"),
        ("hpc7g.4xlarge", "hpc"),
        ("trn1.2xlarge", "trn"),
        ("x2gd.large", "x"),
        ("vt1.3xlarge", "vt"),
    ],
)
def test_types_are_counted_towards_their_quota(name: str, quota: str) -> None:
    assert capacity_errors.quota_of(name) == quota


def test_calls_that_give_nothing_are_paced_by_pool_and_one_that_gives_something_ends_that() -> None:
    known = after((a_request(1), a_result((A.key,)), NOW))
    assert launch_backoff.is_blocked(known, B, POOL, NOW + FIRST_PAUSE_S - 0.1)
    assert not launch_backoff.is_blocked(known, B, POOL, NOW + FIRST_PAUSE_S)
    assert not launch_backoff.is_blocked(known, B, "other", NOW)
    twice = after((a_request(1, B), a_result((B.key,)), NOW + 3), known=known)
    other = an_offering("m5.xlarge")
    assert (
        launch_backoff.next_try_at(twice, [(POOL, other)], NOW + 3) == NOW + 3 + 2 * FIRST_PAUSE_S
    )
    ended = after((a_request(1, other, B), a_result((other.key,), B=1), NOW + 9), known=twice)
    assert not launch_backoff.is_blocked(ended, an_offering("m5.xlarge", ZONES[1]), POOL, NOW + 9)


def test_an_old_error_is_forgotten() -> None:
    known = {A.key: Backoff(NOW, 5, 1)}
    assert A.key in launch_backoff.absorb(known, a_request(1, B), a_result(B=1), NOW + 3599)
    assert A.key not in launch_backoff.absorb(known, a_request(1, B), a_result(B=1), NOW + 3601)


def test_a_journal_of_before_launch_budgets_is_still_read() -> None:
    old = msgspec.to_builtins(PlannerState(backoffs={A.key: Backoff(NOW + 30, 2)}))
    del old["backoffs"][A.key]["window"]
    stored = STATE.decode(zlib.compress(msgspec.json.encode({"epoch": 4, "memory": old})))
    assert isinstance(stored, JournalState)
    state = stored.planner_state
    assert state.backoffs == {A.key: Backoff(NOW + 30, 2, 1)}
    assert asks(state.backoffs, NOW + 31) == [(1, [A.key])]


def test_a_purchase_is_cut_by_its_budget_and_the_rest_says_why_it_waits() -> None:
    spec = a_spec(pools=[{"types": ["m5.large"]}])
    memory = PlannerState(
        leader_since=NOW - 9,
        backoffs={f"m5.large/{zone}/on-demand": Backoff(NOW - 1, 2, 2) for zone in ZONES},
    )
    planned = plan(a_snapshot(spec, queue=[queued(count=20)], state=memory), NOW)
    requests = [action.request for step in planned.commands for action in step.actions]
    assert [request.count for request in requests] == [2, 2, 2]
    assert len({request.token for request in requests}) == 3
    assert len({request.offerings[0].key for request in requests}) == 3
    verdict = planned.verdicts[0]
    assert (verdict.buying, verdict.unmet) == (12, 8)
    assert "twice as many after each success" in render_refusal(verdict.refusal)


LIVES = st.lists(
    st.tuples(st.integers(1, 600), st.booleans(), st.integers(0, 900), st.sampled_from(["A", "B"])),
    min_size=1,
    max_size=40,
)


@pytest.mark.slow
@given(life=LIVES)
def test_asks_stay_bounded_and_what_has_capacity_again_is_asked_in_time_whatever_happened(
    life: list[tuple[int, bool, int, str]],
) -> None:
    known: dict[str, Backoff] = {}
    now, in_a_row = NOW, {"A": 0, "B": 0}
    for wanted, has, pause, name in life:
        now += pause
        offering = {"A": A, "B": B}[name]
        errors = in_a_row[name] if offering.key in known else 0  # what is an hour old is forgotten
        for asked, named in LaunchQuota(known, now).split(wanted, (offering,), POOL):
            assert 1 <= asked <= max(1, MAX_AT_ONCE >> errors)
            bought: dict[str, Any] = {name: asked}
            result = a_result(**bought) if has else a_result((offering.key,))
            known = launch_backoff.absorb(known, a_request(asked, *named), result, now)
            in_a_row[name] = 0 if has else errors + 1
    for offering in (A, B):
        assert not launch_backoff.is_blocked(known, offering, POOL, now + MAX_BLOCK_S), "starved"
        again = launch_backoff.absorb(
            known,
            a_request(1, offering),
            a_result(A=1) if offering is A else a_result(B=1),
            now + MAX_BLOCK_S,
        )
        assert not launch_backoff.is_blocked(again, offering, POOL, now + MAX_BLOCK_S)
    assert MAX_PAUSE_S <= MAX_BLOCK_S
    assert all(entry.window >= 1 and entry.until - now <= MAX_BLOCK_S for entry in known.values())


def nothing_to_be_had(types: list[str], seconds: float, **wanted: Any) -> World:
    world = World(a_spec(pools=[{"types": types, "max": 60, "count": 0}]), boot_s=30)
    for offering in world.offerings[POOL]:
        world.fleet.stock[offering.key] = 0
    world.want(queued("/web", **wanted))
    world.run(seconds, step_s=5)
    return world


@pytest.mark.slow
def test_an_outage_of_ninety_minutes_costs_few_calls_and_ends_ten_minutes_after_its_return() -> (
    None
):
    types = [
        "m5.large",
        "m5.xlarge",
        "m5.2xlarge",
        "m5.4xlarge",
        "c5.large",
        "c5.xlarge",
        "c5.4xlarge",
        "r5.large",
        "r5.xlarge",
    ]
    world = nothing_to_be_had(types, 5400, count=50, cpus=1, mem_mib=1024)
    calls = len(world.fleet.launches)
    named = [
        key
        for request in world.fleet.launches
        for key in {offering.key for offering in request.offerings}
    ]
    worst = max(named.count(key) for key in set(named))
    assert calls <= 60, (calls, len(named), worst)
    assert worst <= 13
    assert not world.ours
    world.fleet.stock.clear()
    world.run(MAX_BLOCK_S + 10, step_s=5)
    assert world.ours
    world.run(600, step_s=5)
    assert world.running("/web") == 50


@pytest.mark.slow
def test_a_type_that_runs_out_is_replaced_by_the_next_at_once_and_tried_again_later() -> None:
    world = World(
        a_spec(pools=[{"types": ["m5.large", "r5.large"], "max": 60, "count": 0}]), boot_s=10
    )
    for zone in ZONES:
        world.fleet.stock[f"m5.large/{zone}/on-demand"] = 1
    world.want(queued("/web", count=20, cpus=2, mem_mib=2048))
    world.run(60)
    assert world.running("/web") == 20
    assert sum(1 for machine in world.ours if machine.instance_type == "m5.large") == 3
    assert len([request for request in world.fleet.launches if request.count]) <= 4


def test_backoffs_of_a_change_of_leader_hold() -> None:
    keys = [f"m5.large/{zone}/on-demand" for zone in ZONES]
    memory = replace(
        PlannerState(), leader_since=NOW, backoffs={key: Backoff(NOW + 50, 2, 3) for key in keys}
    )
    encoded = msgspec.json.decode(msgspec.json.encode(memory), type=PlannerState)
    planned = plan(
        a_snapshot(a_spec(pools=[{"types": ["m5.large"]}]), queue=[queued()], state=encoded), NOW
    )
    assert not [step for step in planned.commands if step.decision.kind == "buy"]
    assert planned.state.backoffs == memory.backoffs
