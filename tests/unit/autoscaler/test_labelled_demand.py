"""Labels of work: what is bought satisfies each of them, or the verdict says why nothing is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import (
    NOW,
    a_framework,
    a_machine,
    a_snapshot,
    a_spec,
    a_total,
    an_agent,
    queued,
)
from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.autoscaler.model.command import Launch
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, WantedShape
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.observation.adapters import demand_hook, marathon, metronome
from mesaform.autoscaler.observation.mesos_framework_parser import framework
from mesaform.autoscaler.observation.mesos_parsers import queue_entries
from mesaform.autoscaler.observation.mesos_task_parser import from_json
from mesaform.autoscaler.planner.planner import Plan, plan
from mesaform.autoscaler.reporting.decision_text import render_reasons
from mesaform.autoscaler.reporting.verdict_text import render_verdict
from mesaform.aws.ports import LaunchRequest
from mesaform.common.architecture import architecture_of
from mesaform.config.schema import ClusterSpec
from mesaform.placement.task_labels import read_labels

TYPES = ["m5.large", "m6g.large", "m5.xlarge", "m6g.xlarge"]


def mixed(spot_share: float = 0.5, wanted: str = "x86_64", **fields: Any) -> ClusterSpec:
    pool = {"types": TYPES, "count": 0, "spot_share": spot_share, "max": 40}
    spec = a_spec(pools=[pool], **fields)
    return spec.model_copy(update={"tasks": spec.tasks.model_copy(update={"architecture": wanted})})


def labelled(
    labels: dict[str, str], app: str = "/web", count: int = 1, **fields: Any
) -> QueueEntry:
    read = read_labels(labels)
    rules = [(rule.field, rule.operator, rule.value) for rule in read.constraints]
    return queued(app, count, constraints=rules, labels=read, **fields)


def bought(planned: Plan) -> list[tuple[tuple[str, ...], LaunchRequest]]:
    """Requests, with the names of the demand that they are for."""
    return [
        (tuple(part.name for part in command.decision.demand), action.request)
        for command in planned.commands
        for action in command.actions
        if isinstance(action, Launch)
    ]


def planned(spec: ClusterSpec, *queue: QueueEntry, now: float = NOW) -> Plan:
    return plan(a_snapshot(spec, machines=[], queue=list(queue)), now)


def satisfies(request: LaunchRequest, labels: dict[str, str]) -> bool:
    """Whether every machine that a request may become has what the labels ask for."""
    types = labels.get("mesaform.instance-type", "")
    capacity = labels.get("mesaform.capacity-type", "")
    architecture = labels.get("mesaform.architecture", "")
    return all(
        (not types or offering.instance_type in types.split(","))
        and capacity in ("", offering.capacity)
        and architecture in ("", architecture_of(offering.instance_type))
        for offering in request.offerings
    )


LABELS = st.fixed_dictionaries(
    {},
    optional={
        "mesaform.instance-type": st.lists(st.sampled_from(TYPES), min_size=1, unique=True).map(
            ",".join
        ),
        "mesaform.capacity-type": st.sampled_from(["spot", "on-demand"]),
        "mesaform.architecture": st.sampled_from(["x86_64", "arm64"]),
    },
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    apps=st.lists(st.tuples(LABELS, st.integers(1, 6)), min_size=1, max_size=4),
    spot_share=st.sampled_from([0.0, 0.3, 1.0]),
    wanted=st.sampled_from(["any", "x86_64", "arm64"]),
)
def test_what_is_bought_for_labelled_work_satisfies_each_label(
    apps: list[tuple[dict[str, str], int]], spot_share: float, wanted: str
) -> None:
    labels = {f"/a{number}": own for number, (own, _) in enumerate(apps)}
    entries = [labelled(own, f"/a{number}", count) for number, (own, count) in enumerate(apps)]
    result = planned(mixed(spot_share, wanted), *entries)
    for names, request in bought(result):
        assert all(satisfies(request, labels[name]) for name in names)
    for verdict in result.verdicts:
        own = labels[verdict.unit.name]
        assert verdict.unmet == 0 or verdict.refusal is not None
        if verdict.unmet:
            assert verdict.refusal is not None
            assert verdict.refusal.kind == "constraint"
            assert own, "work without labels is always served"


def test_a_mixed_pool_buys_both_capacity_types_for_the_labels_of_each() -> None:
    spot = labelled({"mesaform.capacity-type": "spot"}, "/spot", 2, cpus=2)
    steady = labelled({"mesaform.capacity-type": "on-demand"}, "/steady", 2, cpus=2)
    result = planned(mixed(), spot, steady)
    capacities = {
        name: {offering.capacity for offering in request.offerings}
        for names, request in bought(result)
        for name in names
    }
    assert capacities == {"/spot": {"spot"}, "/steady": {"on-demand"}}


@pytest.mark.parametrize(("spot_share", "capacity"), [(0.0, "spot"), (1.0, "on-demand")])
def test_a_capacity_type_that_no_pool_buys_is_explained(spot_share: float, capacity: str) -> None:
    result = planned(mixed(spot_share), labelled({"mesaform.capacity-type": capacity}))
    assert not bought(result)
    assert f"no pool satisfies lifecycle IS {capacity}" in render_verdict(result.verdicts[0])


def test_a_type_that_no_pool_has_is_explained() -> None:
    result = planned(mixed(), labelled({"mesaform.instance-type": "c5.9xlarge"}))
    assert not bought(result)
    assert "no pool satisfies instance_type IS c5.9xlarge" in render_verdict(result.verdicts[0])


def test_the_labels_are_in_the_decision_of_the_purchase() -> None:
    result = planned(mixed(), labelled({"mesaform.capacity-type": "spot"}))
    decision = next(command.decision for command in result.commands if command.actions)
    assert "mesaform.capacity-type=spot" in "; ".join(render_reasons(decision))


def test_a_type_label_pins_no_zone() -> None:
    result = planned(mixed(), labelled({"mesaform.instance-type": "m5.large"}, count=9, cpus=2))
    zones = {offering.zone for _, request in bought(result) for offering in request.offerings[:1]}
    assert len(zones) == 3


def test_no_machine_is_bought_until_the_wait_is_over_and_one_is_then() -> None:
    entry = labelled({"mesaform.max-wait": "10m"}, since=NOW)
    early = planned(mixed(), entry, now=NOW + 60)
    assert not bought(early)
    assert "may wait for capacity that exists" in render_verdict(early.verdicts[0])
    assert early.next_pass_at is not None
    assert NOW + 600 <= early.next_pass_at <= NOW + 601
    assert bought(planned(mixed(), entry, now=early.next_pass_at))


def test_work_that_may_wait_uses_what_is_free() -> None:
    machine = a_machine()
    agent = an_agent(machine, total=a_total())
    entry = labelled({"mesaform.max-wait": "10m"}, since=NOW)
    result = plan(a_snapshot(mixed(), machines=[machine], agents=[agent], queue=[entry]), NOW)
    assert result.verdicts[0].fits_now == 1


def test_a_framework_with_a_bad_label_gets_a_verdict_and_no_machine() -> None:
    shape = make(1, 512)
    labels = read_labels({"mesaform.capacity-type": "cheap"})
    wanted = (WantedShape(shape, 2, "job", labels=labels),)
    result = plan(_reporting(wanted), NOW)
    assert not bought(result)
    assert "mesaform.capacity-type must be one of spot, on-demand" in render_verdict(
        result.verdicts[0]
    )
    assert result.verdicts[0].refusal is not None
    assert result.verdicts[0].refusal.kind == "label"


def test_reported_work_is_bought_by_its_labels_after_its_wait() -> None:
    labels = read_labels({"mesaform.capacity-type": "spot", "mesaform.max-wait": "60s"})
    wanted = (WantedShape(make(1, 512), 1, "job", "", labels.constraints, NOW, labels=labels),)
    assert not bought(plan(_reporting(wanted), NOW + 30))
    requests = bought(plan(_reporting(wanted, at=NOW + 61), NOW + 61))
    assert requests
    assert all(satisfies(request, {"mesaform.capacity-type": "spot"}) for _, request in requests)


def _reporting(wanted: tuple[WantedShape, ...], at: float = NOW) -> Snapshot:
    batch = a_framework()
    demand = FrameworkDemand(batch.framework_id, "wants_more", at, adapter="demand", wanted=wanted)
    return a_snapshot(
        mixed(),
        machines=[],
        frameworks=[batch],
        framework_demand={batch.framework_id: demand},
        state=PlannerState(leader_since=NOW - 1000),
    )


PAIRS = {"mesaform.instance-type": "m5.large", "mesaform.max-wait": "5m", "team": "a"}
WIRE = {"labels": [{"key": key, "value": value} for key, value in PAIRS.items()]}
WANTED = read_labels(PAIRS)


def test_the_queue_of_services_and_frameworks_carry_the_labels() -> None:
    app = {"id": "/web", "cpus": 1, "mem": 64, "labels": PAIRS}
    entries = queue_entries({"queue": [{"app": app, "count": 1, "delay": {"overdue": True}}]})
    assert entries[0].labels == WANTED
    assert entries[0].constraints == WANTED.constraints
    parsed = framework({"framework_info": {"id": {"value": "F"}, "labels": WIRE}}, (), {}, {})
    assert parsed.labels == WANTED
    assert parsed.constraints == WANTED.constraints


def test_tasks_of_frameworks_carry_the_constraints_of_their_labels() -> None:
    task = {
        "task_id": {"value": "t-1"},
        "agent_id": {"value": "S"},
        "framework_id": {"value": "F"},
        "state": "TASK_RUNNING",
        "labels": WIRE,
    }
    assert from_json({"tasks": [task]}).running[0].constraints == WANTED.constraints


def test_adapters_read_the_labels_of_waiting_work() -> None:
    run_spec = marathon.RunSpec("/web", cpus=1, mem=64, labels=PAIRS)
    entry = marathon.Entry(count=1, app=run_spec, delay=marathon.Delay(overdue=True))
    job = metronome.Job("job", metronome.Run(), labels=PAIRS)
    queued_run = metronome.QueuedJob(jobId="job", runs=[b"{}"])  # type: ignore[list-item]
    item = demand_hook.Item("work", 1, 1, 64, labels=PAIRS)
    readings = (
        marathon.reading_of(marathon.Queue([entry])),
        metronome.reading_of([queued_run], {"job": job}),
        demand_hook.reading_of(demand_hook.Demand(1, [item])),
    )
    for reading in readings:
        assert reading.wanted[0].labels == WANTED
        assert reading.wanted[0].constraints == WANTED.constraints
