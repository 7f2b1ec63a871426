"""Reports of purchases with a lost answer or a zone without capacity."""

from __future__ import annotations

import asyncio

from harness.autoscaler_builders import NOW, a_snapshot, a_spec, queued
from mesaform.autoscaler.daemon.executor import PlanExecutor
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.decision_text import render_decision
from mesaform.autoscaler.reporting.reason_text import render, render_all
from mesaform.aws.ports import Machine
from mesaform.testing.fake_cloud import FakeFleet
from tests.unit.autoscaler.world import Journal


class Pass:
    """A pass that wants one machine, on a fleet whose machines are listed after `lag_s`."""

    def __init__(self, lag_s: float = 0.0) -> None:
        self.now = NOW
        self.fleet = FakeFleet(lambda: self.now, lag_s)
        self.decisions: list[Decision] = []
        self.memory = PlannerState(leader_since=NOW - 99)
        self.journal = Journal(self.memory)
        self.actor = PlanExecutor(
            "toy", self.fleet, None, self.journal, self.decisions.append, lambda: self.now
        )  # type: ignore[arg-type]
        snapshot = a_snapshot(
            a_spec(pools=[{"count": 0}]),
            machines=[],
            agents=[],
            queue=[queued("/web", 1)],
            state=self.memory,
        )
        self.plan = plan(snapshot, NOW)

    def buy(self) -> None:
        asyncio.run(self.actor.execute(self.plan))

    def recover(self) -> list[Machine]:
        machines = self.fleet.machines("toy")
        intents: list[Intent] = list(self.journal.launches.values())
        asyncio.run(self.actor.recover(self.memory, intents, machines))
        return machines


def test_a_purchase_with_a_lost_answer_is_reported_with_its_machine_and_price_once_known() -> None:
    item = Pass()
    item.fleet.lose_next_answer = True
    item.buy()
    assert [decision.kind for decision in item.decisions] == ["launch_failed"]
    item.now += 9
    (machine,) = item.recover()
    shown = item.decisions[-1]
    assert (shown.kind, shown.machines, shown.count) == ("buy", (machine.instance_id,), 1)
    assert render_decision(shown) == f"1 x {machine.instance_type} for pool default"
    assert render(shown.reasons[0]).startswith("/web: 1 instance waiting")
    assert (
        render_all(shown.reasons[1:]) == "requested 9 s before, and the answer was lost;"
        " EC2 lists its machines: nothing is bought again"
    )
    assert shown.usd_per_hour > 0
    assert shown.token == item.fleet.launches[0].token
    item.recover()
    assert len(item.decisions) == 2, "reported once"
    assert len(item.fleet.launches) == 1


def test_a_machine_that_ec2_does_not_list_yet_is_asked_for_again_with_its_reason() -> None:
    item = Pass(lag_s=60)
    item.fleet.lose_next_answer = True
    item.buy()
    assert item.recover() == []
    assert render(item.decisions[-1].reasons[-1]).endswith("requested again with the same token")
    assert len(item.fleet.launches) == 1, "the same token, the same machines"


def test_a_purchase_says_which_offerings_had_none() -> None:
    item = Pass()
    (launch,) = [step.actions[0] for step in item.plan.commands if step.actions]
    first = launch.request.offerings[0]  # type: ignore[union-attr]
    item.fleet.stock[first.key] = 0
    item.buy()
    (shown,) = item.decisions
    assert shown.kind == "buy"
    assert (
        f"no capacity of {first.instance_type} ({first.capacity}) in {first.zone}: bought elsewhere"
        in render_all(shown.reasons)
    )


def test_a_defect_in_one_command_ends_that_one_and_the_launch_is_resolved_later() -> None:
    item = Pass()
    item.fleet.fail_next = ZeroDivisionError("a defect")  # type: ignore[assignment]
    item.buy()
    assert [(fault.kind, fault.text) for fault in item.actor.faults] == [
        ("command", "ZeroDivisionError: a defect")
    ]
    assert render(item.decisions[-1].reasons[-1]).endswith("ZeroDivisionError('a defect')")
    assert item.decisions[-1].usd_per_hour == 0.0
    item.fleet.fail_next = ZeroDivisionError("again")  # type: ignore[assignment]
    asyncio.run(item.actor.recover(item.memory, list(item.journal.launches.values()), []))
    assert [fault.kind for fault in item.actor.faults] == ["command", "launch"]
    assert len(item.journal.launches) == 1, "the launch stays open"
    item.recover()
    assert len(item.fleet.launches) == 1
