"""Agents: registration, return, loss; a new leader learns from them."""

from __future__ import annotations

import pytest

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.master.render import agent_json
from mesaform.engine.registry import Admit, Registry, SetDeactivated, StartDrain
from mesaform.mesos.messages import AgentInfo, FrameworkInfo, ident, to_wire
from tests.unit.engine_master.world import SIZE, START, FrameworkIdentity, World, known

REPORTED = FrameworkIdentity(FrameworkInfo(user="root", name="f", failover_timeout=1e6), "f-1")


@pytest.fixture
def world() -> World:
    return World()


def registry_with(agent_id: str, host: str, *changes) -> Registry:
    return Registry().apply(
        Admit(
            agent_id, AgentInfo(hostname=host, resources=to_wire(SIZE), id=ident(agent_id)), START
        ),
        *changes,
    )


def test_an_agent_is_announced_after_the_registry_has_stored_it(world):
    framework = world.framework()
    world.hold_stores = True
    agent = world.agent()
    assert agent.inbox == []
    assert framework.offers == []
    world.store()
    agent.id = agent.got(link.Registered)[0].agent_id
    assert world.state.record(agent.id).state == "admitted"
    assert len(framework.offers) == 1


def test_a_broken_link_rescinds_offers_and_keeps_tasks(world):
    agent = world.agent()
    framework = world.framework()
    framework.run("t")
    world.tick()
    agent.disconnect()
    assert framework.offers == []
    assert len(framework.events("RESCIND")) == 1
    assert "t" in framework.record.tasks
    world.tick()
    assert framework.offers == []


def test_an_agent_that_reconnects_is_offered_again(world):
    agent = world.agent()
    framework = world.framework()
    framework.run("t")
    agent.disconnect()
    agent.connect([known(framework, "t", agent.id)])
    assert framework.offers
    assert framework.statuses == []


def test_the_end_of_an_old_link_does_not_disconnect_the_new_one(world):
    agent = world.agent()
    old = agent.link_id
    agent.connect()
    assert old in world.cut
    agent.link_id, new = old, agent.link_id
    agent.disconnect()
    assert world.state.agents[agent.id].link_id == new


@pytest.mark.parametrize(("aware", "state"), [(True, "TASK_DROPPED"), (False, "TASK_LOST")])
def test_a_lost_launch_is_reported_when_the_agent_reconnects(world, aware, state):
    agent = world.agent()
    framework = world.framework(aware=aware)
    framework.run("t")
    agent.disconnect()
    agent.connect([])
    assert [status["state"] for status in framework.statuses] == [state]
    assert framework.record.tasks == {}


def test_an_agent_that_forgot_an_acknowledged_task_ends_its_record_quietly(world):
    agent = world.agent()
    framework = world.framework()
    framework.run("t")
    agent.update(framework, "t", "TASK_FINISHED")
    agent.disconnect()
    agent.connect([])
    assert len(framework.statuses) == 1
    assert "t" in framework.record.completed


def test_an_agent_that_grew_is_offered_whole(world):
    agent = world.agent()
    framework = world.framework()
    framework.run("t")
    agent.disconnect()
    agent.size = SIZE + Resources.of(cpus=4)
    agent.connect([known(framework, "t", agent.id)])
    assert framework.offers[0].resources.cpus == pytest.approx(7.9)


@pytest.mark.parametrize(("aware", "state"), [(True, "TASK_UNREACHABLE"), (False, "TASK_LOST")])
def test_five_missed_pings_make_an_agent_unreachable(world, aware, state):
    agent = world.agent()
    framework = world.framework(aware=aware)
    framework.run("t")
    for _ in range(74):
        world.tick()
    assert agent.id in world.state.agents
    assert len(agent.got(link.Ping)) == 4
    world.tick()
    assert agent.id not in world.state.agents
    status = framework.statuses[-1]
    assert status["state"] == state
    assert "unreachable_time" in status
    assert framework.events("FAILURE") == [{"agent_id": {"value": agent.id}}]
    assert world.state.is_unreachable(agent.id)
    assert world.published[-1] == {
        "type": "AGENT_REMOVED",
        "agent_removed": {"agent_id": {"value": agent.id}},
    }


def test_a_pong_keeps_an_agent(world):
    agent = world.agent()
    for _ in range(300):
        world.tick()
        agent.pong()
    assert agent.id in world.state.agents


def test_an_unreachable_agent_that_returns_brings_its_tasks_back(world):
    agent = world.agent()
    framework = world.framework()
    framework.run("t")
    world.tick(75)
    assert "t" in framework.record.unreachable
    agent.connect([known(framework, "t", agent.id)])
    assert agent.id in world.state.agents
    assert framework.record.tasks["t"].state == "TASK_RUNNING"
    assert framework.record.unreachable == {}
    assert framework.statuses[-1]["reason"] == "REASON_SLAVE_REREGISTERED"


def test_an_agent_that_lost_its_id_replaces_its_predecessor_at_the_address(world):
    old = world.agent(host="h1")
    framework = world.framework()
    framework.run("t")
    new = world.agent(host="h1")
    assert new.id != old.id
    assert framework.statuses[-1]["state"] == "TASK_GONE"
    assert list(world.state.agents) == [new.id]
    assert world.state.record(old.id) is None


def test_a_new_leader_rebuilds_frameworks_and_tasks_from_its_agents():
    before = World()
    framework = before.framework(failover_s=600.0)
    agent = before.agent()
    framework.run("t")
    world = World(before.state.registry)
    assert world.state.recovered == {agent.id}
    world.agent(agent_id=agent.id, host=agent.host, tasks=[known(framework, "t", agent.id)])
    assert world.state.recovered == set()
    record = world.state.frameworks[framework.id]
    assert (record.is_recovered, record.is_connected, record.is_active) == (True, False, False)
    assert record.tasks["t"].state == "TASK_RUNNING"
    again = world.framework(id_=framework.id, failover_s=600.0)
    assert not again.record.is_recovered
    assert again.reconcile()[0]["state"] == "TASK_RUNNING"
    assert again.offers[0].resources.cpus == pytest.approx(3.9)


def test_a_framework_back_before_its_agents_gets_its_tasks_later():
    before = World()
    framework = before.framework(failover_s=600.0)
    agent = before.agent()
    framework.run("t")
    world = World(before.state.registry)
    again = world.framework(id_=framework.id, failover_s=600.0)
    assert again.id == framework.id
    assert again.reconcile(("t", None)) == []
    world.agent(agent_id=agent.id, host=agent.host, tasks=[known(framework, "t", agent.id)])
    assert again.reconcile(("t", None))[0]["state"] == "TASK_RUNNING"


def test_a_recovered_framework_that_does_not_subscribe_is_removed():
    world = World(registry_with("m-S0", "h"))
    framework = World().framework(failover_s=0.0)
    agent = world.agent(agent_id="m-S0", host="h", tasks=[known(framework, "t", "m-S0")])
    for _ in range(599):
        world.tick()
        agent.pong()
    assert framework.id in world.state.frameworks
    world.tick()
    assert framework.id not in world.state.frameworks
    assert agent.got(link.ShutdownFramework)


def test_a_recovered_agent_that_does_not_register_becomes_unreachable():
    world = World(registry_with("m-S0", "h"))
    world.tick(599)
    assert world.state.recovered == {"m-S0"}
    world.tick(1)
    assert world.state.recovered == set()
    assert world.state.is_unreachable("m-S0")


def test_deactivation_and_drain_survive_a_new_leader():
    drained = registry_with("m-S0", "h", StartDrain("m-S0", START, 3.0))
    world = World(drained)
    framework = world.framework()
    agent = world.agent(agent_id="m-S0", host="h", tasks=[known(framework, "t", "m-S0")])
    assert agent.got(link.Drain) == [link.Drain(3.0)]
    assert framework.offers == []
    assert world.state.drain_state("m-S0") == "DRAINING"
    world = World(registry_with("m-S0", "h", SetDeactivated("m-S0", deactivated=True)))
    framework = world.framework()
    agent = world.agent(agent_id="m-S0", host="h")
    assert framework.offers == []
    assert not agent.got(link.Drain)


def test_an_agent_no_registry_knows_is_admitted_with_the_id_it_has(world):
    agent = world.agent(agent_id="from-another-time-S7")
    assert agent.got(link.Registered)[0].agent_id == "from-another-time-S7"


@pytest.mark.parametrize(("aware", "state"), [(True, "TASK_GONE"), (False, "TASK_LOST")])
def test_tasks_of_an_agent_that_shuts_down_are_gone_once_the_registry_removed_it(
    world, aware, state
):
    agent = world.agent()
    framework = world.framework(aware=aware, failover_s=60)
    framework.run("t")
    world.hold_stores = True
    agent.leave()
    assert framework.statuses == []
    assert framework.offers == []
    world.hold_stores = False
    world.store()
    assert [(status["task_id"]["value"], status["state"]) for status in framework.statuses] == [
        ("t", state)
    ]
    assert agent.id not in world.state.agents
    assert world.state.record(agent.id) is None
    assert framework.events("FAILURE")


def test_an_agent_that_left_and_starts_again_is_admitted_anew(world):
    agent = world.agent()
    agent.leave()
    agent.connect()
    assert agent.got(link.Registered)
    assert agent.id in world.state.agents


def test_ports_that_two_tasks_report_are_counted_once_and_all_return(world):
    ports = Resources.of(cpus=0.1, ports=[(31000, 31009)])
    beyond = Resources.of(cpus=0.1, ports=[(40000, 40009)])
    tasks = [
        known(REPORTED, "one", "a", size=ports),
        known(REPORTED, "same", "a", size=ports),
        known(REPORTED, "beyond", "a", size=beyond),
    ]
    agent = world.agent(agent_id="a", tasks=tasks)
    assert world.state.agents[agent.id].used().ports == ((31000, 31009),)
    for name in ("same", "beyond", "one"):
        scheduler = world.framework(id_="f-1", failover_s=1e6)
        agent.update(scheduler, name, "TASK_FINISHED")
    assert world.state.allocator.free(agent.id) + world.state.agents[agent.id].offered() == SIZE


def test_an_agent_that_reports_more_than_it_has_is_not_offered_below_zero(world):
    large = known(REPORTED, "large", "a", size=Resources.of(cpus=100, mem_mib=16))
    agent = world.agent(agent_id="a", tasks=[large])
    scheduler = world.framework()
    for offer in scheduler.offers:
        assert min(offer.resources.milli.values()) > 0
        assert "cpus" not in offer.resources.milli
    agent.update(world.framework(id_="f-1", failover_s=1e6), "large", "TASK_FINISHED")
    scheduler.decline(*scheduler.offers, refuse_s=0.0)
    world.tick()


def test_a_task_that_runs_elsewhere_is_killed_at_the_agent_that_returns_with_it(world):
    first = world.agent(agent_id="a", tasks=[known(REPORTED, "t", "a")])
    second = world.agent(agent_id="b", tasks=[known(REPORTED, "t", "b", "TASK_FINISHED")])
    assert world.state.frameworks["f-1"].tasks["t"].agent_id == first.id
    assert not world.state.frameworks["f-1"].tasks["t"].is_terminal
    assert second.got(link.Kill) == [link.Kill("f-1", "t")]


def test_the_files_that_an_agent_set_aside_are_counted_where_agents_are_listed(world):
    agent = world.agent()
    assert "records_set_aside" not in agent_json(world.state, world.state.agents[agent.id])
    agent.disconnect()
    agent.connect(records_set_aside=2)
    assert agent_json(world.state, world.state.agents[agent.id])["records_set_aside"] == 2
