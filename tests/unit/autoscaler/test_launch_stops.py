"""A pool whose machines end at once or never register stops, is probed, and resumes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.autoscaler_builders import NOW, a_machine, a_snapshot, a_spec, an_agent, queued
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.planner import launch_failures
from mesaform.autoscaler.planner.launch_failures import FIRST_STOP_S, MAX_FAILURES
from mesaform.autoscaler.planner.planner import Plan
from mesaform.autoscaler.reporting.metrics import Measures
from mesaform.autoscaler.reporting.reason_text import render
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.aws.ports import Machine, Template
from tests.unit.autoscaler.world import World

STEP_S = 10
KEY_FAULT = "Client.InternalError"


class BrokenWorld(World):
    """A world in which EC2 ends machines as soon as it launched them, while `code` is set."""

    code = KEY_FAULT

    def kill_new(self) -> None:
        """End every machine of the autoscaler that has not registered."""
        for machine in self.ours:
            if self.code and machine.instance_id not in self.agents:
                listed = self.fleet._listed[machine.instance_id]
                listed.machine = replace(listed.machine, state="terminated", ended_by=self.code)
                self.struck.add(machine.instance_id)

    def go_on(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.kill_new()
            self.run(STEP_S, STEP_S)


def kinds(world: World) -> list[str]:
    return [decision.kind for decision in world.decisions]


def test_machines_that_end_at_once_stop_their_pool_and_are_probed_one_at_a_time() -> None:
    world = BrokenWorld(a_spec(pools=[{"types": ["m5.large"]}]), boot_s=10)
    world.want(queued("/web", count=8, cpus=2))
    world.go_on(FIRST_STOP_S - 60)
    launched = sum(request.count for request in world.fleet.launches)
    assert kinds(world).count("pool_stopped") == 1
    assert launched <= 2 * 8
    world.go_on(180)
    probes = world.fleet.launches[-1]
    assert probes.count == 1
    assert sum(request.count for request in world.fleet.launches) == launched + 1
    world.go_on(600)
    assert sum(request.count for request in world.fleet.launches) == launched + 2


def test_a_probe_that_registers_ends_the_stop_and_all_demand_is_served() -> None:
    world = BrokenWorld(a_spec(pools=[{"types": ["m5.large"]}]), boot_s=10)
    world.want(queued("/web", count=8, cpus=2))
    world.go_on(60)
    assert "pool_stopped" in kinds(world)
    world.code = ""
    world.go_on(FIRST_STOP_S + 120)
    assert "pool_resumed" in kinds(world)
    assert world.running("/web") == 8


def test_machines_that_never_register_stop_their_pool() -> None:
    class Deaf(World):
        def run(self, seconds: float, step_s: float = 2.0) -> None:
            for _ in range(round(seconds / step_s)):
                self.never_boot |= {machine.instance_id for machine in self.ours}
                super().run(step_s, step_s)

    world = Deaf(a_spec(pools=[{"types": ["m5.large"]}], boot_timeout_s=60), boot_s=1000)
    world.want(queued("/web", count=4, cpus=2))
    world.run(200, STEP_S)
    assert "pool_stopped" in kinds(world)
    launched = sum(request.count for request in world.fleet.launches)
    world.run(FIRST_STOP_S + 300, STEP_S)
    assert sum(request.count for request in world.fleet.launches) <= launched + 2


def failed(name: str, code: str = KEY_FAULT, pool: str = "default") -> Machine:
    return a_machine(name, pool=pool, state="terminated", ended_by=code, launched_at=NOW - 30)


def observed(*machines: Machine, state: PlannerState | None = None, **fields: Any) -> PlannerState:
    snapshot = a_snapshot(machines=list(machines), **fields)
    snapshot = replace(snapshot, state=state or PlannerState())
    return launch_failures.observe(snapshot, NOW)


def test_two_failures_do_not_stop_a_pool_and_each_machine_counts_once() -> None:
    two = observed(failed("i-1"), failed("i-2"))
    assert not launch_failures.stopped_pools(two)
    again = observed(failed("i-1"), failed("i-2"), state=two)
    assert again.launch_failures == two.launch_failures
    three = observed(failed("i-1"), failed("i-2"), failed("i-3"), state=again)
    assert launch_failures.stopped_pools(three)["default"].count == MAX_FAILURES


def test_failures_are_counted_by_pool_and_cause() -> None:
    state = observed(
        failed("i-1"),
        failed("i-2"),
        failed("i-3", "Client.VolumeLimitExceeded"),
        failed("i-4", pool="other"),
    )
    assert not launch_failures.stopped_pools(state)
    assert state.launch_failures[f"default/{KEY_FAULT}"].count == 2


@pytest.mark.parametrize("code", sorted(launch_failures.ORDINARY_ENDS | {""}))
def test_ordinary_ends_say_nothing_of_a_pool(code: str) -> None:
    state = observed(*(failed(f"i-{number}", code) for number in range(5)))
    assert not state.launch_failures


def test_a_machine_ended_for_want_of_capacity_blocks_its_offering() -> None:
    state = observed(failed("i-1", launch_failures.NO_CAPACITY_CODE))
    assert state.backoffs["m5.large/us-east-1a/on-demand"].until > NOW


def test_a_machine_that_has_registered_and_ends_is_no_failure() -> None:
    machines = [failed(f"i-{number}") for number in range(5)]
    registered = {machine.instance_id: NOW - 10 for machine in machines}
    state = observed(*machines, state=PlannerState(registered_at=registered))
    assert not state.launch_failures


def test_a_registration_clears_the_failures_of_its_pool() -> None:
    two = observed(failed("i-1"), failed("i-2"))
    machine = a_machine("i-3", launched_at=NOW - 30)
    state = observed(machine, state=two, agents=[an_agent(machine)])
    assert not state.launch_failures


def test_a_new_launch_template_clears_the_failures_of_the_old_one() -> None:
    old = {"default": Template("1", frozenset({"1"}))}
    new = {"default": Template("2", frozenset({"2"}))}
    three = observed(*(failed(f"i-{n}") for n in range(3)), templates=old)
    assert launch_failures.stopped_pools(three)
    assert not launch_failures.stopped_pools(observed(state=three, templates=new))


def test_a_stopped_pool_is_named_in_the_verdict_and_the_metrics() -> None:
    world = BrokenWorld(a_spec(pools=[{"types": ["m5.large"]}]), boot_s=10)
    world.want(queued("/web", count=8, cpus=2))
    world.go_on(60)
    stop = next(item for item in world.decisions if item.kind == "pool_stopped")
    assert "pool default is STOPPED" in render(stop.reasons[0])
    assert KEY_FAULT in render(stop.reasons[0])
    refusals = [item for item in world.decisions if item.kind == "unschedulable"]
    assert any(reason.code == "pool_stopped" for item in refusals for reason in item.reasons)
    measures, state = Measures(), world.journal.memory
    plan = Plan(NOW, (), (), state, usd_per_hour=0, after_usd_per_hour=0)
    measures.passed(plan, {"idle_usd": 0, "demand": {}}, {})
    value = measures.registry.get_sample_value(
        "mesaform_autoscaler_pool_stopped", {"pool": "default", "cause": KEY_FAULT}
    )
    assert value is not None
    assert value >= MAX_FAILURES


def test_the_alert_is_a_condition_for_which_no_leader_resigns() -> None:
    telemetry, world = Telemetry(), BrokenWorld(a_spec(pools=[{"types": ["m5.large"]}]))
    world.want(queued("/web", count=8, cpus=2))
    world.go_on(60)
    plan = Plan(NOW, (), (), world.journal.memory, usd_per_hour=0, after_usd_per_hour=0)
    for _ in range(100):
        telemetry.note_stopped_pools(plan)
    telemetry.health.conditions.check()
    assert "pool default is STOPPED" in telemetry.health.reasons()[0]
    telemetry.note_stopped_pools(replace(plan, state=PlannerState()))
    assert telemetry.health.reasons() == []


def test_after_a_machine_that_never_registers_another_type_in_another_zone_is_tried() -> None:
    class Deaf(World):
        def run(self, seconds: float, step_s: float = 2.0) -> None:
            for _ in range(round(seconds / step_s)):
                self.never_boot |= {m.instance_id for m in self.ours if m.zone == "us-east-1a"}
                super().run(step_s, step_s)

    world = Deaf(
        a_spec(pools=[{"count": 0, "types": ["m5.large", "m5.xlarge"]}], boot_timeout_s=60)
    )
    world.want(queued("/web", count=1, cpus=1.5))
    world.run(60 + 120, STEP_S)
    first, second = world.fleet.launches
    assert first.offerings[0].key == "m5.large/us-east-1a/on-demand"
    assert second.offerings[0].instance_type == "m5.xlarge"
    assert {offering.zone for offering in second.offerings} == {"us-east-1b", "us-east-1c"}
    assert world.running("/web") == 1
    assert not world.journal.memory.backoffs


def test_a_pool_with_one_offering_waits_longer_after_each_failure_and_says_why() -> None:
    one = a_spec(pools=[{"types": ["m5.large"], "count": 2}])
    known: PlannerState | None = None
    waits = []
    for number in range(4):
        at = NOW + 1000 * number
        snapshot = a_snapshot(one, machines=[failed(f"i-{number}")], queue=[queued(cpus=1.5)])
        offered = {"default": snapshot.offerings["default"][:1]}
        snapshot = replace(snapshot, state=known or PlannerState(), offerings=offered)
        known = launch_failures.observe(snapshot, at)
        waits.append(known.backoffs["failed:default:m5.large/us-east-1a/*"].until - at)
    assert waits == [60, 120, 240, 480]
