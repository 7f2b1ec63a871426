"""Small pure parts: life cycle table, constraints, rows of decisions, values from wire JSON."""

from __future__ import annotations

import msgspec
import pytest

from harness.autoscaler_builders import an_agent
from mesaform.autoscaler.model import lifecycle
from mesaform.autoscaler.model.decision import Decision, DemandCount, from_record
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import MANY, how_often, make, named, text
from mesaform.autoscaler.observation import mesos_parsers
from mesaform.autoscaler.observation.mesos_agent_parser import from_json as agents_from_json
from mesaform.autoscaler.observation.mesos_task_parser import from_json
from mesaform.placement.constraints import Constraint, InstanceCounts, room


def test_a_life_from_purchase_to_the_end_is_known():
    history: tuple[str, ...] = ()
    for state in (
        "bought",
        "booting",
        "idle",
        "busy",
        "busy",
        "idle",
        "deactivated",
        "draining",
        "drained",
        "terminating",
        "gone",
    ):
        history = lifecycle.step(history, state)
    assert history[-3:] == ("drained", "terminating", "gone")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("gone", "idle"),
        ("terminating", "busy"),
        ("draining", "booting"),
        ("drained", "deactivated"),
        ("idle", "booting"),
    ],
)
def test_what_cannot_happen_raises_with_the_history(before, after):
    with pytest.raises(lifecycle.UnknownEdge) as caught:
        lifecycle.step(("bought", before), after)
    assert caught.value.where == f"bought > {before} > {after}"


def test_every_edge_of_the_table_leads_to_a_state_of_the_table_and_says_how():
    for edges in lifecycle.EDGES.values():
        assert all(state in lifecycle.EDGES and why for state, why in edges.items())


@pytest.mark.parametrize(
    ("operator", "value", "used", "expected"),
    [
        ("UNIQUE", "", 0, 1),
        ("UNIQUE", "", 1, 0),
        ("MAX_PER", "3", 1, 2),
        ("MAX_PER", "x", 0, 0),
        ("CLUSTER", "us-east-1a", 5, MANY),
        ("CLUSTER", "us-east-1b", 0, 0),
        ("GROUP_BY", "3", 9, 0),
        ("LIKE", "us-.*", 0, MANY),
        ("LIKE", "us-", 0, 0),
        ("LIKE", "(", 0, 0),
        ("UNLIKE", "(?!us-).*", 0, 0),
        ("LIKE", "(([a-z0-9-]*)*)*!", 0, 0),
        ("UNLIKE", "eu-.*", 0, MANY),
        ("IS", "us-east-1a", 0, MANY),
    ],
)
def test_constraints_bound_what_a_node_takes(operator, value, used, expected):
    node = an_agent()
    constraint = Constraint("zone", operator, value)
    usage = InstanceCounts()
    usage.add("/web", [constraint], node, used)
    assert room("/web", [constraint], node, usage) == expected


def test_a_cluster_without_a_value_stays_where_it_began():
    here, there = an_agent(attributes={"rack": "1"}), an_agent(attributes={"rack": "2"})
    usage, constraint = InstanceCounts(), Constraint("rack", "CLUSTER")
    assert room("/web", [constraint], there, usage) == MANY
    usage.add("/web", [constraint], here, 1)
    assert room("/web", [constraint], there, usage) == 0
    assert room("/web", [constraint], here, usage) == MANY


def test_amounts_are_said_in_units_that_people_use():
    assert [named(amount, 1) for amount in (512_000, 204_800_000, 1_556_480)] == [
        "512 MiB memory",
        "200 GiB memory",
        "1.52 GiB memory",
    ]
    assert (named(2500, 0), named(3, 4), named(10_240_000, 2)) == (
        "2.5 cpus",
        "3 ports",
        "10 GiB disk",
    )
    assert text(make(0.5, 128)) == "0.5 cpus, 128 MiB memory"
    assert how_often(make(0.5, 100), make(4, 350)) == 3


def test_a_decision_survives_the_ledger():
    decision = Decision(
        12.5,
        "buy",
        (Reason.of(ReasonCode.POOL_MINIMUM, pool="default"),),
        "default",
        "m5.large/a/spot",
        1,
        ("i-1",),
        (DemandCount("/web", 1),),
        0.1,
        0.2,
        0.3,
        "ms-1",
    )
    row = decision.record()
    assert (row["kind"], row["decision"]) == ("decision", "buy")
    assert from_record(msgspec.json.decode(msgspec.json.encode(row))) == decision


AGENTS = {
    "agents": [
        {
            "agent_info": {
                "hostname": "127.42.0.20",
                "id": {"value": "S1"},
                "resources": [],
                "attributes": [
                    {"name": "instance_id", "type": "TEXT", "text": {"value": "i-1"}},
                    {"name": "gen", "type": "SCALAR", "scalar": {"value": 5}},
                ],
            },
            "active": False,
            "deactivated": True,
            "registered_time": {"nanoseconds": 1795225913375782912},
            "total_resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 4.0}, "role": "*"},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 4096.0}, "role": "*"},
                {
                    "name": "ports",
                    "type": "RANGES",
                    "ranges": {"range": [{"begin": 31000, "end": 32000}]},
                    "role": "*",
                },
            ],
            "allocated_resources": [
                {
                    "name": "cpus",
                    "type": "SCALAR",
                    "scalar": {"value": 0.1},
                    "role": "*",
                    "allocation_info": {"role": "*"},
                }
            ],
            "drain_info": {
                "state": "DRAINING",
                "config": {"max_grace_period": {"nanoseconds": 3000000000}, "mark_gone": False},
            },
        }
    ],
    "recovered_agents": [{}],
}
TASKS = {
    "tasks": [
        {
            "task_id": {"value": "web_api.instance-1._app.1"},
            "framework_id": {"value": "F1"},
            "agent_id": {"value": "S1"},
            "state": "TASK_RUNNING",
            "resources": [],
        },
        {
            "task_id": {"value": "x"},
            "framework_id": {"value": "F2"},
            "agent_id": {"value": "S1"},
            "state": "TASK_FINISHED",
            "resources": [],
        },
    ]
}
FILTERS = {
    "*": {
        "min_allocatable_resources": {
            "quantities": [{"quantities": {"cpus": {"value": 2.0}, "mem": {"value": 512}}}]
        }
    }
}
FRAMEWORKS = {
    "frameworks": [
        {
            "framework_info": {"name": "services", "id": {"value": "F1"}},
            "active": True,
            "connected": True,
        },
        {
            "framework_info": {"name": "ba/tch", "id": {"value": "F2"}, "offer_filters": FILTERS},
            "active": True,
            "connected": True,
        },
    ]
}
METRICS = {
    "master/frameworks/ba%2Ftch/F2/offers/sent": 7.0,
    "master/frameworks/ba%2Ftch/F2/offers/declined": 6.0,
    "master/frameworks/ba%2Ftch/F2/offers/accepted": 1.0,
    "master/frameworks/ba%2Ftch/F2/calls/revive": 2.0,
    "master/frameworks/ba%2Ftch/F2/roles/*/suppressed": 1.0,
    "master/elected": 1.0,
}


def test_the_masters_answers_become_a_view():
    view = mesos_parsers.cluster_view(
        mesos_parsers.MasterAnswers(
            agents_from_json(AGENTS), from_json(TASKS).running, FRAMEWORKS, METRICS
        ),
        own=["F1"],
    )
    (agent,), (framework,) = view.agents, view.frameworks
    assert view.recovered == 1
    assert (agent.agent_id, agent.instance_id, agent.attributes["gen"]) == ("S1", "i-1", "5")
    assert (agent.active, agent.deactivated, agent.drain_state, agent.tasks) == (
        False,
        True,
        "DRAINING",
        1,
    )
    assert agent.apps == {"/web/api": 1}
    assert agent.free == make(3.9, 4096, 0, 0, 1001)
    assert (framework.name, framework.minimal, framework.suppressed) == (
        "ba/tch",
        make(2, 512),
        True,
    )
    assert (framework.sent, framework.declined, framework.accepted, framework.asked) == (7, 6, 1, 2)


QUEUE = {
    "queue": [
        {
            "app": {
                "id": "/web",
                "cpus": 0.5,
                "mem": 128,
                "portDefinitions": [{"port": 0}, {"port": 1}],
                "constraints": [["hostname", "UNIQUE"]],
                "role": "ads",
            },
            "count": 3,
            "since": "2026-11-21T05:50:00.000Z",
            "delay": {"timeLeftSeconds": 0, "overdue": True},
            "processedOffersSummary": {
                "rejectSummaryLastOffers": [
                    {"reason": "InsufficientCpus", "declined": 2, "processed": 2},
                    {"reason": "InsufficientMemory", "declined": 0, "processed": 0},
                ]
            },
        },
        {"pod": {"id": "/pod"}, "count": 1, "delay": {"overdue": False}},
    ]
}


def test_the_services_queue_becomes_entries():
    web, pod = mesos_parsers.queue_entries(QUEUE)
    assert (web.app, web.shape, web.count, web.overdue) == (
        "/web",
        make(0.5, 128, 0, 0, 2),
        3,
        True,
    )
    assert web.constraints == (Constraint("hostname", "UNIQUE"),)
    assert (web.role, web.rejections) == ("ads", {"InsufficientCpus": 2})
    assert web.since == 1795240200.0
    assert pod.overdue is False


def test_only_what_waited_before_and_after_counts_as_waiting():
    before = mesos_parsers.queue_entries(QUEUE)
    fewer = mesos_parsers.queue_entries({"queue": [{**QUEUE["queue"][0], "count": 1}]})
    assert [(entry.app, entry.count) for entry in mesos_parsers.both_times(before, fewer)] == [
        ("/web", 1)
    ]
    assert [(entry.app, entry.count) for entry in mesos_parsers.both_times(fewer, before)] == [
        ("/web", 1)
    ]


def test_what_runs_is_known_task_by_task_where_it_may_be_moved():
    task = {
        "task_id": {"value": "web_api.instance-1f._app.1"},
        "framework_id": {"value": "F-1"},
        "agent_id": {"value": "S-1"},
        "state": "TASK_RUNNING",
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}],
        "labels": {
            "labels": [
                {"key": "mesaform/protect", "value": "true"},
                {"key": "mesaform/runs-for-s", "value": "60"},
            ]
        },
        "statuses": [{"timestamp": 110.0}, {"timestamp": 100.0}],
    }
    agents = {"agents": [{"agent_info": {"id": {"value": "S-1"}}}]}
    frameworks = {"frameworks": [{"framework_info": {"id": {"value": "F-1"}, "name": "marathon"}}]}
    brief = mesos_parsers.cluster_view(
        mesos_parsers.MasterAnswers(
            agents_from_json(agents), from_json({"tasks": [task]}).running, frameworks, {}
        )
    )
    assert brief.agents[0].work == ()
    (work,) = (
        mesos_parsers.cluster_view(
            mesos_parsers.MasterAnswers(
                agents_from_json(agents), from_json({"tasks": [task]}).running, frameworks, {}
            ),
            ["F-1"],
            detailed=True,
        )
        .agents[0]
        .work
    )
    assert (work.name, work.framework, work.shape[0]) == ("/web/api", "marathon", 1000)
    assert (work.since, work.ends_at, work.protected) == (100.0, 160.0, True)
