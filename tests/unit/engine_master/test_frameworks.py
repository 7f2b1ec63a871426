"""Frameworks: subscription, failover, disconnection, teardown."""

from __future__ import annotations

import dataclasses

import pytest

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.master import events as ev
from mesaform.engine.master.parse import parse
from mesaform.engine.master.state import min_allocatable_of
from mesaform.mesos import messages
from mesaform.mesos.messages import FrameworkInfo, OfferFilters
from mesaform.mesos.scheduler_api import ConstraintGroup, OfferConstraints, RoleConstraints
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


def test_user_and_checkpoint_of_the_first_subscription_stay(world):
    framework = world.framework(failover_s=60.0, checkpoint=True)
    again = world.framework(id_=framework.id, user="other", failover_s=60.0)
    assert again.events()[0]["type"] == "SUBSCRIBED"
    assert (again.record.info.user, again.record.info.checkpoint) == ("root", True)


BAD_FRAMEWORKS = {
    "white space in a role": ({"roles": ["a b"]}, "backspace or whitespace"),
    "two slashes in a role": ({"roles": ["a//b"]}, "two adjacent slashes"),
    "star in a role": ({"roles": ["a/*"]}, "cannot include '*' as a component"),
    "a dash before a role": ({"roles": ["-a"]}, "starts with a dash"),
    "a role twice": ({"roles": ["a", "a"]}, "duplicate items: { a }"),
    "roles without the capability": (
        {"capabilities": []},
        "'FrameworkInfo.roles' must not be set",
    ),
    "role and roles": ({"role": "a"}, "'FrameworkInfo.role' must not be set"),
    "slash in the id": ({"id": {"value": "a/b"}}, "'a/b' contains invalid characters"),
    "an absolute path as id": ({"id": {"value": "/etc"}}, "contains invalid characters"),
    "parent folder as id": ({"id": {"value": ".."}}, "'..' is disallowed"),
    "a long id": ({"id": {"value": "x" * 300}}, "must not be greater than 255 characters"),
    "a control character in the id": ({"id": {"value": "a\nb"}}, "invalid characters"),
    "no duration": ({"failover_timeout": 1e300}, "failover_timeout (1e+300) is invalid"),
    "infinite filters": (
        {
            "offer_filters": {
                "*": {
                    "min_allocatable_resources": {
                        "quantities": [{"quantities": {"cpus": {"value": "Infinity"}}}]
                    }
                }
            }
        },
        "Infinite values not supported",
    ),
    "too large for the agents": (
        {"labels": {"labels": [{"key": "k" * 200_000}]}},
        "is larger than 131072 bytes",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_FRAMEWORKS.values(), ids=BAD_FRAMEWORKS)
def test_a_framework_with_a_bad_info_gets_an_error_that_says_why(world, change, message):
    wanted = {
        "user": "root",
        "name": "f",
        "roles": ["*"],
        "capabilities": [{"type": "MULTI_ROLE"}],
    }
    info = parse(wanted | change, FrameworkInfo)
    world.feed(ev.Subscribe("bad", info, info.id.value if info.id else None))
    (event,) = world.streams["bad"]
    assert event["type"] == "ERROR"
    assert message in event["error"]["message"]
    assert not world.state.frameworks


def test_offer_constraints_and_unknown_suppressed_roles_are_refused(world):
    info = FrameworkInfo(user="root", name="f")
    groups = RoleConstraints(groups=[ConstraintGroup()])
    constraints = OfferConstraints(role_constraints={"*": groups})
    world.feed(ev.Subscribe("a", info, None, ("b",)))
    world.feed(ev.Subscribe("b", info, None, (), constraints))
    first, second = (world.streams[name][-1]["error"]["message"] for name in "ab")
    assert first == "Suppressed roles { b } are not contained in the set of roles"
    assert "does not support offer constraints" in second


def test_another_principal_does_not_get_the_framework(world):
    framework = world.framework(failover_s=60.0, principal="owner")
    again = world.framework(id_=framework.id, failover_s=60.0, principal="thief")
    assert again.events("ERROR") == [{"message": "Changing framework's principal is not allowed."}]
    assert framework.record.is_connected


def test_roles_suppressed_at_subscription_get_no_offers(world):
    world.agent()
    assert world.framework(suppressed=("*",)).offers == []


def test_a_framework_without_roles_is_in_the_default_role(world):
    world.agent()
    framework = world.framework(roles=())
    assert framework.offers == []  # a multi-role framework with no role asks for nothing
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


def offer_filters(**roles: list[dict[str, float]]) -> dict[str, OfferFilters]:
    return {role: messages.offer_filters(vectors) for role, vectors in roles.items()}


def framework_info(filters: dict[str, OfferFilters]) -> FrameworkInfo:
    return FrameworkInfo(user="root", name="f", offer_filters=filters)


def test_the_minimal_offers_of_a_framework_are_its_declared_quantities_by_role():
    info = framework_info(offer_filters(batch=[{"cpus": 2, "mem": 512}, {"gpus": 1}], web=[{}]))
    assert min_allocatable_of(info) == {
        "batch": (Resources.of(cpus=2, mem_mib=512), Resources.of(gpus=1)),
        "web": (Resources(),),
    }


def test_roles_without_minimal_offers_are_left_out():
    info = framework_info({**offer_filters(empty=[]), "none": OfferFilters()})
    assert min_allocatable_of(info) == {}


def test_offers_below_the_declared_minimum_are_not_made():
    world = World()
    filters = offer_filters(batch=[{"cpus": 64}, {"cpus": 8}])
    framework = world.framework(roles=("batch",), offer_filters=filters)
    world.agent()
    assert framework.offers == []
    world.agent(size=SIZE + SIZE)
    assert len(framework.offers) == 1


def test_a_full_master_registers_no_further_framework_and_knows_those_that_return(world):
    world.state.config = dataclasses.replace(world.state.config, max_frameworks=2)
    first = world.framework(failover_s=600.0)
    world.framework(failover_s=600.0)
    refused = world.framework(failover_s=600.0)
    [error] = refused.events()
    assert error["type"] == "ERROR"
    assert "registers no more" in error["error"]["message"]
    again = world.framework(id_=first.id, failover_s=600.0)
    assert again.events()[0]["type"] == "SUBSCRIBED"
    again.call("TEARDOWN")
    assert world.framework().events()[0]["type"] == "SUBSCRIBED"
