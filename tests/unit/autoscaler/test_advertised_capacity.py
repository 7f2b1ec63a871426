"""Advertised capacity replaces the estimate; anomalies are reported once, replaced on request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from harness.autoscaler_builders import (
    NOW,
    a_machine,
    a_snapshot,
    a_spec,
    a_total,
    an_agent,
    offerings,
    queued,
)
from mesaform.autoscaler.disruption.drift import max_age_hours
from mesaform.autoscaler.model.cluster_view import Agent, RunningTask
from mesaform.autoscaler.model.planner_state import Advertised, PlannerState
from mesaform.autoscaler.model.shape import Shape, make, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.planner.advertised_capacity import KERNEL_SHARE, as_advertised
from mesaform.autoscaler.planner.planner import Plan, plan
from mesaform.autoscaler.reporting.decision_text import render_decision
from mesaform.autoscaler.reporting.reason_text import render, render_all
from mesaform.aws.ports import Machine, Template
from mesaform.config.schema import ClusterSpec
from mesaform.topology.names import Tag
from tests.unit.autoscaler.world import World

M5 = a_total("m5.large")
SMALLER: Shape = (M5[0], M5[1] - 500_000, M5[2], M5[3], M5[4])
SPEC = a_spec(pools=[{"count": 0, "types": ["m5.large", "m5.xlarge", "c5.large"]}])


def a_pass(
    machines: list[Machine], agents: list[Agent], memory: PlannerState | None = None, **fields: Any
) -> Plan:
    memory = memory or PlannerState(leader_since=NOW - 999)
    return plan(
        a_snapshot(
            fields.pop("spec", SPEC), machines=machines, agents=agents, state=memory, **fields
        ),
        NOW,
    )


def reported(planned: Plan, kind: str) -> list[str]:
    """The decisions of a kind with their reasons, as text."""
    return [
        f"{render_decision(step.decision)}: {render_all(step.decision.reasons)}"
        for step in planned.commands
        if step.decision.kind == kind
    ]


def shapes(spec: ClusterSpec, advertised: dict[str, Advertised]) -> dict[str, Shape]:
    return {
        o.instance_type: shape_of(o.resources)
        for o in as_advertised(offerings(spec), advertised, spec)["default"]
    }


def test_what_an_agent_has_is_remembered_by_pool_and_type_and_said_once_when_it_is_less() -> None:
    machine = a_machine()
    planned = a_pass([machine], [an_agent(machine, total=SMALLER)])
    assert planned.state.advertised == {"default/m5.large": Advertised(SMALLER, NOW)}
    assert reported(planned, "capacity_mismatch") == [
        (
            "m5.large in pool default advertises less capacity than expected: "
            "500 MiB memory less than expected; "
            "from now on tasks are packed by what agents of this type advertise"
        )
    ]
    again = a_pass(
        [machine],
        [an_agent(machine, total=SMALLER)],
        replace(planned.state, leader_since=NOW - 999),
    )
    assert reported(again, "capacity_mismatch") == []
    assert again.state.advertised == planned.state.advertised


def test_an_agent_with_all_that_was_expected_is_no_news() -> None:
    machine = a_machine()
    planned = a_pass([machine], [an_agent(machine)])
    assert planned.state.advertised["default/m5.large"].shape == M5
    assert reported(planned, "capacity_mismatch") == []


@pytest.mark.parametrize("totals", [(M5, SMALLER), (SMALLER, M5)])
def test_of_agents_that_differ_the_least_counts(totals: tuple[Shape, Shape]) -> None:
    item, two = a_machine("i-1"), a_machine("i-2")
    planned = a_pass([item, two], [an_agent(item, total=totals[0]), an_agent(two, total=totals[1])])
    assert planned.state.advertised["default/m5.large"].shape == SMALLER


@pytest.mark.slow
def test_work_is_packed_by_what_was_advertised_so_that_no_machine_is_bought_that_is_too_small() -> (
    None
):
    whole = queued(cpus=1, mem_mib=M5[1] / 1000 - 100)
    first = plan(a_snapshot(SPEC, machines=[], agents=[], queue=[whole]), NOW)
    assert [
        step.decision.offering.partition("/")[0]
        for step in first.commands
        if step.decision.kind == "buy"
    ] == ["m5.large"]
    memory = PlannerState(
        leader_since=NOW - 9, advertised={"default/m5.large": Advertised(SMALLER, NOW)}
    )
    then = plan(a_snapshot(SPEC, machines=[], agents=[], queue=[whole], state=memory), NOW)
    assert [
        step.decision.offering.partition("/")[0]
        for step in then.commands
        if step.decision.kind == "buy"
    ] == ["m5.xlarge"]


def test_types_never_seen_are_estimated_less_what_others_of_the_pool_were_short_of() -> None:
    raw = shapes(SPEC, {})
    result = shapes(SPEC, {"default/m5.large": Advertised(SMALLER, NOW)})
    share = SMALLER[1] / M5[1]
    assert result["m5.large"] == SMALLER
    assert result["m5.xlarge"][1] == int(raw["m5.xlarge"][1] * share)
    assert result["m5.xlarge"][0] == raw["m5.xlarge"][0]
    assert result["c5.large"][2:] == raw["c5.large"][2:]


def test_of_another_pool_nothing_is_concluded() -> None:
    assert shapes(SPEC, {"gpu/m5.large": Advertised(SMALLER, NOW)}) == shapes(SPEC, {})


def test_an_agent_with_more_than_expected_does_not_make_others_larger() -> None:
    more = make(2, 9000, 35840, 0, M5[4])
    result = shapes(SPEC, {"default/m5.large": Advertised(more, NOW)})
    assert result["m5.large"] == more
    assert result["m5.xlarge"] == shapes(SPEC, {})["m5.xlarge"]


def test_gpus_disk_and_ports_are_learned_too() -> None:
    odd = make(2, 7680, 20000, 1, 11)
    result = as_advertised(offerings(SPEC), {"default/m5.large": Advertised(odd, NOW)}, SPEC)[
        "default"
    ]
    of = {o.instance_type: o.resources for o in result}
    assert (of["m5.large"].disk_mib, of["m5.large"].gpus, of["m5.large"].port_count) == (
        20000,
        1,
        11,
    )
    assert of["m5.xlarge"].gpus == 0
    assert of["m5.xlarge"].disk_mib == 20000
    assert of["m5.xlarge"].port_count == 11


def test_on_aws_a_cautious_share_is_kept_for_the_kernel_until_one_was_seen() -> None:
    changed = {"target": "aws", "network": {"operator_cidrs": ["203.0.113.7/32"]}}
    spec = ClusterSpec.model_validate(
        {**SPEC.model_dump(exclude={"network", "engine", "target"}), **changed}
    )
    assert shapes(spec, {})["m5.large"][1] == int(M5[1] * (1 - KERNEL_SHARE))
    assert shapes(spec, {"default/m5.large": Advertised(M5, NOW)})["m5.large"] == M5


def test_a_type_not_seen_for_a_month_is_estimated_again() -> None:
    old = PlannerState(
        leader_since=NOW - 9,
        advertised={"default/m5.large": Advertised(SMALLER, NOW - 31 * 86400.0)},
    )
    assert a_pass([], [], old).state.advertised == {}
    young = PlannerState(
        leader_since=NOW - 9,
        advertised={"default/m5.large": Advertised(SMALLER, NOW - 29 * 86400.0)},
    )
    assert a_pass([], [], young).state.advertised == young.advertised


def test_memory_of_what_was_seen_is_not_written_anew_each_pass() -> None:
    machine = a_machine()
    memory = PlannerState(
        leader_since=NOW - 9, advertised={"default/m5.large": Advertised(M5, NOW - 3600)}
    )
    assert a_pass([machine], [an_agent(machine)], memory).state.advertised == memory.advertised


def test_a_journal_of_before_this_is_still_read() -> None:
    old = msgspec.to_builtins(PlannerState())
    for name in ("advertised", "anomalies"):
        del old[name]
    assert msgspec.convert(old, PlannerState) == PlannerState()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [({"pool": "gpu"}, "pool gpu"), ({"instance_type": "m5.xlarge"}, "instance_type m5.xlarge"),
     ({"zone": "us-east-1f"}, "zone us-east-1f"), ({"lifecycle": "spot"}, "lifecycle spot")],
)  # fmt: skip
def test_an_agent_that_registers_as_something_else_is_said_once_and_teaches_nothing(
    attributes: dict[str, str], words: str
) -> None:
    machine = a_machine()
    agent = an_agent(machine, attributes=attributes, total=SMALLER)
    planned = a_pass([machine], [agent])
    assert words in reported(planned, "anomaly")[0]
    assert planned.state.advertised == {}
    assert reported(a_pass([machine], [agent], planned.state), "anomaly") == []


def test_an_agent_that_does_not_say_everything_is_not_wrong() -> None:
    machine = a_machine()
    agent = replace(an_agent(machine), attributes={"instance_id": machine.instance_id})
    assert reported(a_pass([machine], [agent]), "anomaly") == []


@pytest.mark.slow
def test_a_machine_that_registered_twice_is_said_and_counted_once() -> None:
    machine = a_machine()
    twins = [
        an_agent(machine, agent_id="S-old", registered_at=NOW - 900),
        an_agent(machine, agent_id="S-new", registered_at=NOW - 9),
    ]
    planned = a_pass([machine], twins, queue=[queued(count=3)])
    assert reported(planned, "anomaly") == [
        "i-1 is not as expected: several active agents are registered on it: S-new, S-old"
    ]
    verdict = planned.verdicts[0]
    assert verdict.fits_now == 2
    gone = replace(twins[0], active=False)
    assert reported(a_pass([machine], [gone, twins[1]]), "anomaly") == []


def test_an_agent_whose_machine_is_not_this_clusters_is_said_once_it_cannot_be_lag() -> None:
    stranger = an_agent(a_machine("i-other"), registered_at=NOW - 600)
    assert "i-other, which EC2 does not list" in reported(a_pass([], [stranger]), "anomaly")[0]
    assert reported(a_pass([], [replace(stranger, registered_at=NOW - 60)]), "anomaly") == []
    assert (
        reported(a_pass([a_machine("i-other", state="shutting-down")], [stranger]), "anomaly") == []
    )


def version(number: str, **fields: Any) -> Machine:
    return a_machine(**fields, tags={Tag.TEMPLATE_VERSION: number})


TEMPLATES = {"default": Template("3", frozenset({"2", "3"}))}


def test_a_machine_of_an_older_template_is_reported_once_unless_its_version_is_equal() -> None:
    old, alike = version("1", name="i-1"), version("2", name="i-2")
    agents = [an_agent(old), an_agent(alike)]
    planned = a_pass([old, alike], agents, templates=TEMPLATES)
    assert reported(planned, "anomaly") == [
        "i-1 is not as expected: comes from version 1 of its launch template, the newest is 3"
    ]
    assert (
        reported(a_pass([old, alike], agents, planned.state, templates=TEMPLATES), "anomaly") == []
    )
    assert reported(a_pass([old, alike], agents), "anomaly") == [], (
        "templates that could not be read"
    )


def test_a_machine_of_a_version_that_the_last_reading_does_not_know_has_not_drifted() -> None:
    """The list of templates is read every minute; `mesaform up` made version 3 since."""
    known = Template("2", frozenset({"2"}), read_at=NOW - 100)
    new = version("3", name="i-new", launched_at=NOW - 10)
    replaced = version("1", name="i-same-age", launched_at=NOW - 10)
    old = version("1", name="i-old", launched_at=NOW - 900)
    machines = [new, replaced, old]
    agents = [an_agent(machine) for machine in machines]
    planned = a_pass(machines, agents, templates={"default": known})
    assert reported(planned, "anomaly") == [
        "i-old is not as expected: comes from version 1 of its launch template, the newest is 2"
    ]
    fresh = {"default": Template("3", frozenset({"3"}), read_at=NOW)}
    assert "i-same-age is not as expected" in str(
        reported(a_pass(machines, agents, planned.state, templates=fresh), "anomaly")
    )


def test_versions_are_compared_as_numbers() -> None:
    assert not Template("9", frozenset({"9"})).is_outdated("10", NOW)
    assert Template("10", frozenset({"10"})).is_outdated("9", NOW)


@pytest.mark.slow
def test_new_machines_are_not_replaced_while_the_list_of_templates_is_stale() -> None:
    world = drifting(replace=True)
    stale = Template("1", frozenset({"1"}), read_at=world.now)
    new_version(world)
    actual = world.fleet.templates
    world.want(queued("/more", 4))
    world.fleet.templates = lambda cluster, needed=(): {"default": stale}  # type: ignore[method-assign,misc]
    world.run(56)
    world.fleet.templates = actual  # type: ignore[method-assign]
    assert len(world.ours) == 6
    assert not world.moved
    assert not [decision for decision in world.decisions if decision.kind == "anomaly"]


def drifting(*, protected: bool = False, **drift: Any) -> World:
    spec = a_spec(
        pools=[{"count": 0, "types": ["m5.large"], "max": 20}],
        idle_after_s=9000,
        drift=drift,
        consolidation={"max_agents_percent": 30.0, "payback_s": 300.0},
    )
    world = World(spec, boot_s=10)
    world.protected |= {"/web"} if protected else set()
    world.want(queued("/web", 8))
    world.run(40)
    assert len(world.ours) == 4
    return world


def new_version(world: World) -> None:
    world.fleet.pool_templates["default"] = Template("2", frozenset({"2"}))


@pytest.mark.slow
def test_drifted_machines_are_left_alone_unless_replacing_is_asked_for() -> None:
    world = drifting()
    new_version(world)
    world.run(600)
    assert not world.moved
    assert sum(decision.kind == "anomaly" for decision in world.decisions) == 4


@pytest.mark.slow
def test_all_drifted_machines_are_replaced_within_the_disruption_budget_and_new_ones_stay() -> None:
    world = drifting(replace=True)
    new_version(world)
    before = {machine.instance_id for machine in world.ours}
    most_gone = 0
    for _ in range(300):
        world.run(4)
        disturbed = [
            item
            for item in world.journal.memory.removals.values()
            if item.policy in {"drift", "replace"}
        ]
        most_gone = max(most_gone, len(disturbed))
    assert world.running("/web") == 8
    assert not before & {machine.instance_id for machine in world.ours}
    assert {machine.tags[Tag.TEMPLATE_VERSION] for machine in world.ours} == {"2"}
    assert most_gone <= 1
    count = len(world.fleet.launches)
    world.run(1200)
    assert len(world.fleet.launches) == count, "what is new is not replaced again"
    kinds = [decision.kind for decision in world.decisions if decision.policy == "drift"]
    assert "buy" in kinds


@pytest.mark.slow
def test_protected_work_stays_however_old_its_machine_is() -> None:
    world = drifting(replace=True, protected=True)
    new_version(world)
    world.run(600)
    assert not world.moved


@pytest.mark.slow
def test_a_machine_past_its_age_is_replaced_before_it_goes() -> None:
    world = drifting(max_age_hours=1)
    world.run(3000, step_s=10)
    assert not world.moved
    first = {machine.instance_id for machine in world.ours}
    world.run(1500, step_s=4)
    assert not first & {machine.instance_id for machine in world.ours}
    assert world.running("/web") == 8
    reasons = [
        render(decision.reasons[0]) for decision in world.decisions if decision.policy == "drift"
    ]
    assert "runs for 1 hours (max_age_hours 1)" in reasons[0]


def test_a_pool_s_own_age_counts_before_the_cluster_s() -> None:
    spec = a_spec(pools=[{"max_age_hours": 2}, {"name": "other"}], drift={"max_age_hours": 9})
    assert max_age_hours(spec, "default") == 2
    assert max_age_hours(spec, "other") == 9
    assert max_age_hours(a_spec(), "default") is None


def test_a_machine_whose_drift_is_unknown_has_none() -> None:
    machine = a_machine()
    snapshot: Snapshot = a_snapshot(
        SPEC, machines=[machine], agents=[an_agent(machine)], templates=TEMPLATES
    )
    assert plan(snapshot, NOW).state.anomalies == {}


REPLACING = a_spec(
    pools=[{"count": 0, "types": ["m5.large"], "max": 20}],
    idle_after_s=9000,
    drift={"replace": True},
)


def going(planned: Plan) -> list[str]:
    return [step.instance_id for step in planned.commands if step.decision.kind == "deactivate"]


def test_of_drifted_machines_without_work_only_as_many_go_as_may_be_disturbed() -> None:
    machines = [version("1", name=f"i-{n}") for n in range(4)]
    agents = [an_agent(machine) for machine in machines]
    planned = a_pass(machines, agents, spec=REPLACING, templates=TEMPLATES)
    assert going(planned) == ["i-0"]
    assert planned.commands[0].decision.policy == "drift"


def test_a_protected_machine_stays_and_so_does_one_that_was_just_spared() -> None:
    machine = version("1", name="i-1")
    guarded = replace(machine, tags={**machine.tags, "mesaform:protect": "true"})
    assert going(a_pass([machine], [an_agent(machine)], spec=REPLACING, templates=TEMPLATES)) == [
        "i-1"
    ]
    assert going(a_pass([guarded], [an_agent(guarded)], spec=REPLACING, templates=TEMPLATES)) == []
    spared = PlannerState(leader_since=NOW - 999, cooldown_until={"i-1": NOW + 9})
    assert (
        going(a_pass([machine], [an_agent(machine)], spared, spec=REPLACING, templates=TEMPLATES))
        == []
    )


def test_work_never_moves_from_one_drifted_machine_to_another() -> None:
    machines = [version("1", name=f"i-{n}") for n in range(2)]
    shape = make(1, 512)
    work = RunningTask("web.instance-1._app.1", "/web", "marathon", shape, since=NOW - 99)
    agents = [
        an_agent(machine, allocated=shape, tasks=1, apps={"/web": 1}, work=(work,))
        for machine in machines
    ]
    planned = a_pass(
        machines, agents, spec=REPLACING, templates=TEMPLATES, app_constraints={"/web": ()}
    )
    assert going(planned) == []
    assert [
        (step.decision.kind, step.decision.policy)
        for step in planned.commands
        if step.decision.count
    ] == [("buy", "drift")]
    newer = version("3", name="i-9")
    room = an_agent(newer, allocated=shape, tasks=1)
    moved = a_pass(
        [*machines, newer],
        [*agents, room],
        spec=REPLACING,
        templates=TEMPLATES,
        app_constraints={"/web": ()},
    )
    assert going(moved) == ["i-0"]
