"""What the simulator models of the cloud and of tasks, and that each run adds up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesaform.common.errors import BadInput
from mesaform.simulator.baselines import BASELINES
from mesaform.simulator.comparison import Outcome, simulate
from mesaform.simulator.conservation import Account, BrokenBooks, Meter, check
from mesaform.simulator.market import Settings
from mesaform.simulator.results import Bill
from mesaform.simulator.trace import Column, Trace, parse
from mesaform.simulator.world import EPOCH, World
from tests.unit.simulator.builders import STEADY, a_policy, a_task, a_trace

HEADER = "name,app,cpus,mem,start,duration\n"
RULES = ("", *BASELINES)
DONE = Account("t", has_ended=True, is_waiting=False, is_running=False, is_reported=False, core_s=7)
BILL = Bill("i-1", "m5.large/us-east-1a/on-demand", 0.1, 0.0, 3600.0)


def run(trace: Trace, rule: str = "", settings: Settings = STEADY, **policy) -> Outcome:
    return simulate(trace, a_policy(**policy), settings, rule)


def columns(extra: str) -> dict[str, Column]:
    names = ("name", "app", "cpus", "mem", "start", "duration", extra)
    return {name: Column(name) for name in names}


def metered(machine_s: float = 3600.0, usd: float = 0.1, used_core_s: float = 7.0) -> Meter:
    return Meter(machine_s, usd, used_core_s)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("last", [1, 100])
def test_work_that_arrives_a_day_after_all_other_ended_is_run(rule, last):
    rows = "".join(f"a{n},x,1,1024,90000,600\n" for n in range(last))
    outcome = run(parse(HEADER + "b,x,1,1024,0,600\n" + rows, "late"), rule)
    assert outcome.figures.ended == last + 1
    assert outcome.figures.never_placed == 0


def test_a_task_that_is_in_no_state_or_in_two_breaks_the_books():
    check([DONE], [BILL], metered())
    for wrong in (
        replace(DONE, has_ended=False, is_reported=True),
        replace(DONE, is_waiting=True),
        replace(DONE, has_ended=False, is_waiting=True),
        replace(DONE, is_reported=True),
    ):
        with pytest.raises(BrokenBooks, match="task t"):
            check([wrong], [BILL], metered())


@pytest.mark.parametrize(
    ("meter", "what"),
    [
        (metered(machine_s=3500), "machine seconds"),
        (metered(usd=0.11), "dollars"),
        (metered(used_core_s=8), "core seconds"),
    ],
)
def test_sums_that_differ_from_what_passed_break_the_books(meter, what):
    with pytest.raises(BrokenBooks, match=what):
        check([DONE], [BILL], meter)


def test_a_machine_that_is_billed_twice_breaks_the_books():
    with pytest.raises(BrokenBooks, match="billed twice"):
        check([DONE], [BILL, BILL], metered(7200, 0.2))


def test_a_run_that_loses_a_task_has_no_figures(monkeypatch):
    """The queue of a world forgets a task that is evicted: the checks see it."""
    real = World._evict

    def forgetful(self, host, by, why):
        killed = real(self, host, by, why)
        self._queues.clear()
        return killed

    monkeypatch.setattr(World, "_evict", forgetful)
    trace = a_trace(a_task(runs_s=7200), a_task(at=1, runs_s=7200))
    rough = replace(STEADY, reclaims_per_hour=5.0)
    with pytest.raises(BrokenBooks, match="is in 0 states"):
        run(trace, settings=rough, spot_share=1.0, types=("m5.large",))


@pytest.mark.parametrize("rule", RULES)
def test_a_reclaim_is_announced_and_its_work_moves_before_the_end(rule):
    trace = a_trace(a_task(runs_s=3 * 3600, keeps_work=True))
    settings = replace(STEADY, seed=3, reclaims_per_hour=0.5)
    outcome = run(trace, rule, settings, spot_share=1.0, types=("m5.large",))
    kinds = [entry.kind for entry in outcome.record.entries]
    assert "notice" in kinds, "the seed reclaims a machine"
    assert outcome.figures.ended == 1
    assert outcome.figures.interruptions == kinds.count("interrupt") > 0
    assert outcome.figures.disruptions == 0


def test_our_planner_replaces_an_announced_machine_before_it_ends():
    trace = a_trace(a_task(runs_s=3 * 3600, keeps_work=True))
    settings = replace(STEADY, seed=3, reclaims_per_hour=0.5)
    with_notice = run(trace, "", settings, spot_share=1.0, types=("m5.large",))
    without = run(trace, "", replace(settings, notice_s=0.0), spot_share=1.0, types=("m5.large",))
    assert with_notice.figures.wait_mean_s < without.figures.wait_mean_s


def test_the_first_task_of_an_app_on_a_machine_waits_for_its_image():
    trace = a_trace(a_task(runs_s=600), a_task(at=300, runs_s=600, cpus=0.5, mem_mib=512))
    plain = run(trace)
    pulled = run(trace, settings=replace(STEADY, pull_s=20.0))
    assert [b - a for a, b in zip(plain.record.waits, pulled.record.waits, strict=True)] == [20, 20]
    assert pulled.figures.ended == 2


@pytest.mark.parametrize("rule", RULES)
def test_tasks_with_one_fixed_host_port_never_share_a_machine(rule):
    header = "name,app,cpus,mem,start,duration,ports\n"
    rows = "".join(f"t{n},a{n % 2},0.1,128,0,600,:31500\n" for n in range(3))
    trace = parse(header + rows, "ports", columns("ports"))
    outcome = run(trace, rule, types=("m5.large",))
    if not rule:
        assert outcome.figures.ended == 3
        assert outcome.figures.machines_most == 3


def test_constraints_of_a_file_are_obeyed():
    header = "name,app,cpus,mem,start,duration,constraints\n"
    rows = "".join(f"t{n},a,0.1,128,0,600,hostname UNIQUE\n" for n in range(3))
    trace = parse(header + rows, "unique", columns("constraints"))
    assert run(trace).figures.machines_most == 3


@pytest.mark.parametrize(
    ("column", "text"),
    [("ports", "many"), ("ports", ":70000"), ("constraints", "zone NEAR"), ("constraints", "zone")],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_line(column, text):
    rows = f"name,app,cpus,mem,start,duration,{column}\nt,a,1,128,0,60,{text}\n"
    with pytest.raises(BadInput, match="trace:2"):
        parse(rows, "bad", columns(column))


def test_labels_of_a_file_say_what_is_bought_and_how_long_work_waits_for_it():
    header = "name,app,cpus,mem,start,duration,labels\n"
    row = "t,a,1,128,0,600,mesaform.capacity-type=spot; mesaform.max-wait=5m\n"
    trace = parse(header + row, "labels", columns("labels"))
    outcome = run(trace, spot_share=0.5)
    assert outcome.figures.ended == 1
    assert {entry.at - EPOCH >= 300 for entry in outcome.record.entries if entry.kind == "buy"} == {
        True
    }
    assert run(trace, spot_share=0).figures.never_placed == 1


@pytest.mark.parametrize("text", ["mesaform.capacity-type", "mesaform.capacity-type=cheap"])
def test_labels_of_a_file_that_make_no_sense_are_named(text):
    header = "name,app,cpus,mem,start,duration,labels\n"
    with pytest.raises(BadInput, match="trace:2: label"):
        parse(f"{header}t,a,1,128,0,600,{text}\n", "labels", columns("labels"))
