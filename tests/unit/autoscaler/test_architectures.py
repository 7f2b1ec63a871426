"""Both architectures in one pool: the cheapest that the demand allows is bought, never another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import (
    NOW,
    a_machine,
    a_snapshot,
    a_spec,
    a_total,
    an_agent,
    queued,
)
from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.autoscaler.model.command import Launch
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.observation.mesos_framework_parser import framework
from mesaform.autoscaler.observation.mesos_parsers import app_placements
from mesaform.autoscaler.planner.planner import plan
from mesaform.aws.ports import LaunchRequest
from mesaform.common.architecture import architecture_of
from mesaform.config.schema import ClusterSpec
from mesaform.placement.constraints import Constraint

MIXED = ["m5.large", "m6g.large", "m5.xlarge", "m6g.xlarge"]


def mixed(architecture: str = "x86_64", **pool: object) -> ClusterSpec:
    spec = a_spec(pools=[{"types": MIXED, "count": 0, **pool}])
    return spec.model_copy(
        update={"tasks": spec.tasks.model_copy(update={"architecture": architecture})}
    )


def launches(snapshot: Snapshot) -> list[LaunchRequest]:
    actions = [action for command in plan(snapshot, NOW).commands for action in command.actions]
    return [action.request for action in actions if isinstance(action, Launch)]


def bought(spec: ClusterSpec, *queue: QueueEntry) -> list[LaunchRequest]:
    return launches(a_snapshot(spec, machines=[], queue=list(queue)))


def architectures(requests: list[LaunchRequest]) -> set[str]:
    """Architectures of every offering that the requests name."""
    return {architecture_of(o.instance_type) for r in requests for o in r.offerings}


def test_tasks_that_pin_nothing_get_machines_of_the_clusters_architecture_only() -> None:
    requests = bought(mixed(), queued(count=3))
    assert requests
    assert architectures(requests) == {"x86_64"}
    assert architectures(bought(mixed("arm64"), queued(count=3))) == {"arm64"}


def test_tasks_that_run_anywhere_get_the_cheapest_architecture_and_both_as_alternatives() -> None:
    requests = bought(mixed("any"), queued(count=3))
    assert architecture_of(requests[0].offerings[0].instance_type) == "arm64"  # 20 % cheaper
    assert architectures(requests) == {"x86_64", "arm64"}


def test_a_constraint_pins_the_other_architecture() -> None:
    pinned = queued(count=3, constraints=[("arch", "CLUSTER", "arm64")])
    requests = bought(mixed(), pinned)
    assert requests
    assert architectures(requests) == {"arm64"}


def test_naming_a_pool_of_one_architecture_pins_it() -> None:
    spec = a_spec(pools=[{"count": 0}, {"name": "arm", "types": ["m6g.large"], "count": 0}])
    requests = bought(spec, queued(constraints=[("pool", "CLUSTER", "arm")]))
    assert architectures(requests) == {"arm64"}
    assert architectures(bought(spec, queued())) == {"x86_64"}


def test_the_minimum_of_a_pool_is_made_of_machines_that_any_task_may_use() -> None:
    assert architectures(bought(mixed(min=2))) == {"x86_64"}


def test_free_capacity_of_the_other_architecture_serves_no_task_without_a_pin() -> None:
    machine = a_machine("i-arm", instance_type="m6g.large")
    attributes = {"arch": "arm64", "requires_pin": "arch"}
    agent = an_agent(machine, attributes=attributes, total=a_total("m6g.large"))
    for queue, needs_machine in (
        (queued(), True),
        (queued(constraints=[("arch", "IS", "arm64")]), False),
    ):
        snapshot = a_snapshot(mixed(), machines=[machine], agents=[agent], queue=[queue])
        assert bool(launches(snapshot)) == needs_machine


def test_the_label_of_an_app_or_a_framework_is_read_as_a_constraint() -> None:
    pin = (Constraint("arch", "IS", "arm64"),)
    apps = {"apps": [{"id": "/web", "labels": {"mesaform/arch": "arm64"}}, {"id": "/plain"}]}
    assert app_placements(apps).constraints == {"/web": pin, "/plain": ()}
    labels = {"labels": [{"key": "mesaform/arch", "value": "arm64"}]}
    info = {"id": {"value": "F"}, "name": "run", "labels": labels}
    assert framework({"framework_info": info}, (), {}, {}).constraints == pin


PINS = st.sampled_from(["", "x86_64", "arm64"])


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    default=st.sampled_from(["x86_64", "arm64", "any"]),
    apps=st.lists(st.tuples(PINS, st.integers(1, 6)), min_size=1, max_size=4),
)
def test_no_launch_names_an_architecture_on_which_its_load_may_not_run(
    default: str, apps: list[tuple[str, int]]
) -> None:
    queue = [
        queued(f"/{n}", count, constraints=[("arch", "IS", pin)] if pin else [])
        for n, (pin, count) in enumerate(apps)
    ]
    wanted = {pin or default for pin, _ in apps}
    allowed = {"x86_64", "arm64"} if "any" in wanted else wanted
    requests = bought(mixed(default), *queue)
    assert architectures(requests) <= allowed
    if default != "any":
        assert architectures(requests) == wanted
        assert all(len(architectures([request])) == 1 for request in requests)
