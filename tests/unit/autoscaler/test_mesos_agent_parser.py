"""Repeated reads of GET_AGENTS give the values of a first read, whatever changed in between."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.mesos_agent_parser import AgentReader, Agents, from_json


def scalar(name: str, value: float) -> dict[str, Any]:
    return {
        "name": name,
        "type": "SCALAR",
        "scalar": {"value": value},
        "allocation_info": {"role": "ads"},
    }


def an_agent(number: int = 1, cpus: float = 1.0, **fields: Any) -> dict[str, Any]:
    info = {
        "id": {"value": f"S-{number}"},
        "hostname": f"10.0.0.{number}",
        "attributes": [
            {"name": "instance_id", "type": "TEXT", "text": {"value": f"i-{number}"}},
            {"name": "gen", "type": "SCALAR", "scalar": {"value": 5}},
        ],
        "resources": [scalar("cpus", 4.0)],
    }
    return {
        "agent_info": info,
        "active": True,
        "allocated_resources": [scalar("cpus", cpus)],
        **fields,
    }


def body(*agents: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode({"type": "GET_AGENTS", "get_agents": {"agents": agents, **more}})


def test_an_agent_is_what_the_master_says():
    drain = {"state": "DRAINING", "config": {"mark_gone": False}}
    (agent,) = from_json(
        {
            "agents": [
                an_agent(
                    drain_info=drain,
                    registered_time={"nanoseconds": 5_000_000_000},
                    deactivated=True,
                )
            ]
        }
    ).agents
    assert (agent.agent_id, agent.hostname, agent.attributes) == (
        "S-1",
        "10.0.0.1",
        {"instance_id": "i-1", "gen": "5"},
    )
    assert (agent.total, agent.allocated) == (make(4), make(1))
    assert (agent.active, agent.deactivated, agent.drain_state, agent.registered_at) == (
        True,
        True,
        "DRAINING",
        5.0,
    )
    assert (agent.tasks, agent.work) == (0, ())


def test_total_resources_count_before_those_it_registered_with():
    (agent,) = from_json({"agents": [an_agent(total_resources=[scalar("cpus", 3.0)])]}).agents
    assert agent.total == make(3)


def test_an_agent_of_which_little_is_said_has_defaults():
    (agent,) = from_json({"agents": [{}]}).agents
    assert (agent.agent_id, agent.total, agent.active, agent.attributes) == ("", make(), False, {})


def test_what_changed_since_the_last_pass_is_seen():
    reader = AgentReader()
    before = reader.read(body(an_agent(1), an_agent(2)))
    again = reader.read(body(an_agent(1, cpus=2.0), an_agent(2)))
    assert [agent.allocated for agent in again.agents] == [make(2), make(1)]
    assert again.agents[1] == before.agents[1]
    assert again.agents[1].attributes is before.agents[1].attributes


def test_only_what_the_last_pass_used_is_remembered():
    reader = AgentReader()
    for number in range(50):
        reader.read(body(an_agent(number, cpus=number / 10)))
    assert len(reader._vectors) <= 2
    assert len(reader._attributes) == 1


def test_agents_expected_back_are_counted_and_what_is_allocated_is_at_hand_with_its_roles():
    result = from_json({"agents": [an_agent()], "recovered_agents": [{}, {}]})
    assert result.recovered == 2
    (held,) = result.resources()
    assert held["allocated_resources"][0]["allocation_info"] == {"role": "ads"}


@pytest.mark.parametrize("text", [b"", b"no leader", body(an_agent())[:-9]])
def test_what_is_no_answer_is_an_error_and_not_an_empty_cluster(text):
    with pytest.raises(msgspec.DecodeError):
        AgentReader().read(text)


def test_a_cluster_without_agents_has_none():
    assert from_json({}) == Agents()
