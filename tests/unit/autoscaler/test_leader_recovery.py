"""Reports of purchases with a lost answer or a zone without capacity."""

from __future__ import annotations

import asyncio

from mesaform.autoscaler.daemon.executor import PlanExecutor
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.decision_text import render_decision
from mesaform.autoscaler.reporting.reason_text import render, render_all
from mesaform.aws.ports import Machine
from mesaform.testing.fake_cloud import FakeFleet
from tests.unit.autoscaler.builders import NOW, a_snapshot, a_spec, queued
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
    one = Pass()
    one.fleet.lose_next_answer = True
    one.buy()
    assert [decision.kind for decision in one.decisions] == ["launch_failed"]
    one.now += 9
    (machine,) = one.recover()
    told = one.decisions[-1]
    assert (told.kind, told.machines, told.count) == ("buy", (machine.instance_id,), 1)
    assert render_decision(told) == f"1 x {machine.instance_type} for pool default"
    assert render(told.reasons[0]).startswith("/web: 1 instance waiting")
    assert (
        render_all(told.reasons[1:]) == "requested 9 s before, and the answer was lost;"
        " EC2 lists its machines: nothing is bought again"
    )
    assert told.usd_per_hour > 0
    assert told.token == one.fleet.launches[0].token
    one.recover()
    assert len(one.decisions) == 2, "told once"
    assert len(one.fleet.launches) == 1


def test_one_that_ec2_does_not_list_yet_is_asked_for_again_and_told_so() -> None:
    one = Pass(lag_s=60)
    one.fleet.lose_next_answer = True
    one.buy()
    assert one.recover() == []
    assert render(one.decisions[-1].reasons[-1]).endswith("requested again with the same token")
    assert len(one.fleet.launches) == 1, "the same token, the same machines"


def test_a_purchase_says_which_offerings_had_none() -> None:
    one = Pass()
    (launch,) = [step.actions[0] for step in one.plan.commands if step.actions]
    first = launch.request.offerings[0]  # type: ignore[union-attr]
    one.fleet.stock[first.key] = 0
    one.buy()
    (told,) = one.decisions
    assert told.kind == "buy"
    assert (
        f"no capacity of {first.instance_type} ({first.capacity}) in {first.zone}: bought elsewhere"
        in render_all(told.reasons)
    )
