"""Frameworks: subscription, failover, disconnection, teardown."""

from __future__ import annotations

import pytest

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.master import events as ev
from mesaform.engine.master.state import min_allocatable_of
from mesaform.mesos.messages import FrameworkInfo
from tests.unit.engine_master.world import SIZE, World


@pytest.fixture
def world() -> World:
    return World()


def test_a_subscriber_gets_subscribed_heartbeat_then_offers(world):
    world.agent()
    framework = world.framework()
    assert [event["type"] for event in framework.events()] == ["SUBSCRIBED", "HEARTBEAT", "OFFERS"]
    assert framework.events("SUBSCRIBED")[0]["heartbeat_interval_seconds"] == 15.0


def test_an_agent_that_registers_is_offered_at_once(world):
    framework = world.framework()
    agent = world.agent()
    assert [offer.agent_id for offer in framework.offers] == [agent.id]
    wire = framework.events("OFFERS")[0]["offers"][0]
    assert wire["url"] == {
        "scheme": "http",
        "address": {"hostname": agent.host, "ip": agent.host, "port": 5051},
        "path": "/slave(1)",
    }
    assert {resource["name"] for resource in wire["resources"]} == {"cpus", "mem", "disk", "ports"}
    assert all(
        resource["role"] == "*" and resource["allocation_info"] == {"role": "*"}
        for resource in wire["resources"]
    )


def test_heartbeats_come_every_15_s(world):
    framework = world.framework()
    for _ in range(31):
        world.tick()
    assert len(framework.events("HEARTBEAT")) == 3


def test_the_second_subscriber_with_an_id_fails_the_first_over(world):
    world.agent()
    first = world.framework(failover_s=600.0)
    second = world.framework(id_=first.id, failover_s=600.0)
    assert first.events()[-1] == {"type": "ERROR", "error": {"message": "Framework failed over"}}
    assert first.stream_id in world.closed
    assert second.id == first.id
    assert [event["type"] for event in second.events()] == ["SUBSCRIBED", "HEARTBEAT", "OFFERS"]
    assert not second.events("RESCIND")


def test_the_end_of_a_stream_that_failed_over_does_not_disconnect_its_successor(world):
    first = world.framework(failover_s=600.0)
    second = world.framework(id_=first.id, failover_s=600.0)
    first.drop()
    assert second.record.is_connected


def test_a_framework_without_failover_timeout_is_removed_when_its_stream_breaks(world):
    agent = world.agent()
    framework = world.framework()
    framework.run("t")
    framework.drop()
    assert framework.id not in world.state.frameworks
    assert agent.got(link.ShutdownFramework) == [link.ShutdownFramework(framework.id)]
    assert world.state.completed_frameworks[framework.id].completed["t"].state == "TASK_KILLED"
    assert world.state.allocator.free(agent.id) == SIZE


def test_a_disconnected_framework_keeps_its_tasks_until_its_failover_timeout(world):
    world.agent()
    framework = world.framework(failover_s=10.0)
    framework.run("t")
    framework.drop()
    world.tick(9.9)
    assert framework.record.tasks["t"].state == "TASK_STAGING"
    assert not framework.offers
    world.tick(0.1)
    assert framework.id not in world.state.frameworks


def test_a_framework_that_is_back_in_time_keeps_everything(world):
    world.agent()
    framework = world.framework(failover_s=10.0)
    framework.run("t")
    framework.drop()
    world.tick(9.0)
    again = world.framework(id_=framework.id, failover_s=10.0)
    world.tick(60.0)
    assert "t" in again.record.tasks


def test_a_removed_framework_cannot_come_back(world):
    framework = world.framework()
    framework.call("TEARDOWN")
    again = world.framework(id_=framework.id)
    assert again.events() == [{"type": "ERROR", "error": {"message": "Framework has been removed"}}]
    assert again.stream_id in world.closed


def test_teardown_kills_tasks_ends_the_stream_and_frees_the_agent_for_others(world):
    agent = world.agent()
    framework = world.framework()
    framework.run("t", SIZE)
    other = world.framework("other")
    framework.call("TEARDOWN")
    assert framework.stream_id in world.closed
    assert agent.got(link.ShutdownFramework)
    assert [offer.resources for offer in other.offers] == [SIZE]
    assert [event["type"] for event in world.published][-1] == "FRAMEWORK_REMOVED"


def test_user_cannot_change(world):
    framework = world.framework(failover_s=60.0)
    again = world.framework(id_=framework.id, user="other", failover_s=60.0)
    assert "attempted to update from 'root' to 'other'" in again.events("ERROR")[0]["message"]
    assert framework.record.is_connected


def test_a_role_with_white_space_is_refused(world):
    assert world.framework(roles=("a b",)).events()[0]["type"] == "ERROR"


def test_roles_suppressed_at_subscription_get_no_offers(world):
    world.agent()
    assert world.framework(suppressed=("*",)).offers == []


def test_a_framework_without_roles_is_in_the_default_role(world):
    world.agent()
    framework = world.framework(roles=())
    assert framework.offers == []  # a multi-role framework with no role asks for nothing
    from mesaform.mesos.messages import FrameworkInfo

    world.feed(ev.Subscribe("plain", FrameworkInfo(user="u", name="plain")))
    assert world.streams["plain"][-1]["type"] == "OFFERS"


def test_leaving_a_role_rescinds_its_offers(world):
    world.agent()
    framework = world.framework(roles=("x",))
    info = {"user": "root", "name": "f", "id": {"value": framework.id}, "roles": ["y"]}
    framework.call("UPDATE_FRAMEWORK", update_framework={"framework_info": info})
    assert len(framework.events("RESCIND")) == 1
    assert [offer.role for offer in framework.offers] == ["y"]


def test_suppress_then_revive(world):
    world.agent()
    framework = world.framework()
    framework.call("SUPPRESS")
    framework.decline(*framework.offers, refuse_s=0)
    world.tick(10)
    assert framework.offers == []
    framework.call("REVIVE")
    assert len(framework.offers) == 1


def test_only_fifty_completed_frameworks_are_remembered(world):
    for _ in range(60):
        world.framework().call("TEARDOWN")
    assert len(world.state.completed_frameworks) == 50


def offer_filters(**roles: list[dict[str, float]]) -> dict[str, object]:
    return {
        role: {
            "min_allocatable_resources": {
                "quantities": [
                    {"quantities": {name: {"value": value} for name, value in scalars.items()}}
                    for scalars in vectors
                ]
            }
        }
        for role, vectors in roles.items()
    }


def framework_info(filters: dict[str, object]) -> FrameworkInfo:
    return FrameworkInfo(user="root", name="f", offer_filters=filters)


def test_the_minimal_offers_of_a_framework_are_its_declared_quantities_by_role():
    info = framework_info(offer_filters(batch=[{"cpus": 2, "mem": 512}, {"gpus": 1}], web=[{}]))
    assert min_allocatable_of(info) == {
        "batch": (Resources.of(cpus=2, mem_mib=512), Resources.of(gpus=1)),
        "web": (Resources(),),
    }


def test_roles_without_minimal_offers_are_left_out():
    info = framework_info({**offer_filters(empty=[]), "none": {}, "batch": None})
    assert min_allocatable_of(info) == {}


def test_offer_filters_of_another_shape_are_ignored():
    quantities = [{"quantities": {"cpus": {"value": "many"}, "mem": 5}}]
    filters = {"a": 7, "b": {"min_allocatable_resources": {"quantities": quantities}}}
    assert min_allocatable_of(framework_info(filters)) == {"b": (Resources(),)}


def test_offers_below_the_declared_minimum_are_not_made():
    world = World()
    filters = offer_filters(batch=[{"cpus": 64}, {"cpus": 8}])
    framework = world.framework(roles=("batch",), offer_filters=filters)
    world.agent()
    assert framework.offers == []
    world.agent(size=SIZE + SIZE)
    assert len(framework.offers) == 1
