"""Decisions of the agent's core, compared with Apache Mesos."""

from __future__ import annotations

import signal

import msgspec
import pytest

from mesaform.common.transitions import UnknownTransition
from mesaform.engine import link
from mesaform.engine.agent.core import AgentCore
from mesaform.engine.agent.events import (
    Checkpoint,
    Connected,
    Disconnected,
    Exited,
    Forget,
    HealthChecked,
    KillAll,
    LaunchFailed,
    Ran,
    SaveMeta,
    Send,
    StartContainer,
    Started,
    Tick,
)
from mesaform.engine.agent.tasks import AgentMeta, Draining, SavedTask
from tests.unit.engine_agent.builders import (
    ADDRESS,
    AGENT_ID,
    Scenario,
    framework,
    grace,
    kills,
    statuses,
    task,
)

AWARE = framework("PARTITION_AWARE", "TASK_KILLING_STATE")
EXIT_7 = 7 << 8


def test_a_launched_task_is_durable_before_its_container_starts():
    effects = Scenario().launch()
    assert [type(effect) for effect in effects] == [Checkpoint, StartContainer]


def test_updates_are_sent_one_at_a_time_starting_running_finished():
    agent = Scenario()
    agent.launch()
    container = agent.container_of("t")
    (starting,) = statuses(agent.happens(Started(container, 4711)))
    assert statuses(agent.happens(Ran(container))) == []
    assert statuses(agent.happens(Exited(container, 0))) == []
    (running,) = statuses(agent.happens(link.Acknowledge("fw", "t", starting.uuid or b"")))
    (finished,) = statuses(agent.happens(link.Acknowledge("fw", "t", running.uuid or b"")))
    assert [status.state for status in (starting, running, finished)] == [
        "TASK_STARTING",
        "TASK_RUNNING",
        "TASK_FINISHED",
    ]
    assert finished.message == "Command exited with status 0"
    effects = agent.happens(link.Acknowledge("fw", "t", finished.uuid or b""))
    assert [type(effect) for effect in effects] == [Forget]
    assert agent.core.known_tasks() == []


def test_a_status_says_what_mesos_says():
    agent = Scenario()
    agent.launch()
    container = agent.container_of("t")
    (starting,) = statuses(agent.happens(Started(container, 12850)))
    wire = msgspec.to_builtins(starting)
    assert wire == {
        "task_id": {"value": "t"},
        "state": "TASK_STARTING",
        "source": "SOURCE_EXECUTOR",
        "agent_id": {"value": AGENT_ID},
        "executor_id": {"value": "t"},
        "timestamp": 1000.0,
        "uuid": wire["uuid"],
        "container_status": {
            "container_id": {"value": container},
            "network_infos": [{"ip_addresses": [{"protocol": "IPv4", "ip_address": ADDRESS}]}],
            "executor_pid": 12850,
        },
    }


@pytest.mark.parametrize(
    ("wait_status", "state", "message"),
    [
        (0, "TASK_FINISHED", "Command exited with status 0"),
        (EXIT_7, "TASK_FAILED", "Command exited with status 7"),
        (signal.SIGKILL, "TASK_FAILED", "Command terminated with signal Killed"),
        (
            signal.SIGSEGV | 0x80,
            "TASK_FAILED",
            "Command terminated with signal Segmentation fault (core dumped)",
        ),
    ],
)
def test_an_exit_is_described_by_mesos_texts(wait_status, state, message):
    agent = Scenario()
    status = agent.exits(agent.run(), wait_status)
    assert (status.state, status.message, status.reason) == (state, message, None)


def test_a_kill_is_reported_as_killing_only_to_frameworks_with_that_capability():
    agent = Scenario()
    container = agent.run(owner=AWARE)
    effects = agent.kill()
    assert [status.state for status in statuses(effects)] == ["TASK_KILLING"]
    assert kills(effects) == [(container, 3.0)]

    other = Scenario()
    container = other.run()
    effects = other.kill()
    assert statuses(effects) == []
    assert other.core.known_tasks()[0].latest_state == "TASK_RUNNING"
    status = other.exits(container, signal.SIGTERM)
    assert (status.state, status.message, status.reason) == (
        "TASK_KILLED",
        "Command terminated with signal Terminated",
        None,
    )


def test_a_killed_task_is_killed_however_it_exits():
    agent = Scenario()
    container = agent.run()
    agent.kill()
    assert agent.exits(container, 0).state == "TASK_KILLED"


@pytest.mark.parametrize(("asked_s", "granted_s"), [(None, 7.0), (2.0, 2.0), (60.0, 60.0)])
def test_a_kills_own_grace_wins_over_the_tasks_policy(asked_s, granted_s):
    agent = Scenario()
    container = agent.run(task(kill_policy=grace(7)))
    assert kills(agent.kill(grace_s=asked_s)) == [(container, granted_s)]


def test_a_second_kill_can_shorten_the_grace_but_not_prolong_it():
    agent = Scenario()
    container = agent.run(task(kill_policy=grace(30)))
    agent.kill()
    assert kills(agent.kill(grace_s=1.0)) == [(container, 1.0)]
    assert kills(agent.kill(grace_s=90.0)) == [(container, 1.0)]


def test_a_task_killed_before_it_started_is_killed_at_once():
    agent = Scenario()
    agent.launch()
    container = agent.container_of("t")
    effects = agent.kill()
    (killed,) = statuses(effects)
    assert (killed.state, killed.reason) == ("TASK_KILLED", "REASON_TASK_KILLED_DURING_LAUNCH")
    assert kills(effects) == [(container, 3.0)]
    assert agent.happens(LaunchFailed(container, "a kill was requested meanwhile")) == []


def test_a_launch_that_fails_says_why():
    agent = Scenario()
    agent.launch()
    effects = agent.happens(
        LaunchFailed(agent.container_of("t"), "Failed to fetch 'file:///nope': No such file")
    )
    (failed,) = statuses(effects)
    assert (failed.state, failed.source, failed.reason) == (
        "TASK_FAILED",
        "SOURCE_AGENT",
        "REASON_CONTAINER_LAUNCH_FAILED",
    )
    assert (
        failed.message == "Failed to launch container: Failed to fetch 'file:///nope': No such file"
    )


def test_a_task_over_its_memory_limit_is_reported_with_that_reason():
    agent = Scenario()
    status = agent.exits(
        agent.run(), signal.SIGKILL, "Memory limit exceeded: Requested: 32MB Maximum Used: 32MB"
    )
    assert (status.state, status.reason) == ("TASK_FAILED", "REASON_CONTAINER_LIMITATION_MEMORY")
    assert status.message == "Memory limit exceeded: Requested: 32MB Maximum Used: 32MB"


def test_a_lost_runner_fails_its_task():
    agent = Scenario()
    status = agent.exits(agent.run(), None)
    assert (status.state, status.reason) == ("TASK_FAILED", "REASON_EXECUTOR_TERMINATED")


@pytest.mark.parametrize(
    "info",
    [
        task("a/b"),
        task(".."),
        task(executor={"executor_id": {"value": "e"}}),
        task(container={"type": "DOCKER", "docker": {"image": "x"}}),
        task(container={"type": "MESOS", "mesos": {"image": {"type": "DOCKER"}}}),
    ],
)
def test_a_task_that_cannot_run_here_is_an_error_and_starts_nothing(info):
    effects = Scenario().launch(info)
    (status,) = statuses(effects)
    assert (status.state, status.reason) == ("TASK_ERROR", "REASON_TASK_INVALID")
    assert not any(isinstance(effect, StartContainer) for effect in effects)


def test_a_repeated_launch_starts_a_task_once():
    agent = Scenario()
    agent.launch()
    assert agent.launch() == []


@pytest.mark.parametrize(
    ("capabilities", "state"), [((), "TASK_LOST"), (("PARTITION_AWARE",), "TASK_GONE")]
)
def test_a_kill_of_an_unknown_task_is_answered_until_acknowledged(capabilities, state):
    agent = Scenario()
    agent.run(owner=framework(*capabilities))
    (status,) = statuses(agent.kill("ghost"))
    assert status.state == state
    assert statuses(agent.kill("ghost")) == []
    agent.now += 10
    assert [again.uuid for again in statuses(agent.happens(Tick()))] == [status.uuid]
    agent.happens(link.Acknowledge("fw", "ghost", status.uuid or b""))
    agent.now += 600
    assert statuses(agent.happens(Tick())) == []


def test_a_drain_kills_every_task_with_the_lesser_grace_and_says_why():
    agent = Scenario()
    patient = agent.run(task("patient", kill_policy=grace(60)), AWARE)
    quick = agent.run(task("quick", kill_policy=grace(1)), AWARE)
    effects = agent.happens(link.Drain(max_grace_s=5.0))
    assert kills(effects) == [(patient, 5.0), (quick, 1.0)]
    assert {(status.state, status.reason) for status in statuses(effects)} == {
        ("TASK_KILLING", "REASON_AGENT_DRAINING")
    }
    assert effects[0] == SaveMeta(AgentMeta(AGENT_ID, Draining(5.0)))
    agent.acknowledge_all()
    status = agent.exits(patient, signal.SIGTERM)
    assert (status.state, status.reason, status.source) == (
        "TASK_KILLED",
        "REASON_AGENT_DRAINING",
        "SOURCE_EXECUTOR",
    )


@pytest.mark.parametrize(
    ("owner", "state"), [(AWARE, "TASK_GONE_BY_OPERATOR"), (framework(), "TASK_KILLED")]
)
def test_a_drain_that_marks_gone_is_reported_as_gone_to_partition_aware_frameworks(owner, state):
    agent = Scenario()
    container = agent.run(owner=owner)
    agent.happens(link.Drain(mark_gone=True))
    agent.acknowledge_all()
    status = agent.exits(container, signal.SIGTERM)
    assert (status.state, status.reason) == (state, "REASON_AGENT_DRAINING")


def test_a_task_that_ended_before_the_drain_stays_as_it_was():
    agent = Scenario()
    container = agent.run(owner=AWARE)
    agent.happens(Disconnected())
    agent.happens(Exited(container, EXIT_7))
    agent.happens(link.Drain(mark_gone=True))
    (status,) = statuses(agent.happens(Connected(AGENT_ID)))
    assert (status.state, status.reason) == ("TASK_FAILED", None)


@pytest.mark.parametrize(("owner", "state"), [(AWARE, "TASK_DROPPED"), (framework(), "TASK_LOST")])
def test_a_draining_agent_takes_no_tasks_until_it_is_reactivated(owner, state):
    agent = Scenario()
    agent.happens(link.Drain())
    (status,) = statuses(agent.launch(owner=owner))
    assert (status.state, status.reason, status.source) == (
        state,
        "REASON_AGENT_DRAINING",
        "SOURCE_AGENT",
    )
    agent.acknowledge_all()
    agent.happens(link.Undrain())
    assert any(isinstance(effect, StartContainer) for effect in agent.launch(owner=owner))


def test_health_is_reported_with_its_reason_and_too_many_failures_kill():
    agent = Scenario()
    container = agent.run()
    (good,) = statuses(agent.happens(HealthChecked(container, healthy=True)))
    assert (good.state, good.healthy, good.reason) == (
        "TASK_RUNNING",
        True,
        "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
    )
    agent.acknowledge_all()
    effects = agent.happens(HealthChecked(container, healthy=False, kill=True))
    assert [(status.state, status.healthy) for status in statuses(effects)] == [
        ("TASK_RUNNING", False)
    ]
    assert kills(effects) == [(container, 3.0)]
    agent.acknowledge_all()
    killed = agent.exits(container, signal.SIGTERM)
    assert (killed.state, killed.healthy, killed.reason) == ("TASK_KILLED", False, None)


def test_a_healthy_task_that_finishes_says_nothing_of_health():
    agent = Scenario()
    container = agent.run()
    agent.happens(HealthChecked(container, healthy=True))
    agent.acknowledge_all()
    assert agent.exits(container, 0).healthy is None


def test_a_framework_that_is_shut_down_loses_its_tasks_without_updates():
    agent = Scenario()
    mine, other = agent.run(), agent.run(task("u"), framework(named="other"))
    effects = agent.happens(link.ShutdownFramework("fw"))
    assert statuses(effects) == []
    assert kills(effects) == [(mine, 3.0)]
    assert [known.task.task_id.value for known in agent.core.known_tasks()] == ["u"]
    effects = agent.happens(Exited(mine, signal.SIGTERM))
    assert [type(effect) for effect in effects] == [Forget]
    assert agent.container_of("u") == other


def test_a_refused_agent_kills_its_tasks_without_updates():
    agent = Scenario()
    container = agent.run()
    assert kills(agent.happens(KillAll(is_refused=True))) == [(container, 3.0)]
    assert statuses(agent.happens(Exited(container, signal.SIGTERM))) == []
    assert agent.core.tasks == {}


def test_the_latest_state_may_be_later_than_the_acknowledged_one():
    agent = Scenario()
    agent.launch()
    container = agent.container_of("t")
    agent.happens(Started(container, 1))
    agent.happens(Ran(container))
    agent.happens(Exited(container, 0))
    agent.happens(Disconnected())
    (sent,) = [
        effect.update for effect in agent.happens(Connected(AGENT_ID)) if isinstance(effect, Send)
    ]
    assert (sent.status.state, sent.latest_state) == ("TASK_STARTING", "TASK_FINISHED")
    (known,) = agent.core.known_tasks()
    assert known.latest_state == "TASK_FINISHED"
    assert [status.state for status in known.statuses] == [
        "TASK_STARTING",
        "TASK_RUNNING",
        "TASK_FINISHED",
    ]


def test_a_restarted_agent_continues_with_its_pending_updates():
    before = Scenario()
    container = before.run()
    before.happens(Exited(container, EXIT_7))
    record = before.core.tasks["fw", "t"]
    saved = msgspec.msgpack.decode(
        msgspec.msgpack.encode(SavedTask(record, before.core.pending(record.key))), type=SavedTask
    )

    after = AgentCore(ADDRESS, before.new_uuid, AgentMeta(AGENT_ID))
    after.restore([saved])
    (status,) = statuses(after.handle(Connected(AGENT_ID), 2000.0))
    assert status == before.core.pending(("fw", "t"))[0]
    assert [
        type(effect)
        for effect in after.handle(link.Acknowledge("fw", "t", status.uuid or b""), 2000.0)
    ] == [Forget]


def test_an_adopted_task_is_not_reported_running_again():
    before = Scenario()
    container = before.run()
    after = AgentCore(ADDRESS, before.new_uuid, AgentMeta(AGENT_ID))
    after.restore([SavedTask(before.core.tasks["fw", "t"])])
    after.handle(Connected(AGENT_ID), 2000.0)
    assert statuses(after.handle(Started(container, 4711), 2000.0)) == []
    assert statuses(after.handle(Ran(container), 2000.0)) == []


def test_what_cannot_happen_raises_with_the_tasks_history():
    agent = Scenario()
    container = agent.run()
    with pytest.raises(UnknownTransition, match="not launched in state TASK_RUNNING") as caught:
        agent.happens(LaunchFailed(container, "?"))
    history = f"container {container} > TASK_STARTING > TASK_RUNNING"
    assert history in str(caught.value)


def test_an_event_without_a_handler_is_an_error():
    with pytest.raises(TypeError, match="no handler for Ping"):
        Scenario().happens(link.Ping())  # type: ignore[arg-type]


def test_saved_tasks_of_the_first_release_are_readable():
    record = {
        "framework": msgspec.to_builtins(AWARE),
        "task": msgspec.to_builtins(task()),
        "container_id": "c",
        "received_at": 1.0,
        "state": "TASK_KILLING",
        "told": "TASK_RUNNING",
        "unhealthy": True,
        "orphan": True,
    }
    data = msgspec.msgpack.encode({"record": record, "pending": []})
    saved = msgspec.msgpack.decode(data, type=SavedTask)
    assert saved.record.reported_state == "TASK_RUNNING"
    assert saved.record.is_unhealthy
    assert saved.record.is_orphan
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(saved))["record"]["told"] == "TASK_RUNNING"
