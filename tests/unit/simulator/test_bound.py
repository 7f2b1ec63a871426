"""The lower bound: right where the answer is known, and never above what a run costs."""

from __future__ import annotations

import pytest

from mesaform.autoscaler.model.shape import make
from mesaform.simulator.bound import WAITS_AT_MOST_S, bound_of
from mesaform.simulator.market import offerings
from mesaform.simulator.trace import Task, Trace

HOUR_S = 3600.0
LARGE = [
    offering
    for offering in offerings(("m5.large",), ("us-east-1a",))
    if offering.capacity == "on-demand"
]  # 2 cpus, $0.096


def a_trace(*tasks: tuple[float, float, float]) -> Trace:
    """Tasks as (cpus, start, end)."""
    return Trace(
        "t",
        tuple(
            Task(f"t-{n}", f"w-{cpus:g}", make(cpus, 256), at, end - at)
            for n, (cpus, at, end) in enumerate(tasks)
        ),
    )


def test_a_lone_task_needs_a_whole_machine():
    bound = bound_of(a_trace((1, 0, 100 * HOUR_S)), LARGE, 0.0)
    assert bound.divisible == pytest.approx(100 * 0.048, rel=1e-3)
    assert bound.whole == pytest.approx(100 * 0.096, rel=0.01)


def test_large_tasks_that_share_no_machine_are_paid_apart():
    bound = bound_of(a_trace((1.2, 0, 100 * HOUR_S), (1.2, 0, 100 * HOUR_S)), LARGE, 0.0)
    assert bound.whole == pytest.approx(200 * 0.096, rel=0.01)


def test_tasks_that_are_not_there_at_the_same_time_share_no_machine():
    together = bound_of(a_trace((1, 0, 10 * HOUR_S), (1, 0, 10 * HOUR_S)), LARGE, 0.0).whole
    apart = bound_of(a_trace((1, 0, 10 * HOUR_S), (1, 20 * HOUR_S, 30 * HOUR_S)), LARGE, 0.0).whole
    assert apart == pytest.approx(2 * together, rel=0.02)


def test_a_rise_pays_a_boot_and_a_dip_at_most_the_same():
    once, twice, dip = (
        a_trace((2, 0, 10 * HOUR_S)),
        a_trace((2, 0, 10 * HOUR_S), (2, 20 * HOUR_S, 30 * HOUR_S)),
        a_trace((2, 0, 10 * HOUR_S), (2, 10 * HOUR_S + 60 - WAITS_AT_MOST_S, 20 * HOUR_S)),
    )

    def boots(trace: Trace) -> float:
        return (
            (bound_of(trace, LARGE, 600.0).whole - bound_of(trace, LARGE, 0.0).whole)
            / 0.096
            * HOUR_S
        )

    assert boots(once) == pytest.approx(600, abs=1)
    assert boots(twice) == pytest.approx(1200, abs=1)
    assert boots(dip) == pytest.approx(660, abs=1)


def test_what_may_wait_is_not_taken_to_be_there_before():
    short = bound_of(a_trace(*[(1.2, 0, WAITS_AT_MOST_S)] * 2), LARGE, 0.0).whole
    assert short <= 2 * 0.096 * WAITS_AT_MOST_S / HOUR_S + 1e-4


def test_many_shapes_are_rounded_down_and_the_bound_only_falls():
    tasks = [(0.5 + n / 1000, 0, 10 * HOUR_S) for n in range(200)]
    assert bound_of(a_trace(*tasks), LARGE, 0.0).whole <= 10 * 0.096 * 100 + 1e-6


def test_tasks_that_nothing_holds_and_an_empty_trace_cost_nothing():
    assert bound_of(a_trace((64, 0, HOUR_S)), LARGE, 45.0).whole == 0
    assert bound_of(Trace("t", ()), LARGE, 45.0).whole == 0
