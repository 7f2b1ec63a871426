"""A leader that has not read its orders takes no action; a launch is checked against the spec."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.autoscaler_builders import NOW, a_snapshot, a_spec, queued
from mesaform.autoscaler.daemon.launch_check import problem_with
from mesaform.autoscaler.daemon.orders import VALID_S, Orders
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.autoscaler.planner.planner import plan
from mesaform.aws.ports import LaunchRequest
from mesaform.common.conditions import Condition, Conditions
from mesaform.common.errors import NotAuthenticated, Retryable
from mesaform.testing.fake_cloud import FakeControl


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def an_orders(control, clock):
    conditions = Conditions(tuple(Condition), clock)
    failed: list[str] = []
    return Orders(control, conditions, "a:1", failed.append, clock, clock), conditions


async def test_orders_that_were_never_read_freeze_everything():
    control, clock = FakeControl(), Clock()
    orders, conditions = an_orders(control, clock)
    assert "not read yet" in str(orders.freeze_reason)
    control.fail_next = Retryable("S3 is away", after_s=1)
    await orders.read(dict)
    assert "not read yet: S3 is away" in str(orders.freeze_reason)
    assert list(conditions.unmet) == [Condition.ORDERS]
    assert control.last_heartbeat() is None, "a freeze is not confirmed that is not known"
    await orders.read(dict)
    assert (orders.freeze_reason, conditions.unmet) == (None, {})
    assert control.last_heartbeat() is not None


async def test_orders_stay_in_force_for_a_while_when_they_cannot_be_read_again():
    control, clock = FakeControl(), Clock()
    orders, _ = an_orders(control, clock)
    await orders.read(dict)
    clock.now += VALID_S
    control.fail_next = Retryable("S3 is away", after_s=1)
    await orders.read(dict)
    assert orders.freeze_reason is None
    clock.now += 1
    assert "last read 16 s ago: S3 is away" in str(orders.freeze_reason)
    await orders.read(dict)
    assert orders.freeze_reason is None


async def test_missing_credentials_are_a_condition_of_their_own():
    control, clock = FakeControl(), Clock()
    orders, conditions = an_orders(control, clock)
    control.fail_next = NotAuthenticated("no AWS credentials")
    await orders.read(dict)
    assert set(conditions.unmet) == {Condition.ORDERS, Condition.CREDENTIALS}


def test_a_frozen_plan_acts_on_nothing_whatever_waits():
    frozen = a_snapshot(queue=[queued(count=3)], freeze_reason="the orders were not read yet")
    assert [command for command in plan(frozen, NOW).commands if command.actions] == []


def a_launch(count=2, pool="default", types=("m5.large",), **changes):
    offerings = tuple(
        replace(a_snapshot().offerings["default"][0], instance_type=name) for name in types
    )
    return Intent(LaunchRequest("toy", pool, count, offerings, "ms-1"), NOW, **changes)


@pytest.mark.parametrize(
    ("launch", "problem"),
    [
        (a_launch(), ""),
        (a_launch(count=5), "5 machines are more than the pool's max, 4"),
        (a_launch(pool="gpu"), "the cluster has no pool 'gpu'"),
        (a_launch(types=("m5.large", "p5.48xlarge")), "the pool has no type 'p5.48xlarge'"),
        (a_launch(epoch=8), "term 8 wrote the launch, and this is term 7"),
        (a_launch(count=5, instance_ids=("i-1",)), ""),
    ],
)
def test_a_launch_that_the_spec_does_not_allow_is_refused(launch, problem):
    spec = a_spec(pools=[{"types": ["m5.large"], "max": 4}])
    assert problem_with(launch, spec, 7) == problem


def test_nothing_is_bought_until_a_lost_launch_must_be_listed():
    waiting = a_snapshot(queue=[queued(count=3)], launches_lost_at=NOW - 30)
    held = plan(waiting, NOW)
    assert [command for command in held.commands if command.actions] == []
    assert held.waiting is not None
    assert held.waiting.params == {"wait_s": 90}
    assert [command for command in plan(waiting, NOW + 91).commands if command.actions]
