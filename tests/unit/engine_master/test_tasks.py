"""Tasks: launch, validation, updates, acknowledgements, kills."""

from __future__ import annotations

import pytest

from mesaform.common.resources import Resources
from mesaform.engine import link
from tests.unit.engine_master.world import SIZE, SMALL, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def agent(world):
    return world.agent()


@pytest.fixture
def framework(world, agent):
    return world.framework()


def test_a_launched_task_is_sent_to_its_agent_and_the_rest_is_offered_again(
    world, agent, framework
):
    framework.run("t")
    sent = agent.got(link.Launch)
    assert [message.task.task_id.value for message in sent] == ["t"]
    assert sent[0].framework.id.value == framework.id
    assert all(resource.allocation_info.role == "*" for resource in sent[0].task.resources)
    world.tick()
    assert framework.offers[0].resources == SIZE - SMALL


def test_the_rest_is_filtered_for_as_long_as_the_accept_says(world, agent, framework):
    offer = framework.offers[0]
    framework.launch(offer, framework.task(offer, "t"), refuse_s=30.0)
    world.tick(29.0)
    assert framework.offers == []
    world.tick(1.0)
    assert len(framework.offers) == 1


def test_several_tasks_fit_one_offer_until_it_is_used_up(world, agent, framework):
    offer = framework.offers[0]
    half = Resources.of(cpus=2)
    framework.launch(offer, *(framework.task(offer, name, half) for name in ("a", "b", "c")))
    assert [message.task.task_id.value for message in agent.got(link.Launch)] == ["a", "b"]
    assert [
        (status["task_id"]["value"], status["state"], status["reason"])
        for status in framework.statuses
    ] == [("c", "TASK_ERROR", "REASON_TASK_INVALID")]


def test_two_offers_of_one_agent_can_be_used_together(world, agent, framework):
    framework.run("a", Resources.of(cpus=2))
    world.tick()
    framework.acknowledge(agent, "a", agent.update(framework, "a", "TASK_FINISHED"))
    world.tick()
    assert [offer.resources.cpus for offer in framework.offers] == [2.0, 2.0]
    first, second = framework.offers
    framework.launch(
        first, framework.task(first, "b", Resources.of(cpus=4)), offer_ids=[first.id, second.id]
    )
    assert framework.statuses[-1]["state"] == "TASK_FINISHED"
    assert agent.got(link.Launch)[-1].task.task_id.value == "b"


def test_offers_of_two_agents_cannot_be_used_together(world, agent, framework):
    world.agent()
    first, second = framework.offers
    framework.launch(first, framework.task(first, "t"), offer_ids=[first.id, second.id])
    assert "must belong to one single agent" in framework.statuses[0]["message"]


def scalar(name, value, **more):
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


def ports(*ranges, name="ports"):
    parts = [{"begin": begin, "end": end} for begin, end in ranges]
    return {"name": name, "type": "RANGES", "ranges": {"range": parts}}


def variables(*entries):
    return {"command": {"value": "true", "environment": {"variables": list(entries)}}}


EXECUTOR = {"executor_id": {"value": "e"}, "command": {"value": "true"}}
BAD_TASKS = {
    "no resources": ({"resources": []}, "Task uses no resources"),
    "command and executor": ({"executor": EXECUTOR}, "at least one (but not both)"),
    "neither": ({"command": None}, "at least one (but not both)"),
    "custom executor": (
        {"command": None, "executor": EXECUTOR},
        "does not support custom executors",
    ),
    "default executor": (
        {"command": None, "executor": EXECUTOR | {"type": "DEFAULT"}},
        "must not be set for 'DEFAULT' executor",
    ),
    "slash in the id": ({"task_id": {"value": "a/b"}}, "'a/b' contains invalid characters"),
    "empty id": ({"task_id": {"value": ""}}, "ID must not be empty"),
    "another agent": ({"agent_id": {"value": "elsewhere"}}, "Task uses invalid agent elsewhere"),
    "negative": ({"resources": [scalar("cpus", -1)]}, "Invalid scalar resource: value <= 0"),
    "less than a thousandth": ({"resources": [scalar("cpus", 0.0004)]}, "value <= 0"),
    "infinite": ({"resources": [scalar("cpus", "Infinity")]}, "value <= 0"),
    "1e308": ({"resources": [scalar("cpus", 1e308)]}, "value <= 0"),
    "2^53": ({"resources": [scalar("mem", 2.0**53)]}, "is more than available"),
    "too much": ({"resources": [scalar("cpus", 5)]}, "is more than available"),
    "reserved": ({"resources": [scalar("cpus", 1, role="ads")]}, "is more than available"),
    "revocable": ({"resources": [scalar("cpus", 1, revocable={})]}, "is more than available"),
    "shared": ({"resources": [scalar("cpus", 1, shared={})]}, "cpus cannot be shared"),
    "cpus as ranges": ({"resources": [ports((1, 2), name="cpus")]}, "is more than available"),
    "overlap": ({"resources": [ports((31000, 31005), (31003, 31009))]}, "overlapping ranges"),
    "inverted range": ({"resources": [ports((31005, 31000))]}, "begin > end"),
    "half a GPU": ({"resources": [scalar("gpus", 0.5)]}, "must be an unsigned integer"),
    "negative grace": ({"kill_policy": {"grace_period": {"nanoseconds": -1}}}, "non-negative"),
    "grace of 2^64": ({"kill_policy": {"grace_period": {"nanoseconds": 2**64}}}, "non-negative"),
    "HTTP check without http": ({"health_check": {"type": "HTTP"}}, "Expecting 'http' to be set"),
    "path of a health check": (
        {"health_check": {"type": "HTTP", "http": {"port": 80, "path": "x"}}},
        "must start with '/'",
    ),
    "negative delay": (
        {"health_check": {"type": "TCP", "tcp": {"port": 80}, "delay_seconds": -1}},
        "Expecting 'delay_seconds' to be non-negative",
    ),
    "port of a health check": (
        {"health_check": {"type": "TCP", "tcp": {"port": 70000}}},
        "is not between 1 and 65535",
    ),
    "command check": ({"check": {"type": "COMMAND", "command": {"command": {}}}}, "shell command"),
    "a valid check": (
        {"check": {"type": "TCP", "tcp": {"port": 80}}},
        "does not support checks",
    ),
    "variable without value": (variables({"name": "A"}), "must have a value set"),
    "secret": (
        variables({"name": "A", "type": "SECRET", "secret": {"value": {"data": "c2VjcmV0"}}}),
        "does not support secrets",
    ),
    "null character": (variables({"name": "A", "value": "a\0b"}), "null characters"),
    "limit below the request": (
        {"limits": {"cpus": {"value": 0.01}}},
        "cpu limit must be greater than or equal to the cpu request",
    ),
    "limit": ({"limits": {"cpus": {"value": 2}}}, "not capable of handling task resource limits"),
    "image": (
        {"container": {"type": "MESOS", "mesos": {"image": {"type": "DOCKER"}}}},
        "does not support container images",
    ),
    "volume": (
        {"container": {"type": "MESOS", "volumes": [{"mode": "RW", "container_path": "p"}]}},
        "Only one of them should be set",
    ),
    "volume of the host": (
        {
            "container": {
                "type": "MESOS",
                "volumes": [{"mode": "RW", "container_path": "p", "host_path": "/"}],
            }
        },
        "does not support volumes",
    ),
    "too large": ({"labels": {"labels": [{"key": "k" * 600_000}]}}, "larger than 524288 bytes"),
}


@pytest.mark.parametrize(("change", "message"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_a_task_that_cannot_run_gets_an_error_that_says_why(
    world, agent, framework, change, message
):
    offer = framework.offers[0]
    framework.launch(offer, {**framework.task(offer, "t"), **change})
    status = framework.statuses[0]
    assert (status["state"], status["reason"], status["source"]) == (
        "TASK_ERROR",
        "REASON_TASK_INVALID",
        "SOURCE_MASTER",
    )
    assert message in status["message"]
    assert "uuid" not in status
    assert not agent.got(link.Launch)


def test_a_task_of_zero_cpus_and_mem_starts_as_with_apache_mesos(world, agent, framework):
    offer = framework.offers[0]
    nothing = {"resources": [scalar("cpus", 0), scalar("mem", 0)]}
    framework.launch(offer, {**framework.task(offer, "t"), **nothing})
    assert [message.task.task_id.value for message in agent.got(link.Launch)] == ["t"]


@pytest.mark.parametrize(
    "change",
    [
        {"health_check": {"type": "TCP", "tcp": {"port": 10**21}}},
        {"health_check": {"type": "TCP", "tcp": {"port": 80}, "consecutive_failures": 10**21}},
        {"health_check": {"type": "TCP", "tcp": {"port": 80}, "interval_seconds": -1}},
        {"discovery": {"visibility": "CLUSTER", "ports": {"ports": [{"number": 10**21}]}}},
        {"kill_policy": {"grace_period": {"nanoseconds": 10**21}}},
    ],
)
def test_numbers_beyond_their_type_never_reach_an_agent(world, agent, framework, change):
    offer = framework.offers[0]
    other = framework.task(offer, "other")
    try:
        framework.launch(offer, {**framework.task(offer, "t"), **change}, other)
    except ValueError:  # 400: nothing of the call is carried out
        assert not agent.got(link.Launch)
        return
    launched = agent.got(link.Launch)
    numbers = str(launched)
    assert str(10**21) not in numbers
    assert "other" in [message.task.task_id.value for message in launched]


def test_task_ids_are_unique_in_a_framework(world, agent, framework):
    framework.run("t")
    world.tick()
    framework.run("t")
    assert "duplicate ID" in framework.statuses[0]["message"]


@pytest.mark.parametrize(("aware", "state"), [(True, "TASK_DROPPED"), (False, "TASK_LOST")])
def test_a_task_on_an_offer_that_is_gone_is_dropped_or_lost(world, agent, aware, state):
    framework = world.framework("g", aware=aware)
    framework.call(
        "ACCEPT",
        accept={
            "offer_ids": [{"value": "bogus"}],
            "operations": [
                {
                    "type": "LAUNCH",
                    "launch": {
                        "task_infos": [
                            {"name": "t", "task_id": {"value": "t"}, "agent_id": {"value": "x"}}
                        ]
                    },
                }
            ],
        },
    )
    status = framework.statuses[0]
    assert (status["state"], status["reason"]) == (state, "REASON_INVALID_OFFERS")
    assert status["message"] == "Task launched with invalid offers: Offer bogus is no longer valid"


def test_a_valid_offer_beside_an_invalid_one_is_returned(world, agent, framework):
    offer = framework.offers[0]
    framework.launch(offer, framework.task(offer, "t"), offer_ids=[offer.id, "bogus"])
    assert framework.statuses[0]["state"] == "TASK_DROPPED"
    world.tick()
    assert framework.offers[0].resources == SIZE


def test_updates_go_to_the_scheduler_and_acknowledgements_to_the_agent(world, agent, framework):
    framework.run("t")
    uuid = agent.update(framework, "t", "TASK_RUNNING")
    assert framework.statuses[-1]["state"] == "TASK_RUNNING"
    framework.acknowledge(agent, "t", uuid)
    assert agent.got(link.Acknowledge) == [link.Acknowledge(framework.id, "t", uuid)]
    assert "t" in framework.record.tasks


def test_resources_return_at_the_terminal_state_and_the_record_goes_at_its_acknowledgement(
    world, agent, framework
):
    framework.run("t")
    running = agent.update(framework, "t", "TASK_RUNNING", latest="TASK_FINISHED")
    assert world.state.agents[agent.id].used().is_empty
    framework.acknowledge(agent, "t", running)
    assert "t" in framework.record.tasks
    finished = agent.update(framework, "t", "TASK_FINISHED")
    assert "t" in framework.record.tasks
    framework.acknowledge(agent, "t", finished)
    assert "t" not in framework.record.tasks
    assert framework.record.completed["t"].state == "TASK_FINISHED"


def test_an_acknowledgement_of_an_earlier_update_does_not_end_a_finished_task(
    world, agent, framework
):
    framework.run("t")
    running = agent.update(framework, "t", "TASK_RUNNING")
    agent.update(framework, "t", "TASK_FINISHED")
    framework.acknowledge(agent, "t", running)
    assert "t" in framework.record.tasks


def test_a_repeated_update_is_sent_again_but_noted_once(world, agent, framework):
    framework.run("t")
    uuid = agent.update(framework, "t", "TASK_RUNNING")
    agent.update(framework, "t", "TASK_RUNNING", uuid=uuid)
    assert len(framework.statuses) == 2
    assert len(framework.record.tasks["t"].statuses) == 1
    assert [event["type"] for event in world.published].count("TASK_UPDATED") == 1


def test_an_update_for_a_disconnected_scheduler_is_recorded_for_reconciliation(world, agent):
    framework = world.framework("away", failover_s=60.0)
    world.framework("f").call("TEARDOWN")
    world.tick()
    framework.run("t")
    framework.drop()
    agent.update(framework, "t", "TASK_RUNNING")
    again = world.framework(id_=framework.id, failover_s=60.0)
    assert again.statuses == []
    assert again.reconcile()[0]["state"] == "TASK_RUNNING"


@pytest.mark.slow
def test_only_a_thousand_completed_tasks_are_kept(world, agent, framework):
    for number in range(1005):
        name = f"t{number}"
        if not framework.offers:
            world.tick()
        framework.run(name)
        framework.acknowledge(agent, name, agent.update(framework, name, "TASK_FINISHED"))
    assert len(framework.record.completed) == 1000
    assert "t0" not in framework.record.completed


def test_a_kill_goes_to_the_agent_with_its_grace(world, agent, framework):
    framework.run("t")
    framework.kill("t", kill_policy={"grace_period": {"nanoseconds": 2_500_000_000}})
    assert agent.got(link.Kill) == [link.Kill(framework.id, "t", 2.5)]


def test_a_kill_for_a_disconnected_agent_is_sent_when_it_reconnects(world, agent, framework):
    from tests.unit.engine_master.world import known

    framework.run("t")
    agent.disconnect()
    framework.kill("t")
    agent.connect([known(framework, "t", agent.id)])
    assert agent.got(link.Kill) == [link.Kill(framework.id, "t", None)]


def test_a_kill_of_an_unknown_task_is_reconciled(world, agent, framework):
    framework.kill("ghost")
    assert (framework.statuses[0]["state"], framework.statuses[0]["reason"]) == (
        "TASK_UNKNOWN",
        "REASON_RECONCILIATION",
    )


def test_an_agent_that_still_runs_a_removed_framework_gets_a_shutdown(world, agent, framework):
    framework.run("t")
    framework.call("TEARDOWN")
    before = len(agent.got(link.ShutdownFramework))
    agent.update(framework, "t", "TASK_RUNNING")
    assert len(agent.got(link.ShutdownFramework)) == before + 1


def test_the_operators_see_tasks_come_and_change(world, agent, framework):
    framework.run("t")
    agent.update(framework, "t", "TASK_RUNNING")
    kinds = [event["type"] for event in world.published]
    assert kinds[-2:] == ["TASK_ADDED", "TASK_UPDATED"]
    assert world.published[-1]["task_updated"]["state"] == "TASK_RUNNING"
