"""DEACTIVATE, REACTIVATE, DRAIN, MARK_AGENT_GONE, TEARDOWN: codes, order, and DRAINED."""

from __future__ import annotations

import pytest

from mesaform.engine import link
from tests.unit.engine_master.world import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def agent(world):
    return world.agent()


@pytest.fixture
def framework(world, agent):
    return world.framework(capabilities=("TASK_KILLING_STATE",))


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("DRAIN_AGENT", (400, "Unknown agent")),
        ("DEACTIVATE_AGENT", (400, "Unknown agent")),
        ("REACTIVATE_AGENT", (400, "Agent is not deactivated")),
        ("MARK_AGENT_GONE", (404, "Agent 'nope' not found")),
        ("TEARDOWN", (400, "No framework found with specified ID")),
    ],
)
def test_calls_for_unknown_agents_and_frameworks_are_refused(world, call, answer):
    assert world.operate(call, "nope") == answer


def test_a_deactivated_agent_is_not_offered_and_keeps_its_tasks(world, agent, framework):
    framework.run("t")
    world.tick()
    assert world.operate("DEACTIVATE_AGENT", agent.id) == (200, "")
    assert framework.offers == []
    assert len(framework.events("RESCIND")) == 1
    assert "t" in framework.record.tasks
    for _ in range(5):
        world.tick()
    assert framework.offers == []


def test_deactivating_twice_is_fine_and_reactivating_brings_offers_back(world, agent, framework):
    assert world.operate("REACTIVATE_AGENT", agent.id) == (400, "Agent is not deactivated")
    world.operate("DEACTIVATE_AGENT", agent.id)
    assert world.operate("DEACTIVATE_AGENT", agent.id) == (200, "")
    assert world.operate("REACTIVATE_AGENT", agent.id) == (200, "")
    assert len(framework.offers) == 1


def test_the_answer_waits_for_the_registry(world, agent, framework):
    world.hold_stores = True
    assert world.operate("DRAIN_AGENT", agent.id) is None
    assert not agent.got(link.Drain)
    world.hold_stores = False
    world.store()
    assert list(world.replies.values()) == [(200, "")]


def test_an_agent_is_drained_only_when_every_terminal_update_is_acknowledged(
    world, agent, framework
):
    framework.run("t")
    agent.update(framework, "t", "TASK_RUNNING")
    assert world.operate("DRAIN_AGENT", agent.id, max_grace_s=3.0) == (200, "")
    assert agent.got(link.Drain) == [link.Drain(3.0)]
    assert framework.offers == []
    assert world.operate("REACTIVATE_AGENT", agent.id) == (
        400,
        "Agent is still in the DRAINING state",
    )
    uuid = agent.update(framework, "t", "TASK_KILLED")
    world.tick()
    assert world.state.drain_state(agent.id) == "DRAINING"
    framework.acknowledge(agent, "t", uuid)
    assert world.state.drain_state(agent.id) == "DRAINED"
    world.tick(5)
    assert framework.offers == []


def test_an_empty_agent_is_drained_before_the_answer_and_can_be_drained_again_and_reactivated(
    world, agent, framework
):
    world.operate("DRAIN_AGENT", agent.id)
    assert world.state.drain_state(agent.id) == "DRAINED"
    assert world.operate("DRAIN_AGENT", agent.id) == (200, "")
    assert world.operate("REACTIVATE_AGENT", agent.id) == (200, "")
    assert world.state.drain_state(agent.id) is None
    assert agent.inbox[-1] == link.Undrain()
    assert len(framework.offers) == 1


def test_a_drain_that_marks_gone_ends_in_gone(world, agent, framework):
    framework.run("t")
    world.operate("DRAIN_AGENT", agent.id, mark_gone=True)
    assert agent.got(link.Drain) == [link.Drain(None, mark_gone=True)]
    framework.acknowledge(agent, "t", agent.update(framework, "t", "TASK_GONE_BY_OPERATOR"))
    assert world.state.is_gone(agent.id)
    assert agent.id not in world.state.agents
    assert agent.refused


def test_an_agent_that_dies_while_draining_is_not_drained_until_it_returns(world, agent, framework):
    framework.run("t")
    world.operate("DRAIN_AGENT", agent.id)
    world.tick(75)
    assert world.state.is_unreachable(agent.id)
    assert world.state.drain_state(agent.id) == "DRAINING"
    agent.connect([])
    assert world.state.drain_state(agent.id) == "DRAINED"


@pytest.mark.parametrize(
    ("aware", "state"), [(True, "TASK_GONE_BY_OPERATOR"), (False, "TASK_LOST")]
)
def test_an_agent_marked_gone_loses_its_tasks_and_is_refused_from_then_on(
    world, agent, aware, state
):
    framework = world.framework("g", aware=aware)
    framework.run("t")
    assert world.operate("MARK_AGENT_GONE", agent.id) == (200, "")
    assert framework.statuses[-1]["state"] == state
    assert framework.record.completed["t"].state == state
    assert framework.events("FAILURE")
    assert agent.refused
    assert world.operate("MARK_AGENT_GONE", agent.id) == (200, "")
    assert world.operate("DRAIN_AGENT", agent.id) == (400, "Unknown agent")
    agent.connect([])
    assert agent.refused
    assert agent.id not in world.state.agents


def test_while_an_agent_is_marked_gone_draining_conflicts_and_marking_again_must_wait(world, agent):
    world.hold_stores = True
    world.operate("MARK_AGENT_GONE", agent.id)
    assert world.operate("DRAIN_AGENT", agent.id)[0] == 409
    assert world.operate("MARK_AGENT_GONE", agent.id)[0] == 503
    world.hold_stores = False
    world.store()
    assert world.state.is_gone(agent.id)


def test_a_drained_agent_that_is_unreachable_cannot_be_reactivated(world, agent):
    world.operate("DEACTIVATE_AGENT", agent.id)
    world.tick(75)
    assert world.operate("REACTIVATE_AGENT", agent.id) == (409, "Agent is not registered")


def test_an_operator_can_tear_down_a_framework(world, agent, framework):
    assert world.operate("TEARDOWN", framework.id) == (200, "")
    assert framework.id not in world.state.frameworks


def test_teardown_of_the_last_framework_lets_a_drain_finish(world, agent, framework):
    framework.run("t")
    world.operate("DRAIN_AGENT", agent.id)
    framework.call("TEARDOWN")
    assert world.state.drain_state(agent.id) == "DRAINED"
