"""Units of demand whose purchases are of no use stop; dollars on unused machines are bounded."""

from __future__ import annotations

import pytest

from harness.autoscaler_builders import a_spec, queued
from mesaform.autoscaler.demand import failing_apps
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.planner.purchase_outcomes import FIRST_STOP_S, REFUSED_AFTER_S
from mesaform.autoscaler.reporting.decision_text import render_decision
from mesaform.autoscaler.reporting.reason_text import render
from tests.unit.autoscaler.world import World

STEP_S = 10.0
RACK = [["rack", "IS", "1234567"]]


def a_world(boot_s: float = 20.0, **pool: object) -> World:
    one_type = {"count": 1, "types": ["m5.large"], "attributes": {"rack": "1234567"}}
    return World(a_spec(pools=[{**one_type, **pool}], idle_after_s=20), boot_s=boot_s)


def bought(world: World) -> int:
    return sum(request.count for request in world.fleet.launches)


def of_kind(world: World, kind: str) -> list[Decision]:
    return [decision for decision in world.decisions if decision.kind == kind]


def fill(world: World) -> None:
    """Take all of Terraform's agents."""
    world.want(queued("/full", count=1, cpus=2, mem_mib=4000))
    world.run(10)


def test_an_agent_that_registers_another_attribute_stops_its_unit_with_the_difference():
    world = a_world()
    fill(world)
    world.registers_as = {"rack": "1.23457e+06"}
    world.want(queued("/web", count=1, cpus=1.5, constraints=RACK))
    world.run(900, STEP_S)
    assert bought(world) == 1
    (stop,) = of_kind(world, "purchases_stopped")
    assert render_decision(stop) == "purchases for /web STOP"
    assert "rack is 1.23457e+06, expected 1234567" in render(stop.reasons[0])
    assert not world.ours


def test_a_unit_that_refuses_the_machine_bought_for_it_stops_and_the_machine_is_given_back():
    world = a_world()
    fill(world)
    world.refused = {"/web"}
    world.want(queued("/web", count=1, cpus=1.5))
    world.run(900, STEP_S)
    assert bought(world) == 1
    text = render(of_kind(world, "purchases_stopped")[0].reasons[0])
    assert "it has what was expected; refused offers: UnfulfilledConstraint" in text
    assert not world.ours


def test_work_that_refuses_an_agent_it_fits_on_gets_one_machine_as_a_test():
    world = a_world(count=2)
    world.refused_everywhere = {"/web"}
    world.want(queued("/web", count=4, cpus=0.5))
    world.run(REFUSED_AFTER_S + 900, STEP_S)
    assert bought(world) == 1
    assert of_kind(world, "purchases_stopped")


@pytest.mark.slow
def test_a_stopped_unit_tries_one_machine_and_resumes_when_that_is_used():
    world = a_world()
    fill(world)
    world.refused = {"/web"}
    world.want(queued("/web", count=3, cpus=1.5))
    world.run(900, STEP_S)
    before = bought(world)
    world.refused = set()
    world.run(FIRST_STOP_S + 300, STEP_S)
    assert world.running("/web") == 3
    assert bought(world) == before + 3
    assert of_kind(world, "purchases_resumed")


def test_a_change_of_the_app_ends_the_stop_at_once():
    world = a_world()
    fill(world)
    world.refused = {"/web"}
    world.want(queued("/web", count=1, cpus=1.5, config="1"))
    world.run(600, STEP_S)
    assert of_kind(world, "purchases_stopped")
    world.refused = set()
    world.want(queued("/web", count=1, cpus=1.5, config="2"))
    world.run(60, STEP_S)
    assert world.running("/web") == 1


def test_other_work_uses_the_machine_that_one_unit_refused_and_is_not_stopped():
    world = a_world()
    fill(world)
    world.refused = {"/web"}
    world.want(queued("/web", count=1, cpus=1.5))
    world.run(300, STEP_S)
    world.want(queued("/api", count=4, cpus=1.5))
    world.run(120, STEP_S)
    assert world.running("/api") == 4


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["refused", "attribute", "smaller"])
def test_dollars_on_machines_that_never_ran_work_are_bounded(cause: str):
    world = a_world()
    fill(world)
    world.want(queued("/web", count=4, cpus=1.5, constraints=RACK))
    if cause == "refused":
        world.refused = {"/web"}
    elif cause == "attribute":
        world.registers_as = {"rack": "other"}
    else:
        world.total_of_new = make(1, 4000, 40_000, 0, 100)
    world.run(1800, 15)
    world.run(6 * 3600, 60)
    machines = 4 + 4  # those of the first purchase, and one for each stop
    assert bought(world) <= machines
    assert 0 < world.unused_usd <= machines * 0.096 * 600 / 3600


@pytest.mark.slow
def test_a_crash_loop_does_not_buy_for_each_retry():
    world = a_world()
    world.fails_after_s = {"/crash": 2.0}
    world.want(queued("/crash", count=4, cpus=1.9))
    world.run(900, 2)
    first = bought(world)
    assert first <= 3
    world.run(3600, 12)
    assert bought(world) == first


@pytest.mark.slow
def test_a_crash_loop_without_any_machine_tries_one_less_and_less_often():
    world = a_world(count=0)
    world.fails_after_s = {"/crash": 2.0}
    world.want(queued("/crash", count=4, cpus=1.9))
    world.run(4 * 3600, 30)
    assert 4 <= bought(world) <= 4 + 7


@pytest.mark.slow
def test_machines_are_bought_for_an_app_that_failed_once_one_instance_has_lived():
    world = a_world()
    world.fails_after_s = {"/flaky": 2.0}
    world.want(queued("/flaky", count=4, cpus=1.9))
    world.run(600, 2)
    before = bought(world)
    del world.fails_after_s["/flaky"]
    world.run(300 + failing_apps.LIVED_S + 120, 2)
    assert world.running("/flaky") == 4
    assert bought(world) >= before + 3


@pytest.mark.slow
def test_batches_that_use_their_machines_are_bought_for_every_time():
    world = a_world(boot_s=5)
    fill(world)
    for _ in range(6):
        world.want(queued("/batch", count=3, cpus=1.5))
        world.run(60)
        assert world.running("/batch") == 3
        world.want(queued("/batch", count=0))
        world.run(60)
    assert not of_kind(world, "purchases_stopped")


@pytest.mark.slow
def test_demand_that_is_withdrawn_before_its_machines_come_buys_less_often_and_is_served_later():
    world = a_world()
    fill(world)
    for _ in range(20):
        world.want(queued("/web", count=1, cpus=1.5))
        world.run(10)
        world.want(queued("/web", count=0, cpus=1.5))
        world.run(50)
    assert bought(world) <= 8
    pause = render(of_kind(world, "purchases_stopped")[0].reasons[0])
    assert "2 times in a row its demand ended before its machines came" in pause
    world.want(queued("/web", count=1, cpus=1.5))
    world.run(1800, STEP_S)
    assert world.running("/web") == 1
    assert of_kind(world, "purchases_resumed")
