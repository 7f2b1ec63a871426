"""EC2's request limits are kept on this side, and more strictly after a refusal."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from mesaform.aws.rate_limiter import MIN_RATE, Bucket, RateLimiter
from mesaform.common.errors import Permanent, Retryable


class Calls:
    """EC2 calls at moments that the test chooses. `error_code` is what EC2 answers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reached = 0
        self.error_code = ""
        self.limiter = RateLimiter(lambda: self.now)

    def call(self, action: str = "DescribeInstances", machines: int = 0) -> float:
        """Returns 0, or after how long to come again."""
        try:
            with self.limiter.limit(action, machines):
                self.reached += 1
                if self.error_code:
                    raise ClientError({"Error": {"Code": self.error_code}}, action)
        except Retryable as error:
            return error.after_s
        return 0.0

    def burst(self, action: str, count: int = 500) -> int:
        before = self.reached
        for _ in range(count):
            self.call(action)
        return self.reached - before


@pytest.mark.parametrize(
    ("action", "at_once", "each_second"),
    [("DescribeInstances", 100, 20), ("CreateFleet", 25, 2.5), ("TerminateInstances", 50, 2.5)],
)
def test_of_what_ec2_allows_the_account_half_of_the_changes_are_ours(
    action: str, at_once: int, each_second: float
) -> None:
    calls = Calls()
    assert calls.burst(action) == at_once
    calls.now += 4
    assert calls.burst(action) == 4 * each_second


def test_a_call_too_many_is_not_times_and_says_when_to_come_again() -> None:
    calls = Calls()
    calls.burst("CreateFleet")
    reached = calls.reached
    after_s = calls.call("CreateFleet")
    assert (calls.reached, after_s) == (reached, 0.4)
    calls.now += after_s
    assert calls.call("CreateFleet") == 0


def test_actions_have_buckets_of_their_own() -> None:
    calls = Calls()
    calls.burst("CreateFleet")
    assert calls.call("DescribeInstances") == 0


def test_machines_are_counted_as_well_as_calls() -> None:
    calls = Calls()
    assert calls.call("CreateFleet", 500) == 0
    assert calls.call("CreateFleet", 500) == 0
    assert calls.call("CreateFleet", 100) == pytest.approx(50)
    calls.now += 50
    assert calls.call("CreateFleet", 100) == 0


def test_more_machines_than_the_bucket_holds_wait_until_it_is_full_and_no_longer() -> None:
    calls = Calls()
    assert calls.call("CreateFleet", 1500) == 0
    assert calls.call("CreateFleet", 1) == pytest.approx(250.5)


def test_after_a_refusal_the_action_rests_twice_as_long_each_time_and_then_goes_more_slowly() -> (
    None
):
    calls = Calls()
    calls.error_code = "RequestLimitExceeded"
    waits = []
    for _ in range(7):
        waits.append(calls.call())
        reached = calls.reached
        assert calls.call() > 0
        assert calls.reached == reached
        calls.now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, 60, 60]
    calls.error_code = ""
    calls.now += 1000
    assert calls.call() == 0
    calls.burst("DescribeInstances")
    before = calls.reached
    for _ in range(10):
        calls.now += 1
        calls.burst("DescribeInstances", 40)
    assert 5 <= calls.reached - before <= 200


def test_successes_bring_the_rate_back() -> None:
    bucket = Bucket(50, 0.0).after_refusal(0.0).after_refusal(0.0)
    assert bucket.rate_part == 0.25
    for _ in range(8):
        bucket = bucket.after_success()
    assert (bucket.rate_part, bucket.pause.failures) == (1.0, 0)


def test_other_errors_slow_nothing_down() -> None:
    calls = Calls()
    calls.error_code = "InternalError"
    assert calls.call() == 2.0
    assert calls.call() == 2.0
    assert calls.reached == 2
    calls.error_code = "InvalidParameterValue"
    with pytest.raises(Permanent):
        calls.call()


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60))
def test_over_any_time_no_more_calls_are_times_than_the_bucket_gave(
    steps: list[tuple[float, bool]],
) -> None:
    calls, times = Calls(), []
    for pause, refused in steps:
        calls.now += pause
        calls.error_code = "RequestLimitExceeded" if refused else ""
        for _ in range(40):
            before = calls.reached
            calls.call("CreateFleet")
            times += [calls.now] * (calls.reached - before)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= 25 + 2.5 * (times[last] - times[first]) + 1e-6
    calls.error_code = ""
    calls.now += 25 / (2.5 * MIN_RATE)
    assert calls.call("CreateFleet") == 0
