"""The weekly profile: what it stores, its forecasts, and their worth on noisy weeks."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.autoscaler_builders import NOW, a_machine, a_snapshot, an_agent
from mesaform.autoscaler.daemon.weekly_profile_store import PROFILE, Learner, readable
from mesaform.autoscaler.forecasting import weekly_profile
from mesaform.autoscaler.forecasting.weekly_profile import (
    SLOT_S,
    SLOTS,
    WEEK_S,
    expected,
    forecast,
    learn,
    slot_number,
)
from mesaform.autoscaler.model.weekly_profile import Level, Profile
from mesaform.common.errors import Retryable
from mesaform.testing.fake_cloud import FakeControl

MONDAY = 2000 * WEEK_S - weekly_profile.MONDAY_S
"""The first moment of a week."""


def watched(levels: dict[int, int], start: float = MONDAY, known: Profile | None = None) -> Profile:
    """A profile after slots from `start` with so many cpus; the slot after the last has begun."""
    known = known or Profile()
    for slot, cpus in levels.items():
        for second in (0, SLOT_S // 2, SLOT_S - 1):
            known = learn(known, {"default": (cpus, cpus, 1)}, start + slot * SLOT_S + second)
    return learn(known, {"default": (0, 0, 0)}, start + (max(levels) + 1) * SLOT_S)


def mondays(*cpus: int) -> Profile:
    known = Profile()
    for week, level in enumerate(cpus):
        known = watched({0: level}, MONDAY + week * WEEK_S, known)
    return known


def forecast_demand(known: Profile, week: int, **options: float) -> int | None:
    result = forecast(
        known,
        "default",
        MONDAY + week * WEEK_S,
        options.get("quantile", 0.8),
        options.get("half_life_weeks", 1e15),
    )
    return None if result is None else result.level[0]


def test_weeks_begin_on_monday_at_midnight_utc():
    assert slot_number(MONDAY) % SLOTS == 0
    assert slot_number(MONDAY - 1) % SLOTS == SLOTS - 1
    result = forecast(mondays(1, 1), "default", MONDAY + 2 * WEEK_S + 61, 0.8, 4)
    assert result is not None
    assert (result.when, result.weeks, result.at) == ("Mondays 00:00", 2, MONDAY + 2 * WEEK_S)


def test_a_slot_keeps_the_most_that_ran_in_it_of_each_resource():
    known = Profile()
    for second, level in ((0, (5, 1, 2)), (300, (2, 9, 1)), (SLOT_S - 1, (1, 1, 7))):
        known = learn(known, {"default": level}, MONDAY + second)
    known = learn(known, {"default": (0, 0, 0)}, MONDAY + SLOT_S)
    assert known.pools["default"][0].levels == {0: (5, 9, 7)}


def test_a_slot_watched_for_less_than_half_teaches_nothing():
    known = learn(Profile(), {"default": (5, 5, 1)}, MONDAY + SLOT_S * 0.6)
    known = learn(known, {"default": (5, 5, 1)}, MONDAY + SLOT_S - 1)
    assert learn(known, {}, MONDAY + SLOT_S).pools == {}


def test_a_forecast_takes_two_weeks_and_never_looks_at_its_own():
    assert forecast_demand(mondays(4), 1) is None
    assert forecast_demand(mondays(4, 4), 1) is None
    assert forecast_demand(mondays(4, 4), 2) == 4
    assert forecast_demand(Profile(), 2) is None


@pytest.mark.parametrize(
    ("quantile", "expected_cpus"), [(0.2, 10), (0.5, 30), (0.8, 40), (0.81, 50), (1.0, 50)]
)
def test_a_forecast_is_a_quantile_over_the_weeks(quantile, expected_cpus):
    assert forecast_demand(mondays(50, 10, 30, 20, 40), 5, quantile=quantile) == expected_cpus


def test_recent_weeks_weigh_more():
    known = mondays(50, 50, 50, 10, 10)
    assert forecast_demand(known, 5, quantile=0.7) == 50
    assert forecast_demand(known, 5, quantile=0.7, half_life_weeks=1) == 10


def test_only_eight_weeks_are_kept():
    known = mondays(*range(1, 13))
    assert len(known.pools["default"]) == weekly_profile.KEEP_WEEKS + 1
    assert forecast_demand(known, 12, quantile=0.01) == 4


def test_the_most_within_the_time_that_machines_take_counts():
    known = Profile()
    for week in range(2):
        known = watched({0: 2, 1: 9, 2: 30}, MONDAY + week * WEEK_S, known)
    at = MONDAY + 2 * WEEK_S
    assert [
        expected(known, "default", at, lead_s, 0.8, 4).level[0]
        for lead_s in (0, SLOT_S - 1, SLOT_S, 2 * SLOT_S)
    ] == [2, 2, 9, 30]
    assert expected(known, "other", at, 0, 0.8, 4) is None


def test_nothing_is_believed_while_the_last_hour_lacked_more_than_three_tenths_of_the_forecast():
    known = Profile()
    for week in range(2):
        known = watched(dict.fromkeys(range(8), 10), MONDAY + week * WEEK_S, known)
    start = MONDAY + 2 * WEEK_S
    for level, believed in ((7, True), (6, False)):
        seen = watched(dict.fromkeys(range(4), level), start, known)
        assert (expected(seen, "default", start + 4 * SLOT_S, 0, 0.8, 4) is not None) == believed
    back = watched({4: 10, 5: 10}, start, watched(dict.fromkeys(range(4), 6), start, known))
    assert expected(back, "default", start + 6 * SLOT_S, 0, 0.8, 4) is not None, (
        "what was forecast_demand comes again"
    )


def test_a_night_quieter_than_its_forecast_does_not_change_the_forecast_of_the_morning():
    known = Profile()
    for week in range(2):
        known = watched({**dict.fromkeys(range(4), 2), 4: 40}, MONDAY + week * WEEK_S, known)
    start = MONDAY + 2 * WEEK_S
    result = expected(
        watched(dict.fromkeys(range(4), 0), start, known), "default", start + 4 * SLOT_S, 0, 0.8, 4
    )
    assert result is not None
    assert result.level[0] == 40


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats(0.001, 1)), min_size=1, max_size=9),
    st.floats(0.01, 1),
)
def test_a_weighted_quantile_is_one_of_the_values_and_covers_its_share(values, quantile):
    result = weekly_profile._quantile(values, quantile)
    total = sum(weight for _, weight in values)
    assert result in [value for value, _ in values]
    assert sum(weight for value, weight in values if value <= result) >= quantile * total - 1e-9
    assert sum(weight for value, weight in values if value < result) <= quantile * total + 1e-9


# kept in S3


def test_a_profile_survives_being_kept():
    known = mondays(4, 5)
    assert PROFILE.decode(msgspec.json.encode(msgspec.to_builtins(known, str_keys=True))) == known
    assert readable(None) == readable(PROFILE.decode(b'{"pools": 3}')) == Profile()


def running(cpus: int):
    machine = a_machine("i-1")
    level: Level = (cpus * 1000, cpus * 1000, 1)
    return a_snapshot(
        machines=[machine],
        agents=[an_agent(machine, allocated=(level[0], level[1], 0, 0, 0), tasks=1)],
    )


async def taught(learner: Learner, seconds: range) -> None:
    for second in seconds:
        await learner.begin(NOW + second)
        await learner.learn(running(3), NOW + second)


async def test_each_slot_that_ends_is_written_and_the_next_term_goes_on_from_there():
    control = FakeControl()
    start = -int(NOW) % SLOT_S
    first = Learner(control)
    await taught(first, range(start, start + SLOT_S, 100))
    assert control.read_record("profile", PROFILE) is None
    await taught(first, range(start + SLOT_S, start + SLOT_S + 200, 100))
    second = Learner(control)
    await second.begin(NOW + start + SLOT_S + 200)
    assert second.known is not None
    assert [week.levels for week in second.known.pools["default"]] == [
        {slot_number(NOW + start) % SLOTS: (3000, 3000, 1)}
    ]
    assert second.known.slot == -1, "nobody watched for 100 s and more: that slot begins anew"


async def test_s3_out_of_reach_is_tried_again_a_minute_later_and_nothing_is_lost():
    control = FakeControl()
    control.fail_next = Retryable("gone", after_s=1)
    learner = Learner(control)
    await learner.begin(NOW)
    assert learner.known is None
    await learner.begin(NOW + 59)
    assert learner.known is None
    await learner.begin(NOW + 60)
    assert learner.known == Profile(slot=-1)
