"""The simulated world: tasks end once, dollars are machine seconds, chance obeys the seed."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesaform.simulator.baselines import BASELINES
from mesaform.simulator.comparison import Outcome, catalogue_of, least_usd, savings, simulate
from mesaform.simulator.market import Settings
from mesaform.simulator.synthetic import make_trace
from mesaform.simulator.trace import Trace, all_resumable, window
from mesaform.simulator.world import Behaviour
from tests.support.profiles import examples
from tests.unit.simulator.builders import STEADY, a_policy, a_task, a_trace, a_world

RULES = ("", *BASELINES)
ROUGH = Settings(seed=5, reclaims_per_hour=2.0, short_share=0.3, never_boots=0.1)


def run(trace: Trace, rule: str = "", settings: Settings = STEADY, **policy) -> Outcome:
    return simulate(trace, a_policy(**policy), settings, rule)


def check(outcome: Outcome, trace: Trace) -> None:
    """What holds of every run."""
    figures, record = outcome.figures, outcome.record
    assert figures.ended + figures.never_placed == figures.tasks == len(trace.tasks)
    assert figures.usd == pytest.approx(
        sum(b.usd_per_hour * max(60.0, b.gone_at - b.bought_at) / 3600 for b in record.bills),
        abs=1e-3,
    )
    assert len({bill.machine for bill in record.bills}) == len(record.bills)
    levels = record.levels
    hours = (
        sum(level.machines * (after.at - level.at) for level, after in itertools.pairwise(levels))
        / 3600
    )
    assert figures.machine_hours == pytest.approx(hours, abs=0.01)
    assert all(0 <= level.cpus_used <= level.cpus + 1e-9 for level in levels)
    assert 0 <= figures.cpu_utilisation <= 1
    useful = sum(task.runs_s for task in trace.tasks) / 3600
    if not figures.never_placed:
        assert figures.task_hours == pytest.approx(useful + figures.lost_task_hours, abs=0.02)
    assert levels[-1].machines == 0


def test_a_task_runs_for_its_time_from_when_it_is_placed_not_from_when_it_came():
    outcome = run(a_trace(a_task(runs_s=600)))
    assert outcome.figures.wait_p50_s == pytest.approx(
        40.5
    )  # half a second until the planner looks, 40 s of boot
    assert outcome.figures.makespan_s == pytest.approx(
        40.5 + 600 + 60, abs=10
    )  # and then it idles for idle_after_s
    assert outcome.figures.machines_bought == 1


def test_a_machine_is_billed_by_the_second_and_at_least_a_minute():
    trace = a_trace(a_task(runs_s=1))
    outcome = run(trace, autoscaler={"idle_after_s": 0.0})
    (bill,) = outcome.record.bills
    assert bill.gone_at - bill.bought_at < 60
    assert bill.seconds == 60
    assert outcome.figures.usd == pytest.approx(bill.usd_per_hour / 60, abs=1e-4)


def test_work_that_fits_what_is_there_buys_nothing():
    outcome = run(a_trace(a_task(runs_s=600), a_task(at=100, runs_s=100, cpus=0.5)))
    assert outcome.figures.machines_bought == 1
    assert outcome.record.waits[0] == 0.0


def test_the_longest_waiting_that_fits_is_placed_first():
    world = a_world(
        a_trace(
            a_task(cpus=8, mem_mib=9000, name="large"),
            a_task(at=1, name="first"),
            a_task(at=2, name="second"),
        )
    )

    class Nobody:
        name = "nobody"
        behaviour = Behaviour()

        def on_event(self, _what, _now):
            return

        def reconcile(self, _world, _now):
            return

        def next_wakeup(self, _world, _now):
            return math.inf

    world.add(
        "default", next(o for o in world.catalogue["default"] if o.instance_type == "m5.large"), 1
    )
    record = world.run(Nobody())
    assert [(work.task.name, work.waited_s) for work in world.work if work.ended_at] == [
        ("first", 0.0),
        ("second", 0.0),
    ]
    assert record.figures().never_placed == 1


@pytest.mark.parametrize("rule", RULES)
def test_a_task_that_no_type_holds_is_listed_apart_and_ends_the_run_all_the_same(rule):
    outcome = run(a_trace(a_task(), a_task(cpus=100, at=5)), rule)
    assert (outcome.unschedulable, outcome.figures.never_placed, outcome.figures.ended) == (1, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_the_books_balance_for_every_policy_in_a_rough_cloud(rule):
    trace = window(make_trace("burst", 3), until_s=1.5 * 3600.0)
    outcome = run(
        trace, rule, ROUGH, types=("m5.xlarge", "m5.2xlarge", "c5.2xlarge"), spot_share=1.0
    )
    check(outcome, trace)
    assert outcome.figures.ended == len(trace.tasks)
    assert outcome.figures.interruptions > 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_the_same_seed_gives_the_same_run_and_another_another(rule):
    trace = window(make_trace("burst", 4), limit=50)
    runs = [run(trace, rule, replace(ROUGH, seed=seed), spot_share=1.0) for seed in (1, 1, 2)]
    assert runs[0].figures == runs[1].figures != runs[2].figures
    assert runs[0].record.entries == runs[1].record.entries


@pytest.mark.slow
def test_a_service_that_is_moved_needs_only_the_rest_of_its_time():
    tasks = [a_task(at=number, runs_s=4000, cpus=1.9, mem_mib=2000) for number in range(6)]
    again = run(
        a_trace(*tasks), settings=replace(ROUGH, never_boots=0.0, short_share=0.0), spot_share=1.0
    )
    goes_on = run(
        all_resumable(a_trace(*tasks)),
        settings=replace(ROUGH, never_boots=0.0, short_share=0.0),
        spot_share=1.0,
    )
    assert again.figures.interruptions > 0
    assert again.figures.lost_task_hours > 0 == goes_on.figures.lost_task_hours
    assert goes_on.figures.task_hours == pytest.approx(6 * 4000 / 3600, abs=0.01)


def test_machines_that_never_register_are_replaced():
    outcome = run(
        a_trace(a_task()),
        settings=replace(STEADY, never_boots=0.6, seed=8),
        autoscaler={"idle_after_s": 60.0, "boot_timeout_s": 120.0},
    )
    assert outcome.figures.ended == 1
    assert outcome.figures.machines_bought > 1


def test_the_pools_own_machines_are_there_from_the_start_and_stay():
    outcome = run(a_trace(a_task()), count=1)
    assert outcome.figures.wait_p50_s == 0.0
    assert outcome.figures.machines_bought == 1
    assert not [entry for entry in outcome.record.entries if entry.kind == "give back"]


@pytest.mark.slow
def test_no_run_costs_less_than_the_bound():
    trace = window(make_trace("batch", 2), limit=80)
    policy = a_policy(types=("c5.4xlarge", "m5.4xlarge", "r5.4xlarge"))
    bound = least_usd(trace, policy, STEADY)
    assert (
        0
        < bound.divisible
        <= bound.whole
        < min(simulate(trace, policy, STEADY, rule).figures.usd for rule in RULES)
    )


def test_the_bound_is_exact_where_a_machine_is_full_all_the_time():
    policy = a_policy(types=("c5.large",))
    memory = catalogue_of(policy)["default"][0].resources.mem_mib
    trace = a_trace(a_task(runs_s=3600, cpus=2, mem_mib=memory))
    usd_per_hour = catalogue_of(policy)["default"][0].usd_per_hour
    assert least_usd(trace, policy, STEADY).divisible == pytest.approx(usd_per_hour, abs=1e-4)


@pytest.mark.slow
def test_the_real_planner_is_compared_with_the_cheapest_that_serves_as_well():
    trace = window(make_trace("burst", 7), until_s=3 * 3600.0)
    outcomes = [
        run(trace, rule, types=("m5.large", "m5.xlarge", "m5.2xlarge", "c5.xlarge"))
        for rule in RULES
    ]
    best, saved = savings(outcomes)
    assert best.name != "clusterman"  # it waits far longer: it does not see what waits
    assert saved == pytest.approx(1 - outcomes[0].figures.usd / best.figures.usd)
    assert (
        outcomes[0].figures.usd
        < next(item for item in outcomes if item.name == "clusterman").figures.usd
    )


TASKS = st.lists(
    st.builds(
        a_task,
        at=st.integers(0, 3000),
        runs_s=st.sampled_from([1, 50, 700, 4000]),
        cpus=st.sampled_from([0.5, 1, 3, 7.5, 20]),
        mem_mib=st.sampled_from([100, 2000, 7000]),
        keeps_work=st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tasks=TASKS,
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 99),
    spot=st.sampled_from([0.0, 1.0]),
    most=st.sampled_from([3, 50]),
)
def test_whatever_the_work_and_the_cloud_the_books_balance(tasks, rule, seed, spot, most):
    trace = a_trace(*tasks)
    outcome = run(
        trace, rule, replace(ROUGH, seed=seed, reclaims_per_hour=0.3), spot_share=spot, max=most
    )
    check(outcome, trace)
    assert outcome.figures.machines_most <= most
    assert outcome.unschedulable <= outcome.figures.never_placed
