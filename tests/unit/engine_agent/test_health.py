"""The meaning of health check results, with the timings of Apache Mesos."""

from __future__ import annotations

import msgspec

from mesaform.engine.agent.checks import MAX_CHECKS_PER_S, CheckPace
from mesaform.engine.agent.events import HealthChecked
from mesaform.engine.agent.health import HealthPolicy, HealthTracker
from mesaform.mesos.messages import HealthCheck


def tracker(**check: float) -> HealthTracker:
    return HealthTracker(
        "c", HealthPolicy.of(msgspec.convert(check, HealthCheck)), running_since=100.0
    )


def test_the_defaults_are_mesos_defaults():
    assert HealthPolicy.of(HealthCheck()) == HealthPolicy(15.0, 10.0, 20.0, 10.0, 3)


def test_a_success_is_reported_once():
    health = tracker()
    assert health.result(101.0, healthy=True) == HealthChecked("c", healthy=True)
    assert health.result(102.0, healthy=True) is None


def test_failures_during_the_grace_period_do_not_count():
    health = tracker(grace_period_seconds=5, consecutive_failures=1)
    assert health.result(104.9, healthy=False) is None
    assert health.result(105.0, healthy=False) == HealthChecked("c", healthy=False, kill=True)


def test_the_grace_period_ends_with_the_first_success():
    health = tracker(grace_period_seconds=60)
    health.result(101.0, healthy=True)
    assert health.result(102.0, healthy=False) == HealthChecked("c", healthy=False)


def test_each_failure_is_reported_and_enough_in_a_row_kill():
    health = tracker(grace_period_seconds=0, consecutive_failures=2)
    assert health.result(101.0, healthy=False) == HealthChecked("c", healthy=False)
    assert health.result(102.0, healthy=True) == HealthChecked("c", healthy=True)
    assert health.result(103.0, healthy=False) == HealthChecked("c", healthy=False)
    assert health.result(104.0, healthy=False) == HealthChecked("c", healthy=False, kill=True)


def test_checks_of_all_tasks_begin_one_after_the_other_at_a_bounded_rate():
    pace = CheckPace(lambda: 50.0)
    turns = [pace.delay_s() for _ in range(1000)]
    assert turns[0] == 0.0
    assert turns == sorted(turns)
    assert sum(turn < 1.0 for turn in turns) <= MAX_CHECKS_PER_S + 1


def test_a_check_that_is_alone_does_not_wait():
    now = 50.0
    pace = CheckPace(lambda: now)
    for _ in range(100):
        assert pace.delay_s() == 0.0
        now += 1.0
