"""One agent, task, framework or app that cannot be read is left out, and the others are read."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import NOW, a_snapshot
from mesaform.autoscaler.model.shape import NOTHING
from mesaform.autoscaler.observation import mesos_agent_parser, mesos_parsers, mesos_task_parser
from mesaform.autoscaler.planner.planner import plan
from mesaform.common.errors import ClusterUnreachable
from mesaform.common.faults import Fault


def resources(cpus: Any = 2) -> list[dict[str, Any]]:
    return [{"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}}]


def an_agent(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "agent_info": {
            "id": {"value": f"S{number}"},
            "hostname": f"host-{number}",
            "attributes": [
                {"name": "instance_id", "type": "TEXT", "text": {"value": f"i-{number}"}}
            ],
        },
        "active": True,
        "total_resources": resources(),
        "allocated_resources": resources(1),
        **fields,
    }


def a_task(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "task_id": {"value": f"t{number}"},
        "framework_id": {"value": "F1"},
        "agent_id": {"value": "S1"},
        "state": "TASK_RUNNING",
        "resources": resources(1),
        "statuses": [{"state": "TASK_RUNNING", "timestamp": NOW}],
        **fields,
    }


def a_framework(number: int, **fields: Any) -> dict[str, Any]:
    info = {"id": {"value": f"F{number}"}, "name": f"f{number}", "roles": ["*"], **fields}
    return {"framework_info": info, "active": True, "connected": True}


def view_of(agents: list[Any], tasks: list[Any] = [], frameworks: list[Any] = []) -> Any:  # noqa: B006
    faults: list[Fault] = []
    agent_reader, task_reader = mesos_agent_parser.AgentReader(), mesos_task_parser.TaskReader()
    read = agent_reader.read(encoded("get_agents", {"agents": agents}))
    seen = task_reader.read(encoded("get_tasks", {"tasks": tasks}))
    view = mesos_parsers.cluster_view(
        mesos_parsers.MasterAnswers(
            read,
            seen.running,
            {"frameworks": frameworks},
            {},
            over=seen.over,
            unreadable_tasks=seen.unreadable,
        ),
        detailed=True,
        faults=faults,
    )
    return view, [*agent_reader.faults, *task_reader.faults, *faults]


def encoded(name: str, body: Any) -> bytes:
    return msgspec.json.encode({"type": name.upper(), name: body})


@pytest.mark.parametrize(
    "bad",
    [
        an_agent(2, total_resources=resources("NaN")),
        an_agent(2, total_resources=resources(1e308)),
        an_agent(2, total_resources={"cpus": 1}),
        an_agent(2, total_resources=[{"name": "ports", "type": "RANGES", "ranges": {"range": 1}}]),
        an_agent(2, active="yes"),
        an_agent(2, registered_time={"nanoseconds": "now"}),
    ],
)
def test_an_agent_whose_report_cannot_be_read_keeps_its_tasks_and_offers_nothing(bad):
    task = a_task(1, agent_id={"value": "S2"})
    view, faults = view_of([an_agent(1), bad], [task])
    readable, unreadable = view.agents
    assert readable.total[0] == 2000
    assert (unreadable.instance_id, unreadable.total, unreadable.tasks) == ("i-2", NOTHING, 1)
    assert {fault.kind for fault in faults} == {"agent"}
    assert view.unreadable == 0


@pytest.mark.parametrize(
    "bad",
    [
        {},
        7,
        None,
        an_agent(2, agent_info={"id": 7}),
        an_agent(2, agent_info={"id": {"value": "S2"}, "attributes": 7}, total_resources=7),
    ],
)
def test_nothing_is_removed_while_an_agent_cannot_be_assigned_to_its_machine(bad):
    view, faults = view_of([an_agent(1), bad])
    assert view.unreadable == (bad != {})
    assert bool(faults) == (bad != {})
    if bad != {}:
        planned = plan(a_snapshot(cluster=view), NOW)
        assert planned.removals_blocked is not None
        assert planned.removals_blocked.code == "reports_unreadable"


@pytest.mark.parametrize(
    "bad",
    [
        a_task(2, resources=resources("x")),
        a_task(2, resources=7),
        a_task(2, labels=[]),
        a_task(2, statuses=[{"timestamp": "x"}]),
    ],
)
def test_a_task_that_cannot_be_read_counts_on_its_agent(bad):
    view, faults = view_of([an_agent(1)], [a_task(1), bad])
    assert view.agents[0].tasks == 2
    assert [fault.kind for fault in faults] == ["task"]


def test_a_task_without_an_agent_that_can_be_read_blocks_removals():
    view, faults = view_of([an_agent(1)], [a_task(1), a_task(2, agent_id=7), 7])
    assert (view.agents[0].tasks, view.unreadable) == (1, 2)
    assert len(faults) == 2


@pytest.mark.parametrize(
    "bad",
    [
        a_framework(2, roles=7),
        a_framework(2, offer_filters={"*": 7}),
        a_framework(2, offer_filters=[]) | {"framework_info": {"id": {"value": "F2"}, "roles": 1}},
    ],
)
def test_a_framework_that_cannot_be_read_is_left_out(bad):
    view, faults = view_of([an_agent(1)], [], [a_framework(1), bad, a_framework(3), 7])
    assert [item.framework_id for item in view.frameworks][:1] == ["F1"]
    assert "F3" in [item.framework_id for item in view.frameworks]
    assert [fault.subject for fault in faults] == ["F2"]


def test_an_app_that_cannot_be_read_is_left_out_of_the_queue_and_stops_moves():
    faults: list[Fault] = []
    good = {"app": {"id": "/good", "cpus": 1, "mem": 1}, "count": 2}
    bad = {"app": {"id": "/bad", "cpus": "many"}, "count": 1}
    entries = mesos_parsers.queue_entries({"queue": [bad, good, 7, {}]}, faults)
    assert [entry.app for entry in entries] == ["/good"]
    assert [fault.subject for fault in faults] == ["/bad"]
    with pytest.raises(ClusterUnreachable, match="/bad"):
        mesos_parsers.app_placements({"apps": [{"id": "/bad", "constraints": 7}]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def replaced(document: Any, path: list[int], value: Any) -> Any:
    """The document with the part at a path replaced."""
    if not path or not isinstance(document, dict | list) or not document:
        return value
    changed = copy.copy(document)
    keys = list(changed) if isinstance(changed, dict) else range(len(changed))
    key = keys[path[0] % len(keys)]
    changed[key] = replaced(changed[key], path[1:], value)
    return changed


@settings(max_examples=60)
@given(st.integers(0, 2), st.lists(st.integers(0, 9), max_size=8), JSON)
def test_no_part_of_an_answer_hides_the_entries_beside_it(which, path, value):
    """The second of two entries is mutated anywhere; the first one is always read."""
    bad = replaced([an_agent(2), a_task(2), a_framework(2)][which], path, value)
    lists: list[list[Any]] = [[an_agent(1)], [a_task(1)], [a_framework(1)]]
    lists[which].append(bad)
    view, _ = view_of(*lists)
    assert "S1" in [agent.agent_id for agent in view.agents]
    assert "F1" in [framework.framework_id for framework in view.frameworks]
    assert next(agent.tasks for agent in view.agents if agent.agent_id == "S1") >= 1
