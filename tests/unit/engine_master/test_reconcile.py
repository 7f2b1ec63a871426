"""Each case of reconciliation, for partition-aware frameworks and others."""

from __future__ import annotations

import pytest

from tests.unit.engine_master.test_agents import registry_with
from tests.unit.engine_master.world import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def agent(world):
    return world.agent()


CASES = [
    ("gone", None, "TASK_UNKNOWN", "Reconciliation: Task is unknown"),
    ("gone", "known", "TASK_GONE", "Reconciliation: Task is unknown to the agent"),
    ("gone", "nowhere", "TASK_UNKNOWN", "Reconciliation: Task is unknown"),
]


@pytest.mark.parametrize(("task", "where", "state", "message"), CASES)
def test_an_unknown_task(world, agent, task, where, state, message):
    agent_id = agent.id if where == "known" else where
    [status] = world.framework(aware=True).reconcile((task, agent_id))
    assert (status["state"], status["message"]) == (state, message)
    assert (status["source"], status["reason"]) == ("SOURCE_MASTER", "REASON_RECONCILIATION")
    assert status.get("agent_id", {}).get("value") == agent_id
    assert "uuid" not in status
    [status] = world.framework("classic", aware=False).reconcile((task, agent_id))
    assert (status["state"], status["message"]) == ("TASK_LOST", message)


def test_a_known_task_has_its_latest_update_state(world, agent):
    framework = world.framework()
    framework.run("t")
    assert framework.reconcile(("t", None))[0]["state"] == "TASK_STAGING"
    agent.update(framework, "t", "TASK_RUNNING", latest="TASK_FINISHED")
    [status] = framework.reconcile(("t", "wherever"))
    assert (status["state"], status["message"]) == (
        "TASK_RUNNING",
        "Reconciliation: Latest task state",
    )
    assert status["agent_id"] == {"value": agent.id}


def test_implicit_reconciliation_reports_every_live_task(world, agent):
    framework = world.framework()
    offer = framework.offers[0]
    framework.launch(
        offer, framework.task(offer, "a"), framework.task(offer, "b"), framework.task(offer, "c")
    )
    framework.acknowledge(agent, "a", agent.update(framework, "a", "TASK_FINISHED"))
    agent.update(framework, "b", "TASK_FAILED")
    assert {status["task_id"]["value"]: status["state"] for status in framework.reconcile()} == {
        "b": "TASK_FAILED",
        "c": "TASK_STAGING",
    }


def test_silence_about_a_task_whose_agent_may_still_come_back():
    world = World(registry_with("m-S0", "h"))
    framework = world.framework()
    assert framework.reconcile(("t", "m-S0")) == []
    assert framework.reconcile(("t", None)) == []
    assert framework.reconcile(("t", "nowhere"))[0]["state"] == "TASK_UNKNOWN"
    world.agent(agent_id="m-S0", host="h")
    assert framework.reconcile(("t", "m-S0"))[0]["state"] == "TASK_GONE"
    assert framework.reconcile(("t", None))[0]["state"] == "TASK_UNKNOWN"


def test_tasks_of_an_unreachable_agent_are_unreachable_known_or_not(world, agent):
    framework = world.framework()
    classic = world.framework("classic", aware=False)
    framework.run("t")
    world.tick(75)
    for task, agent_id in (("t", None), ("t", agent.id), ("other", agent.id)):
        [status] = framework.reconcile((task, agent_id))
        assert status["state"] == "TASK_UNREACHABLE"
        assert status["unreachable_time"] == {"nanoseconds": int(world.now * 1e9)}
    assert classic.reconcile(("other", agent.id))[0]["state"] == "TASK_LOST"


def test_tasks_of_a_gone_agent_are_gone_by_operator(world, agent):
    framework = world.framework()
    world.operate("MARK_AGENT_GONE", agent.id)
    [status] = framework.reconcile(("t", agent.id))
    assert (status["state"], status["message"]) == (
        "TASK_GONE_BY_OPERATOR",
        "Reconciliation: Task is gone",
    )


def test_silence_while_the_registry_is_being_written_about_the_agent(world, agent):
    framework = world.framework()
    world.hold_stores = True
    world.operate("MARK_AGENT_GONE", agent.id)
    assert framework.reconcile(("t", agent.id)) == []


def test_every_operation_is_unknown_because_there_are_none(world):
    agent, framework = world.agent(), world.framework()
    queries = [{"agent_id": {"value": agent.id}}, {"agent_id": {"value": "elsewhere"}}, {}]
    operations = [{"operation_id": {"value": "o"}, **query} for query in queries]
    framework.call("RECONCILE_OPERATIONS", reconcile_operations={"operations": operations})
    statuses = [event["status"] for event in framework.events("UPDATE_OPERATION_STATUS")]
    assert {status["state"] for status in statuses} == {"OPERATION_UNKNOWN"}
    assert [status["message"].removeprefix("Reconciliation: ") for status in statuses] == [
        "Operation is unknown",
        "Both operation and agent are unknown",
        "Operation is unknown and no 'agent_id' was provided",
    ]
