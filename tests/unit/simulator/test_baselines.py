"""The baselines obey their published rules, in worlds small enough to count by hand."""

from __future__ import annotations

import pytest

from mesaform.common.errors import BadInput
from mesaform.simulator.baselines import baseline
from mesaform.simulator.comparison import Outcome, simulate
from mesaform.simulator.results import Entry
from mesaform.simulator.world import EPOCH
from tests.unit.simulator.builders import STEADY, a_policy, a_task, a_trace

ONE = ("m5.xlarge",)


def run(rule: str, *tasks, **policy) -> Outcome:
    return simulate(a_trace(*tasks), a_policy(**policy), STEADY, rule)


def entries(outcome: Outcome, kind: str) -> list[Entry]:
    return [entry for entry in outcome.record.entries if entry.kind == kind]


def times(outcome: Outcome, kind: str) -> list[float]:
    return [round(entry.at - EPOCH, 1) for entry in entries(outcome, kind)]


def test_an_unknown_baseline_names_those_there_are():
    with pytest.raises(BadInput, match="clusterman, cluster-autoscaler, karpenter"):
        baseline("escalator")


def test_clusterman_looks_each_ten_minutes_and_keeps_allocated_over_capacity_at_its_setpoint():
    tasks = [a_task(runs_s=7000, cpus=4, mem_mib=4096) for _ in range(3)]
    outcome = run("clusterman", *tasks, types=ONE)
    assert times(outcome, "buy") == [
        0,
        600,
        1200,
        1800,
    ]  # 1 for nothing; then used / 0.7: 2, 3, and 5 once three are full
    assert [entry.count for entry in entries(outcome, "buy")] == [1, 1, 1, 2]
    assert outcome.record.waits == [40.0, 640.0, 1240.0]


def test_clusterman_terminates_690_s_after_its_choice_without_looking_again():
    outcome = run(
        "clusterman", *[a_task(runs_s=7000, cpus=4, mem_mib=4096) for _ in range(3)], types=ONE
    )
    gone = times(outcome, "give back")
    assert gone
    assert all((at - 690) % 600 == 0 for at in gone)


def test_cluster_autoscaler_scans_each_ten_seconds():
    outcome = run("cluster-autoscaler", a_task(), a_task(at=103, cpus=4, mem_mib=1000), types=ONE)
    assert times(outcome, "buy") == [0, 110]


def test_cluster_autoscaler_takes_the_group_that_wastes_least_whatever_it_costs():
    outcome = run(
        "cluster-autoscaler",
        a_task(cpus=2, mem_mib=14000),
        types=("r5.large", "m5.2xlarge", "c5.2xlarge"),
    )
    assert [entry.what for entry in entries(outcome, "buy")] == ["r5.large"]


def test_cluster_autoscaler_removes_nodes_unneeded_for_ten_minutes_and_waits_after_an_add():
    outcome = run("cluster-autoscaler", a_task(runs_s=100), types=ONE)
    assert times(outcome, "give back") == [740]  # empty from 140 on
    later = run(
        "cluster-autoscaler",
        a_task(runs_s=100),
        a_task(at=500, runs_s=3000, cpus=5, mem_mib=1000),
        types=(*ONE, "m5.2xlarge"),
    )
    assert times(later, "give back")[0] == 1100  # the add at 500 puts it off


def test_cluster_autoscaler_evicts_from_a_node_under_half_used_when_its_tasks_fit_elsewhere():
    long = [
        a_task(runs_s=9000, cpus=2.5, mem_mib=1000, keeps_work=True),
        a_task(at=200, runs_s=9000, cpus=1.5, mem_mib=900, keeps_work=True),
    ]
    short = a_task(at=100, runs_s=500, cpus=1.5, mem_mib=1000)
    outcome = run("cluster-autoscaler", long[0], short, long[1], types=ONE)
    assert outcome.figures.disruptions == 1
    assert outcome.figures.machines_bought == 2


@pytest.mark.parametrize(
    ("ages", "closes"), [([0], 1.0), ([0, 0.9, 1.8], 2.8), ([0.8 * n for n in range(30)], 10.0)]
)
def test_karpenters_batch_closes_a_second_after_the_last_arrival_or_ten_after_the_first(
    ages, closes
):
    outcome = run("karpenter", *[a_task(at=at, runs_s=300) for at in ages])
    assert times(outcome, "buy")[0] == pytest.approx(closes)


def test_karpenter_packs_a_batch_onto_the_cheapest_machine_that_holds_all_of_it():
    outcome = run("karpenter", *[a_task(runs_s=300, cpus=1.2, mem_mib=1000) for _ in range(3)])
    assert [(entry.count, entry.what) for entry in entries(outcome, "buy")] == [(1, "m5.xlarge")]


def test_karpenter_removes_an_empty_machine_at_its_next_poll_after_validation():
    outcome = run("karpenter", a_task(runs_s=100))
    (gone,) = times(outcome, "give back")
    assert 141 + 15 <= gone <= 141 + 10 + 15 + 10


def test_karpenter_replaces_a_machine_by_a_cheaper_one_that_is_up_before_the_old_one_goes():
    large = a_task(runs_s=300, cpus=6, mem_mib=1000)
    outcome = run("karpenter", large, a_task(runs_s=9000, cpus=1, mem_mib=1000, keeps_work=True))
    assert [entry.what for entry in entries(outcome, "buy")] == ["m5.2xlarge", "m5.large"]
    replaced = entries(outcome, "disrupt")[0]
    assert round(replaced.at - entries(outcome, "buy")[1].at) == 40
    assert outcome.figures.wait_p99_s == 41.0  # the moved task waited no second time


def test_karpenter_when_empty_moves_nothing():
    large = a_task(runs_s=300, cpus=6, mem_mib=1000)
    outcome = run("karpenter-when-empty", large, a_task(runs_s=9000, cpus=1, mem_mib=1000))
    assert outcome.figures.disruptions == 0
    assert outcome.figures.machines_bought == 1
