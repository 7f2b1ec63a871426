from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.backoff import Backoff, Delay


def test_delays_double_up_to_the_cap():
    policy = Backoff(first_s=1.0, cap_s=10.0)
    assert [policy.delay_s(failures) for failures in range(7)] == [0, 1, 2, 4, 8, 10, 10]


def test_a_factor_of_one_keeps_the_delay():
    assert Backoff(first_s=3.0, cap_s=9.0, factor=1.0).delay_s(5000) == 3.0


def test_jitter_takes_off_at_most_its_part_of_a_delay():
    policy = Backoff(first_s=8.0, cap_s=8.0, jitter=0.25)
    assert policy.delay_s(1, fraction=0.0) == 6.0
    assert policy.delay_s(1, fraction=1.0) == 8.0


@given(st.integers(0, 10_000_000), st.floats(1.0, 10.0), st.floats(0, 1), st.floats(0, 1))
def test_a_delay_is_never_negative_nor_above_the_cap(failures, factor, jitter, fraction):
    policy = Backoff(first_s=0.5, cap_s=60.0, factor=factor, jitter=jitter)
    assert 0 <= policy.delay_s(failures, fraction) <= 60.0


@pytest.mark.parametrize(
    "settings",
    [
        {"first_s": -1.0, "cap_s": 1.0},
        {"first_s": 2.0, "cap_s": 1.0},
        {"first_s": 1.0, "cap_s": 1.0, "factor": 0.5},
        {"first_s": 1.0, "cap_s": 1.0, "jitter": 1.5},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match=r"first_s|factor|jitter"):
        Backoff(**settings)


def test_a_success_ends_the_delay():
    policy = Backoff(first_s=2.0, cap_s=8.0)
    delay = Delay().after_failure(policy, now=100.0).after_failure(policy, now=200.0)
    assert delay.failures == 2
    assert delay.remaining_s(now=201.0) == 3.0
    assert delay.remaining_s(now=300.0) == 0.0
    assert delay.after_success().remaining_s(now=0.0) == 0.0
