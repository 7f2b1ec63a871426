"""Demand that adapters read of frameworks: what is bought for it, and each framework's verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from harness.autoscaler_builders import (
    NOW,
    a_framework,
    a_machine,
    a_snapshot,
    a_spec,
    an_agent,
    full,
    offerings,
)
from mesaform.autoscaler import demand
from mesaform.autoscaler.model.cluster_view import ClusterView, Framework, Quota
from mesaform.autoscaler.model.command import Launch
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, FrameworkState, WantedShape
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, make
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.planner.planner import Plan, plan
from mesaform.autoscaler.reporting.api_views import describe
from mesaform.autoscaler.reporting.decision_text import render_decision
from mesaform.autoscaler.reporting.reason_text import render_all
from mesaform.cli.plan import remembered
from mesaform.placement.constraints import Constraint

EXECUTOR = make(2, 896)


def spark_wants(
    count: int, shape: Shape = EXECUTOR, *, tasks: int | None = 2, **fields: Any
) -> FrameworkDemand:
    wanted = (WantedShape(shape, count, since=NOW - 3, **fields),) if count else ()
    evidence = Reason.of(ReasonCode.QUEUE_REPORTED, path="/demand", count=count)
    state: FrameworkState = "wants_more" if count else "satisfied"
    return FrameworkDemand("F-spark", state, NOW - 1, "spark", wanted, (evidence,), tasks)


def a_spark(**fields: Any) -> Framework:
    return a_framework("spark", **{"tasks": 2, "task_shape": EXECUTOR, "declined": 40, **fields})


def a_world(answer: FrameworkDemand, framework: Framework | None = None, **fields: Any) -> Snapshot:
    """Two full machines, and a framework that an adapter answers for."""
    known = framework or a_spark()
    return a_snapshot(frameworks=[known], framework_demand={known.framework_id: answer}, **fields)


def bought(planned: Plan) -> int:
    launches = (action for command in planned.commands for action in command.actions)
    return sum(action.request.count for action in launches if isinstance(action, Launch))


def the_verdict(planned: Plan) -> tuple[str, str]:
    (verdict,) = planned.frameworks
    return verdict.state, render_all(verdict.reasons)


def test_the_first_pass_after_the_need_buys_what_is_wanted_and_not_more():
    planned = plan(a_world(spark_wants(4)), NOW)
    (verdict,) = planned.verdicts
    assert (verdict.buying, verdict.unmet) == (4, 0)
    assert bought(planned) > 0


def test_a_framework_that_has_what_it_wants_buys_nothing_and_is_not_inferred():
    dry = PlannerState(leader_since=NOW - 900, dry_since={"F-spark": NOW - 100})
    hungry = a_spark(minimal=make(1, 100), asked=5)
    planned = plan(a_world(spark_wants(0), hungry, state=dry), NOW)
    assert bought(planned) == 0
    assert planned.verdicts == ()
    assert the_verdict(planned)[0] == "satisfied"


def test_without_an_answer_the_need_is_inferred_and_the_verdict_says_why_there_is_none():
    dry = PlannerState(leader_since=NOW - 900, dry_since={"F-spark": NOW - 100})
    hungry = a_spark(minimal=make(1, 100), asked=5)
    failed = Reason.of(ReasonCode.ADAPTER_FAILED, adapter="spark", error="no answer", attempts=3)
    snapshot = a_snapshot(frameworks=[hungry], state=dry, adapter_failures={"F-spark": failed})
    planned = plan(snapshot, NOW)
    assert all(verdict.unit.source == "framework" for verdict in planned.verdicts)
    assert (
        "its API cannot be read (adapter spark, 3 attempts): no answer" in the_verdict(planned)[1]
    )


def test_machines_that_boot_count_so_that_nothing_is_bought_twice():
    spec = a_spec(pools=[{"types": ["m5.large"]}])
    booting = [a_machine(f"i-{n}", launched_at=NOW - 30) for n in range(4)]
    old = [a_machine("i-t1", by="terraform"), a_machine("i-t2", by="terraform")]
    snapshot = a_world(
        spark_wants(4),
        spec=spec,
        machines=old + booting,
        agents=[full(machine) for machine in old],
    )
    planned = plan(snapshot, NOW)
    assert bought(planned) == 0
    (verdict,) = planned.verdicts
    assert (verdict.arriving, verdict.unmet) == (4, 0)


def test_registered_machines_that_were_not_taken_yet_count_as_well():
    spec = a_spec(pools=[{"types": ["m5.large"]}])
    old = [a_machine("i-t1", by="terraform"), a_machine("i-t2", by="terraform")]
    fresh = [a_machine(f"i-{n}") for n in range(3)]
    agents = [full(machine) for machine in old] + [an_agent(machine) for machine in fresh]
    planned = plan(a_world(spark_wants(4), spec=spec, machines=old + fresh, agents=agents), NOW)
    assert bought(planned) == 1


def test_executors_that_started_since_the_answer_are_no_more_wanted():
    planned = plan(a_world(spark_wants(4), a_spark(tasks=6)), NOW)
    assert bought(planned) == 0
    assert planned.verdicts == ()
    assert the_verdict(planned)[0] == "satisfied"
    planned = plan(a_world(spark_wants(4), a_spark(tasks=5)), NOW)
    (verdict,) = planned.verdicts
    assert verdict.unit.count == 1
    assert "3 of them started since" in render_all(verdict.unit.reasons)


def test_a_divisible_shape_is_bought_in_machines_with_the_cheapest_cpus():
    snapshot = a_world(spark_wants(8, make(1, 4000), divisible=True))
    (item,) = demand.collect(snapshot, NOW)
    assert (item.shape, item.count) == (make(2, 4000), 4)
    small = a_world(spark_wants(1, make(1, 4000), divisible=True))
    assert [(i.shape, i.count) for i in demand.collect(small, NOW)] == [(make(1, 4000), 1)]


def test_an_executor_larger_than_every_type_is_explained_and_nothing_is_bought():
    planned = plan(a_world(spark_wants(1, make(1, 300_000))), NOW)
    state, reasons = the_verdict(planned)
    assert bought(planned) == 0
    assert state == "refuses_offers"
    assert "nearest allowed type, m5.2xlarge" in reasons
    assert "GiB memory short" in reasons


def test_a_constraint_that_no_pool_satisfies_is_explained_and_nothing_is_bought():
    rack = (Constraint("rack", "IS", "r9"),)
    planned = plan(a_world(spark_wants(2, constraints=rack)), NOW)
    assert bought(planned) == 0
    state, reasons = the_verdict(planned)
    assert state == "refuses_offers"
    assert "rack IS r9" in reasons


def test_what_a_framework_claims_is_limited_by_quota_cost_cap_and_the_pools():
    quota = Quota("*", (4000, None, None, None), make(2))
    limited = a_world(spark_wants(100))
    view = limited.cluster or ClusterView()
    planned = plan(replace(limited, cluster=replace(view, quotas=(quota,))), NOW)
    assert sum(verdict.buying for verdict in planned.verdicts) == 1
    capped = a_spec(usd=0.35)
    planned = plan(a_world(spark_wants(100), spec=capped, offerings=offerings(capped)), NOW)
    assert bought(planned) <= 2
    planned = plan(a_world(spark_wants(100_000)), NOW)
    assert bought(planned) <= 18


def test_two_frameworks_of_one_name_in_different_roles_are_served_by_themselves():
    one, two = a_spark(roles=("a",)), replace(a_spark(roles=("b",)), framework_id="F-2")
    answers = {"F-spark": spark_wants(2), "F-2": replace(spark_wants(3), framework_id="F-2")}
    planned = plan(a_snapshot(frameworks=[one, two], framework_demand=answers), NOW)
    assert sorted((v.unit.role, v.buying) for v in planned.verdicts) == [("a", 2), ("b", 3)]
    assert [verdict.pieces for verdict in planned.frameworks] == [3, 2]


def test_every_connected_framework_has_a_verdict():
    execute = a_framework("mesos-execute (C++)", suppressed=True)
    batch, quiet = a_framework("batch", suppressed=True), a_framework("quiet")
    gone = a_framework("gone", active=False)
    planned = plan(a_snapshot(frameworks=[quiet, execute, batch, gone]), NOW)
    states = {verdict.name: verdict.state for verdict in planned.frameworks}
    assert states["mesos-execute (C++)"] == states["batch"] == "suppressed"
    assert states["gone"] == "unknown"
    texts = {verdict.name: render_all(verdict.reasons) for verdict in planned.frameworks}
    assert "never asks again" in texts["mesos-execute (C++)"]
    assert "never asks again" not in texts["batch"]
    views = describe(planned)["frameworks"]
    assert [view["name"] for view in views] == ["batch", "gone", "mesos-execute (C++)", "quiet"]
    assert all(view["reasons"] for view in views)


def test_a_change_of_a_verdict_is_a_decision_once_and_at_most_every_minute():
    def reported(snapshot: Snapshot, now: float) -> tuple[list[str], PlannerState]:
        planned = plan(snapshot, now)
        decisions = [c.decision for c in planned.commands if c.decision.kind == "framework"]
        return [render_decision(decision) for decision in decisions], planned.state

    hungry, sated = a_world(spark_wants(4)), a_world(spark_wants(0))
    first, state = reported(hungry, NOW)
    assert first == ["framework spark wants more"]
    again, state = reported(replace(hungry, state=state), NOW + 2)
    early, state = reported(replace(sated, state=state), NOW + 4)
    assert (again, early) == ([], [])
    late, state = reported(replace(sated, state=state), NOW + 70)
    assert late == ["framework spark has what it wants"]
    assert reported(replace(sated, state=state), NOW + 140)[0] == []


@pytest.mark.parametrize("count", [1, 3, 8, 40])
def test_the_cpus_bought_are_at_most_a_quarter_more_than_the_need(count):
    spec = a_spec(pools=[{"types": ["m5.large", "m5.xlarge", "m5.2xlarge"], "max": 100}])
    planned = plan(a_world(spark_wants(count), spec=spec, offerings=offerings(spec)), NOW)
    sizes = {"m5.large": 2, "m5.xlarge": 4, "m5.2xlarge": 8}
    launches = (a for c in planned.commands for a in c.actions if isinstance(a, Launch))
    cpus = sum(sizes[a.request.offerings[0].instance_type] * a.request.count for a in launches)
    assert 2 * count <= cpus <= 2 * count * 1.25


def test_answers_and_verdicts_survive_a_change_of_leader_and_serve_mesaform_plan():
    answer = spark_wants(4, constraints=(Constraint("zone", "IS", "us-east-1a"),))
    state = replace(plan(a_world(answer), NOW).state, reported={"F-spark": answer})
    stored = msgspec.json.decode(msgspec.json.encode(state), type=PlannerState)
    assert stored.reported == {"F-spark": answer}
    assert stored.frameworks == state.frameworks
    assert remembered(msgspec.to_builtins(state)).reported == {"F-spark": answer}


@pytest.mark.parametrize(
    "stated",
    [
        Constraint("@port", "LIKE", "x.*"),
        Constraint("@port", "IS", "no port"),
        Constraint("zone", "MAX_PER", "9" * 5000),
        Constraint("hostname", "GROUP_BY", "9" * 5000),
        Constraint("zone", "IS", "9" * 500),
    ],
)
def test_no_constraint_of_a_framework_ends_a_pass(stated):
    for snapshot in (
        a_world(spark_wants(3, constraints=(stated,))),
        a_world(spark_wants(3), a_spark(constraints=(stated,))),
    ):
        (verdict,) = plan(snapshot, NOW).verdicts
        assert verdict.buying + verdict.unmet == 3
