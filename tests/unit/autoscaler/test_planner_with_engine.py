"""Machines of one pass end in one call; after a refusal each machine gets its own call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from harness.autoscaler_builders import NOW, a_machine, a_reason, a_snapshot, a_spec
from mesaform.autoscaler.daemon.executor import PlanExecutor
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.planner.planner import plan
from mesaform.common.errors import Retryable
from mesaform.testing.fake_cloud import FakeFleet
from mesaform.topology.names import Tag
from tests.unit.autoscaler.world import Journal

NAMES = [f"i-{number}" for number in range(5)]


class Counting(FakeFleet):
    """A fleet that writes down what was to be terminated in each call."""

    def __init__(self) -> None:
        super().__init__(lambda: NOW)
        self.calls: list[list[str]] = []
        for name in NAMES:
            self.add(a_machine(name))

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        self.calls.append(list(instance_ids))
        super().terminate(cluster, instance_ids)


def carried_out(
    fleet: Counting, names: Sequence[str] = NAMES
) -> tuple[PlannerState, list[Decision]]:
    """A pass in which the drains of these machines are over."""
    removals = {name: Removal(f"S-{name}", "draining", NOW - 9, a_reason()) for name in names}
    memory = PlannerState(
        leader_since=NOW - 99,
        removals=removals,
        history=dict.fromkeys(names, ("idle", "deactivated", "draining")),
    )
    machines = [a_machine(name) for name in NAMES]
    planned = plan(
        a_snapshot(a_spec(pools=[{"count": 0}]), machines=machines, agents=[], state=memory), NOW
    )
    decisions: list[Decision] = []
    actor = PlanExecutor("toy", fleet, None, Journal(memory), decisions.append, lambda: NOW)  # type: ignore[arg-type]
    return asyncio.run(actor.execute(planned)), decisions


def ended(decisions: Sequence[Decision]) -> list[str]:
    return [d.machines[0] for d in decisions if d.kind == "terminate" and d.usd_per_hour < 0]


def test_all_machines_of_a_pass_end_in_one_call() -> None:
    fleet = Counting()
    memory, decisions = carried_out(fleet)
    assert fleet.calls == [NAMES]
    assert ended(decisions) == NAMES
    assert {removal.phase for removal in memory.removals.values()} == {"terminating"}


def test_one_machine_that_is_not_ours_any_more_holds_up_no_other() -> None:
    fleet = Counting()
    stolen = a_machine("i-2")
    fleet.add(replace(stolen, tags={**stolen.tags, Tag.MANAGED_BY: "somebody"}))
    _, decisions = carried_out(fleet)
    assert fleet.calls == [NAMES, *([name] for name in NAMES)]
    states = {machine.instance_id: machine.state for machine in fleet.machines("toy")}
    assert states == {name: "running" if name == "i-2" else "terminated" for name in NAMES}
    assert ended(decisions) == [name for name in NAMES if name != "i-2"]


def test_a_call_that_was_refused_for_now_is_made_once_and_nothing_counts_as_ended() -> None:
    fleet = Counting()
    fleet.fail_next = Retryable("RequestLimitExceeded", after_s=5)
    _, decisions = carried_out(fleet)
    assert fleet.calls == [NAMES]
    assert ended(decisions) == []
    assert all(
        Reason.of(ReasonCode.NOT_EXECUTED, error="RequestLimitExceeded") in decision.reasons
        for decision in decisions
        if decision.kind == "terminate"
    )


def test_a_single_machine_is_asked_for_once() -> None:
    fleet = Counting()
    carried_out(fleet, ["i-3"])
    assert fleet.calls == [["i-3"]]
