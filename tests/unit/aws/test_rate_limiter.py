"""EC2's request limits are kept on this side, and more strictly after a refusal."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from mesaform.aws.rate_limiter import LEAST_RATE, Bucket, RateLimiter
from mesaform.common.errors import Permanent, Retryable


class Line:
    """EC2 calls at moments that the test chooses. `says` is the error code that EC2 answers with."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reached = 0
        self.says = ""
        self.pacer = RateLimiter(lambda: self.now)

    def call(self, action: str = "DescribeInstances", machines: int = 0) -> float:
        """Returns 0, or after how long to come again."""
        try:
            with self.pacer.limit(action, machines):
                self.reached += 1
                if self.says:
                    raise ClientError({"Error": {"Code": self.says}}, action)
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
    line = Line()
    assert line.burst(action) == at_once
    line.now += 4
    assert line.burst(action) == 4 * each_second


def test_a_call_too_many_is_not_made_and_says_when_to_come_again() -> None:
    line = Line()
    line.burst("CreateFleet")
    reached = line.reached
    after_s = line.call("CreateFleet")
    assert (line.reached, after_s) == (reached, 0.4)
    line.now += after_s
    assert line.call("CreateFleet") == 0


def test_actions_have_buckets_of_their_own() -> None:
    line = Line()
    line.burst("CreateFleet")
    assert line.call("DescribeInstances") == 0


def test_machines_are_counted_as_well_as_calls() -> None:
    line = Line()
    assert line.call("CreateFleet", 500) == 0
    assert line.call("CreateFleet", 500) == 0
    assert line.call("CreateFleet", 100) == pytest.approx(50)
    line.now += 50
    assert line.call("CreateFleet", 100) == 0


def test_more_machines_than_the_bucket_holds_wait_until_it_is_full_and_no_longer() -> None:
    line = Line()
    assert line.call("CreateFleet", 1500) == 0
    assert line.call("CreateFleet", 1) == pytest.approx(250.5)


def test_after_a_refusal_the_action_rests_twice_as_long_each_time_and_then_goes_more_slowly() -> (
    None
):
    line = Line()
    line.says = "RequestLimitExceeded"
    waits = []
    for _ in range(7):
        waits.append(line.call())
        reached = line.reached
        assert line.call() > 0
        assert line.reached == reached
        line.now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, 60, 60]
    line.says = ""
    line.now += 1000
    assert line.call() == 0
    line.burst("DescribeInstances")
    before = line.reached
    for _ in range(10):
        line.now += 1
        line.burst("DescribeInstances", 40)
    assert 5 <= line.reached - before <= 200


def test_successes_bring_the_rate_back() -> None:
    bucket = Bucket(50, 0.0).after_refusal(0.0).after_refusal(0.0)
    assert bucket.slowed == 0.25
    for _ in range(8):
        bucket = bucket.after_success()
    assert (bucket.slowed, bucket.refused) == (1.0, 0)


def test_other_errors_slow_nothing_down() -> None:
    line = Line()
    line.says = "InternalError"
    assert line.call() == 2.0
    assert line.call() == 2.0
    assert line.reached == 2
    line.says = "InvalidParameterValue"
    with pytest.raises(Permanent):
        line.call()


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60))
def test_over_any_time_no_more_calls_are_made_than_the_bucket_gave(
    steps: list[tuple[float, bool]],
) -> None:
    line, made = Line(), []
    for pause, refused in steps:
        line.now += pause
        line.says = "RequestLimitExceeded" if refused else ""
        for _ in range(40):
            before = line.reached
            line.call("CreateFleet")
            made += [line.now] * (line.reached - before)
    for first in range(len(made)):
        for last in range(first, len(made)):
            assert last - first + 1 <= 25 + 2.5 * (made[last] - made[first]) + 1e-6
    line.says = ""
    line.now += 25 / (2.5 * LEAST_RATE)
    assert line.call("CreateFleet") == 0
