"""A leader resigns after a bounded number of failures, and its next candidacy is delayed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.backoff import Backoff
from mesaform.common.conditions import (
    Condition,
    Conditions,
    Limit,
    Resignations,
    Resigned,
)

LIMIT = Limit(failures=3, seconds=10.0)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def conditions(clock):
    return Conditions(list(Condition), clock, dict.fromkeys(Condition, LIMIT))


def test_a_leader_without_failures_goes_on_and_has_no_reasons():
    able = conditions(Clock())
    able.check()
    assert (able.unmet, able.reasons()) == ({}, [])
    assert set(able.gauge().values()) == {1}


def test_a_leader_resigns_after_enough_failures_that_last_long_enough():
    clock = Clock()
    able = conditions(clock)
    for clock.now in (0.0, 1.0, 2.0):
        able.failed(Condition.ORDERS, "S3 does not answer")
        able.check()  # three failures, but in two seconds
    clock.now = 10.0
    with pytest.raises(Resigned, match="orders readable: S3 does not answer") as caught:
        able.check()
    assert caught.value.condition is Condition.ORDERS
    assert able.gauge()[Condition.ORDERS] == 0
    assert able.reasons() == ["orders readable: S3 does not answer (3 times in 10 s)"]


def test_a_success_between_failures_begins_the_count_again():
    clock = Clock()
    able = conditions(clock)
    for clock.now in range(0, 100, 10):
        able.failed(Condition.PASSES, "no master")
        able.failed(Condition.PASSES, "no master")
        able.check()
        able.satisfied(Condition.PASSES)


@given(st.lists(st.tuples(st.sampled_from(Condition), st.booleans(), st.floats(0.0, 5.0))))
def test_a_leader_resigns_exactly_when_a_limit_is_reached(steps):
    clock = Clock()
    able = conditions(clock)
    runs: dict[Condition, list[float]] = {condition: [] for condition in Condition}
    for condition, succeeds, passed_s in steps:
        clock.now += passed_s
        if succeeds:
            able.satisfied(condition)
            runs[condition] = []
        else:
            able.failed(condition, "x")
            runs[condition].append(clock.now)
        is_due = any(len(run) >= 3 and clock.now - run[0] >= 10.0 for run in runs.values())
        try:
            able.check()
        except Resigned:
            assert is_due
        else:
            assert not is_due


def test_each_resignation_doubles_the_pause_until_the_leader_works_again():
    resignations = Resignations(Backoff(2.0, 60.0))
    resigned = Resigned(Condition.CREDENTIALS, "IMDS does not answer")
    pauses = []
    for _ in range(7):
        resignations.add(resigned, 0.0)
        pauses.append(resignations.pause_s(0.0))
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert resignations.counts == {"credentials": 7}
    assert resignations.pause_s(59.0) == 1.0
    resignations.worked()
    assert resignations.pause_s(0.0) == 0.0
