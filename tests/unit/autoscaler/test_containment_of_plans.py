"""A fault of one framework, app or pool ends the planning of that one only."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from harness.autoscaler_builders import (
    NOW,
    a_framework,
    a_machine,
    a_snapshot,
    a_spec,
    an_agent,
    offerings,
    queued,
)
from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.autoscaler.model.command import Launch
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, WantedShape
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.planner.containment import plan_contained
from mesaform.autoscaler.planner.planner import Plan, plan

POOLS: list[dict[str, Any]] = [
    {"name": "good", "count": 0, "types": ["m5.large"]},
    {"name": "bad", "count": 0, "types": ["c5.xlarge"]},
]


def bought(planned: Plan) -> dict[str, int]:
    """Machines by pool."""
    launches = [
        action.request
        for command in planned.commands
        for action in command.actions
        if isinstance(action, Launch)
    ]
    counts: Counter[str] = Counter()
    for request in launches:
        counts[request.pool] += request.count
    return dict(counts)


def waiting(**fields: Any) -> Snapshot:
    """Two pools, of which only `good` can serve the demand."""
    spec = a_spec(pools=POOLS, usd=fields.pop("usd", None))
    entry = queued("/web", 2, cpus=1, mem_mib=6000)
    fields = {"machines": [], "agents": [], "queue": [entry], **fields}
    return a_snapshot(
        spec, state=fields.pop("state", PlannerState(leader_since=NOW - 99)), **fields
    )


def odd_offerings(snapshot: Snapshot) -> Snapshot:
    """An offering of the pool whose price is no number."""
    odd = tuple(
        replace(offer, usd_per_hour=None)  # type: ignore[arg-type]
        for offer in offerings(snapshot.spec)["bad"]
    )
    return replace(snapshot, offerings={**snapshot.offerings, "bad": odd})


def odd_machine(snapshot: Snapshot, **state: Any) -> Snapshot:
    """A machine of the pool without a time of its launch."""
    machine = a_machine("i-bad", pool="bad", instance_type="c5.xlarge", launched_at=None)
    known = BilledMachine("c5.xlarge", "us-east-1a", "spot", 0.2, "bad", "autoscaler", "agent", NOW)
    return replace(
        snapshot,
        machines=(*snapshot.machines, machine),
        state=replace(
            snapshot.state,
            billed_machines={"i-bad": known},
            idle_since={"i-bad": NOW - 1000},
            registered_at={"i-bad": NOW - 1000},
            **state,
        ),
    )


@pytest.mark.parametrize("odd", [odd_offerings, odd_machine])
def test_the_other_pools_buy_and_the_faulty_one_is_reported(odd: Any) -> None:
    snapshot = odd(waiting())
    with pytest.raises(TypeError):
        plan(snapshot, NOW)
    planned, faults = plan_contained(snapshot, NOW)
    assert bought(planned) == {"good": 2}
    assert [(fault.kind, fault.subject) for fault in faults] == [("pool", "bad")]


def test_what_is_known_of_the_machines_of_a_faulty_pool_stays() -> None:
    snapshot = odd_machine(waiting())
    planned, _ = plan_contained(snapshot, NOW)
    assert planned.state.billed_machines == snapshot.state.billed_machines
    assert planned.state.idle_since == snapshot.state.idle_since
    assert planned.state.registered_at == snapshot.state.registered_at
    assert not any(command.instance_id == "i-bad" for command in planned.commands)


def test_machines_of_a_faulty_pool_count_for_the_cost_cap() -> None:
    free = waiting(usd=0.2)
    assert bought(plan_contained(free, NOW)[0]) == {"good": 2}
    assert bought(plan_contained(odd_machine(free), NOW)[0]) == {}


def test_the_other_pools_remove_their_idle_machines() -> None:
    machine = a_machine("i-good", pool="good")
    snapshot = odd_machine(
        waiting(queue=[], machines=[machine], agents=[an_agent(machine)]), lost_since={}
    )
    state = replace(snapshot.state, idle_since={**snapshot.state.idle_since, "i-good": NOW - 5000})
    planned, faults = plan_contained(replace(snapshot, state=state), NOW)
    assert [command.instance_id for command in planned.commands if command.actions] == ["i-good"]
    assert len(faults) == 1


def test_a_fault_that_is_of_no_pool_and_no_demand_fails_the_pass() -> None:
    snapshot = waiting()
    with pytest.raises(TypeError):
        plan_contained(replace(snapshot, machines=None), NOW)  # type: ignore[arg-type]


def odd_entry(app: str) -> QueueEntry:
    """Demand with which no plan can be made."""
    return replace(queued(app, 1), constraints=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("pools", [POOLS, POOLS[:1]], ids=["two pools", "one pool"])
def test_demand_that_cannot_be_planned_is_left_out_and_all_other_demand_is_served(
    pools: Any,
) -> None:
    frameworks = [
        a_framework("odd", constraints=None),
        a_framework("even", minimal=make(1, 6000), asked=5),
    ]
    good = queued("/web", 2, cpus=1, mem_mib=6000)
    snapshot = a_snapshot(
        spec=a_spec(pools=pools),
        machines=[],
        agents=[],
        queue=[odd_entry("/a"), good, odd_entry("/z")],
        frameworks=frameworks,
        framework_demand={"F-odd": a_need("F-odd"), "F-even": a_need("F-even")},
        state=PlannerState(leader_since=NOW - 99),
    )
    planned, faults = plan_contained(snapshot, NOW)
    assert {(fault.kind, fault.subject) for fault in faults} == {
        ("framework", "F-odd"),
        ("app", "/a"),
        ("app", "/z"),
    }
    assert {verdict.unit.name for verdict in planned.verdicts} == {"/web", "even"}
    assert bought(planned)["good"] >= 2
    assert [verdict.framework_id for verdict in planned.frameworks] == ["F-even"]


def a_need(framework_id: str) -> FrameworkDemand:
    wanted = (WantedShape(make(1, 6000), 1),)
    return FrameworkDemand(framework_id, "wants_more", NOW - 1, "hook", wanted)


def test_a_plan_without_a_fault_is_the_plan() -> None:
    snapshot = waiting()
    assert plan_contained(snapshot, NOW) == (plan(snapshot, NOW), [])
