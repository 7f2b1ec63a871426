"""A real agent process with a fake master: tasks, crashes, recovery, shutdown, endpoints."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.agent_process import (
    AgentProcess,
    gone,
    is_running,
    processes_of,
)
from mesaform.common.errors import Exit
from mesaform.common.json_types import as_list, as_object
from mesaform.engine import link
from tests.integration.engine_agent.fake_master import FakeMaster
from tests.unit.engine_agent.builders import AGENT_ID, framework, grace, task

pytestmark = pytest.mark.slow
HOST = "127.61.0.10"
OWNER = framework("PARTITION_AWARE", "TASK_KILLING_STATE")


@pytest.fixture
async def master() -> AsyncIterator[FakeMaster]:
    master = FakeMaster(HOST)
    await master.start()
    yield master
    await master.stop()


@pytest.fixture
async def agent(tmp_path: Path, master: FakeMaster) -> AsyncIterator[AgentProcess]:
    """A running agent. Afterwards it shuts down, and none of its processes may be left."""
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    agent = AgentProcess(work_dir, HOST, master.port)
    agent.start()
    yield agent
    if agent.process is not None and agent.process.poll() is None:
        agent.signal(signal.SIGUSR1)
        await agent.ended()
    assert processes_of(work_dir) == []
    groups = [
        path
        for path in Path("/sys/fs/cgroup").glob("*/mesaform/*")
        if path.is_dir() and re.fullmatch(r"[0-9a-f-]{36}", path.name)
    ]
    assert [
        path
        for path in groups
        if path.name in {sandbox.name for sandbox in work_dir.glob("sandboxes/*/*/*")}
    ] == []


def sandbox_of(agent: AgentProcess, task_id: str) -> Path:
    (folder,) = (agent.work_dir / "sandboxes" / "fw" / task_id).iterdir()
    return folder


async def test_a_task_runs_and_its_output_is_in_its_sandbox(master, agent):
    register = await master.registered()
    assert register.agent_id is None
    assert register.address == f"{HOST}:{agent.port}"
    assert register.info.attributes[0].name == "zone"
    variables = [{"name": "GREETING", "value": "hello"}]
    command = {
        "value": "echo $GREETING from $MESOS_TASK_ID; echo oops >&2; pwd; exit 7",
        "environment": {"variables": variables},
    }
    master.launch(task("first", command), OWNER)
    await master.status("first", "TASK_STARTING")
    running = await master.status("first", "TASK_RUNNING")
    failed = await master.status("first", "TASK_FAILED")
    assert failed.message == "Command exited with status 7"
    assert failed.container_status == running.container_status
    sandbox = sandbox_of(agent, "first")
    assert (sandbox / "stdout").read_text() == f"hello from first\n{sandbox}\n"
    assert (sandbox / "stderr").read_text() == "oops\n"
    assert [update.latest_state for update in master.updates][-1] == "TASK_FAILED"


async def test_an_idle_agent_stays_below_eighty_mib(master, agent):
    await master.registered()
    assert (await agent.get("/state"))[0] == 200
    assert agent.rss_mib() < 80


async def test_tasks_survive_a_killed_agent_and_the_next_one_adopts_them(master, agent):
    await master.registered()
    master.launch(task("lives", "sleep 1000"), OWNER)
    master.launch(task("ends", "while ! [ -e go ]; do sleep 0.02; done; exit 5"), OWNER)
    running = await master.status("lives", "TASK_RUNNING")
    ending = await master.status("ends", "TASK_RUNNING")
    await agent.kill()

    runner = ending.container_status.executor_pid
    assert is_running(runner)
    (sandbox_of(agent, "ends") / "go").touch()
    await gone(runner)

    agent.start()
    register = await master.registered(2)
    assert register.agent_id == AGENT_ID
    assert {known.task.task_id.value: known.framework for known in register.tasks} == {
        "lives": OWNER,
        "ends": OWNER,
    }
    failed = await master.status("ends", "TASK_FAILED")
    assert failed.message == "Command exited with status 5"
    master.say(link.Kill("fw", "lives"))
    killed = await master.status("lives", "TASK_KILLED")
    assert killed.container_status == running.container_status
    assert (
        len(
            {
                update.status.uuid
                for update in master.updates
                if update.status.state == "TASK_RUNNING"
            }
        )
        == 2
    )


async def test_a_task_ends_with_its_killed_runner_even_while_the_agent_is_down(master, agent):
    await master.registered()
    master.launch(task("t", "sleep 1000 & sleep 1000"), OWNER)
    running = await master.status("t", "TASK_RUNNING")
    await agent.kill()
    os.kill(running.container_status.executor_pid, signal.SIGKILL)
    agent.start()
    failed = await master.status("t", "TASK_FAILED")
    assert failed.reason == "REASON_EXECUTOR_TERMINATED"
    assert [pid for pid in processes_of(agent.work_dir) if pid != agent.pid] == []


async def test_an_unacknowledged_update_is_repeated_after_a_crash_and_on_a_new_link(master, agent):
    master.acknowledges = False
    await master.registered()
    master.launch(task("t", "true"), OWNER)
    first = await master.status("t", "TASK_STARTING")
    await agent.kill()
    agent.start()
    await master.registered(2)
    master.updates.clear()
    again = await master.status("t", "TASK_STARTING")
    assert again.uuid == first.uuid
    master.updates.clear()
    master.drop_link()
    await master.registered(3)
    again = await master.status("t", "TASK_STARTING")
    assert again.uuid == first.uuid
    master.acknowledges = True
    master.acknowledge(master.updates[-1])
    await master.status("t", "TASK_FINISHED")


async def test_an_agent_reconnects_to_a_master_that_returns(master, agent):
    await master.registered()
    master.launch(task("t", "sleep 1000"), OWNER)
    await master.status("t", "TASK_RUNNING")
    await master.stop()
    await master.start()
    register = await master.registered(2)
    assert [known.latest_state for known in register.tasks] == ["TASK_RUNNING"]


async def test_a_task_that_ignores_sigterm_is_killed_after_its_grace(master, agent):
    await master.registered()
    line = "trap '' TERM; touch ready; while true; do sleep 1; done"
    master.launch(task("stubborn", line, kill_policy=grace(0.3)), OWNER)
    await master.status("stubborn", "TASK_RUNNING")
    async with asyncio.timeout(60):
        while not (sandbox_of(agent, "stubborn") / "ready").exists():
            await asyncio.sleep(0.01)
    master.say(link.Kill("fw", "stubborn"))
    await master.status("stubborn", "TASK_KILLING")
    killed = await master.status("stubborn", "TASK_KILLED")
    assert killed.message == "Command terminated with signal Killed"


async def test_a_drain_ends_every_task_and_drops_later_launches(master, agent):
    await master.registered()
    master.launch(task("d1", "sleep 100"), OWNER)
    await master.status("d1", "TASK_RUNNING")
    master.say(link.Drain(3.0, mark_gone=True))
    killing = await master.status("d1", "TASK_KILLING")
    over = await master.status("d1", "TASK_GONE_BY_OPERATOR")
    assert {killing.reason, over.reason} == {"REASON_AGENT_DRAINING"}
    await agent.kill()
    agent.start()
    await master.registered(2)
    master.launch(task("d2", "sleep 100"), OWNER)
    assert (await master.status("d2", "TASK_DROPPED")).reason == "REASON_AGENT_DRAINING"
    master.say(link.Undrain())
    master.launch(task("d3", "true"), OWNER)
    await master.status("d3", "TASK_FINISHED")


async def test_passing_and_failing_health_checks_are_reported_as_by_mesos(master, agent):
    await master.registered()
    check = {
        "type": "COMMAND",
        "delay_seconds": 0,
        "interval_seconds": 0.1,
        "grace_period_seconds": 0,
        "consecutive_failures": 2,
    }
    master.launch(
        task(
            "good",
            "sleep 1000",
            health_check={**check, "command": {"value": '[ "$MESOS_TASK_ID" = good ]'}},
        ),
        OWNER,
    )
    master.launch(
        task("bad", "sleep 1000", health_check={**check, "command": {"value": "false"}}), OWNER
    )
    await master.status(
        "good", "TASK_RUNNING", healthy=True, reason="REASON_TASK_HEALTH_CHECK_STATUS_UPDATED"
    )
    await master.status(
        "bad", "TASK_RUNNING", healthy=False, reason="REASON_TASK_HEALTH_CHECK_STATUS_UPDATED"
    )
    killed = await master.status("bad", "TASK_KILLED")
    assert (killed.healthy, killed.message) == (False, "Command terminated with signal Terminated")
    unhealthy = [
        update
        for update in master.updates
        if update.status.task_id.value == "bad" and update.status.healthy is False
    ]
    assert [update.status.state for update in unhealthy] == [
        "TASK_RUNNING",
        "TASK_RUNNING",
        "TASK_KILLED",
    ]


@pytest.mark.parametrize("kind", ["HTTP", "TCP"])
async def test_health_over_the_network_is_checked_at_the_machines_address(master, agent, kind):
    await master.registered()
    check = {
        "type": kind,
        kind.lower(): {"port": agent.port, "path": "/health"},
        "delay_seconds": 0,
        "interval_seconds": 0.1,
    }
    master.launch(task("t", "sleep 1000", health_check=check), OWNER)
    await master.status("t", "TASK_RUNNING", healthy=True)


async def test_sigterm_ends_the_agent_and_leaves_its_tasks(master, agent):
    await master.registered()
    master.launch(task("t", "sleep 1000"), OWNER)
    running = await master.status("t", "TASK_RUNNING")
    agent.signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        assert await agent.ended() == Exit.OK
    assert is_running(running.container_status.executor_pid)
    agent.start()
    await master.registered(2)


async def test_sigusr1_kills_the_tasks_and_leaves_the_master(master, agent):
    await master.registered()
    master.launch(task("t", "sleep 1000"), OWNER)
    await master.status("t", "TASK_RUNNING")
    agent.signal(signal.SIGUSR1)
    await master.status("t", "TASK_KILLED")
    await master.heard(link.Leaving)
    assert await agent.ended() == Exit.OK


async def test_a_refused_agent_kills_its_tasks_and_ends(master, agent):
    await master.registered()
    master.launch(task("t", "sleep 1000"), OWNER)
    await master.status("t", "TASK_RUNNING")
    master.refuse = "Agent 0000-S1 has been marked gone"
    master.drop_link()
    assert await agent.ended() == Exit.FAILED
    assert processes_of(agent.work_dir) == []
    agent.start()
    assert (await master.registered(3)).agent_id == AGENT_ID


async def test_a_second_agent_in_the_same_work_folder_is_refused(master, agent):
    await master.registered()
    second = AgentProcess(agent.work_dir, HOST, master.port)
    second.start()
    assert await second.ended() == Exit.BUSY


async def test_a_taken_port_is_named(master, agent, tmp_path):
    await master.registered()
    other = tmp_path / "other"
    other.mkdir()
    second = AgentProcess(other, HOST, master.port, MESOS_PORT=str(agent.port))
    second.start()
    assert await second.ended() == Exit.BUSY
    assert f"{HOST}:{agent.port}: cannot listen" in (tmp_path / "agent.log").read_text()


async def test_the_endpoints_show_a_running_task_in_mesos_shapes(master, agent):
    await master.registered()
    master.launch(task("t", "echo hi; sleep 1000"), OWNER)
    await master.status("t", "TASK_RUNNING")
    _, state = await agent.get("/slave(1)/state")
    (shown,) = state["frameworks"]
    (executor,) = shown["executors"]
    assert (executor["source"], executor["resources"]["cpus"], executor["directory"]) == (
        "t",
        0.1,
        str(sandbox_of(agent, "t")),
    )
    assert [status["state"] for status in executor["tasks"][0]["statuses"]] == [
        "TASK_STARTING",
        "TASK_RUNNING",
    ]
    assert state["resources"]["ports"] == "[31000-32000]"
    _, containers = await agent.get("/containers")
    assert containers[0]["statistics"]["mem_rss_bytes"] > 0
    assert containers[0]["container_id"] == executor["container"]
    _, metrics = await agent.get("/metrics/snapshot")
    assert (
        metrics["slave/tasks_running"],
        metrics["slave/cpus_used"],
        metrics["slave/registered"],
    ) == (1.0, 0.1, 1.0)
    for path in ("/health", "/flags", "/version", "/monitor/statistics"):
        assert (await agent.get(path))[0] == 200


async def test_the_operator_calls_answer(master, agent):
    await master.registered()
    master.launch(task("t", "sleep 1000"), OWNER)
    await master.status("t", "TASK_RUNNING")
    answers = {}
    async with aiohttp.ClientSession() as session:
        url = f"http://{HOST}:{agent.port}/api/v1"
        for kind in (
            "GET_HEALTH",
            "GET_VERSION",
            "GET_STATE",
            "GET_TASKS",
            "GET_CONTAINERS",
            "GET_AGENT",
            "GET_METRICS",
            "GET_FLAGS",
        ):
            async with session.post(url, json={"type": kind}) as response:
                assert response.status == 200
                answers[kind] = (await response.json())[kind.lower()]
        async with session.post(url, json={"type": "NO_SUCH_CALL"}) as response:
            assert response.status == 501
        async with session.post(
            url, data="{", headers={"Content-Type": "application/json"}
        ) as response:
            assert response.status == 400
    assert answers["GET_TASKS"]["launched_tasks"][0]["state"] == "TASK_RUNNING"
    assert answers["GET_AGENT"]["agent_info"]["id"] == {"value": AGENT_ID}
    assert answers["GET_CONTAINERS"]["containers"][0]["executor_id"] == {"value": "t"}


async def test_files_are_read_below_the_sandboxes_only(master, agent):
    await master.registered()
    secret = agent.work_dir / "secret"
    secret.write_text("secret")
    command = f"printf 'gr\\303\\274n'; mkdir d; ln -s {secret} link; ln -s /etc etc"
    master.launch(task("t", command), OWNER)
    await master.status("t", "TASK_FINISHED")
    sandbox = str(sandbox_of(agent, "t"))
    _, listed = await agent.get("/files/browse", path=sandbox)
    assert {entry["path"].removeprefix(sandbox + "/"): entry["mode"][0] for entry in listed} == {
        "d": "d",
        "etc": "l",
        "link": "l",
        "stderr": "-",
        "stdout": "-",
    }
    out = f"{sandbox}/stdout"
    assert await agent.get("/files/read", path=out) == (200, {"data": "", "offset": 5})
    assert await agent.get("/files/read", path=out, offset="-1") == (200, {"data": "", "offset": 5})
    assert await agent.get("/files/read", path=out, offset="0") == (
        200,
        {"data": "grün", "offset": 0},
    )
    assert await agent.get("/files/read", path=out, offset="0", length="3") == (
        200,
        {"data": "gr", "offset": 0},
    )
    assert await agent.get("/files/read", path=out, offset="2", length="100") == (
        200,
        {"data": "ün", "offset": 2},
    )
    assert await agent.get("/files/read", path=out, offset="99") == (
        200,
        {"data": "", "offset": 99},
    )
    assert (await agent.get("/files/download", path=out)) == (200, "grün")
    for path in (
        f"{sandbox}/link",
        f"{sandbox}/etc/passwd",
        f"{sandbox}/../../../../secret",
        str(secret),
        "/etc/passwd",
        "../meta",
    ):
        for page in ("browse", "read", "download"):
            assert (await agent.get(f"/files/{page}", path=path, offset="0"))[0] == 404, path
    assert (await agent.get("/files/read", offset="0"))[0] == 400
    assert (await agent.get("/files/read", path=sandbox, offset="0"))[0] == 400
    assert (await agent.get("/files/read", path=out, offset="x"))[0] == 400
    assert (await agent.get("/files/read", path=out, offset="-5"))[0] == 400


async def test_the_sandbox_of_a_task_is_listed_after_its_end_was_acknowledged(master, agent):
    await master.registered()
    master.launch(task("over", "echo done"), OWNER)
    await master.status("over", "TASK_FINISHED")
    frameworks: list[Any] = []
    async with asyncio.timeout(60):
        while not frameworks:  # until the agent has the acknowledgement
            state = as_object((await agent.get("/state"))[1])
            frameworks = as_list(state["completed_frameworks"])
            await asyncio.sleep(0.01)
    (executor,) = as_list(as_object(frameworks[0])["completed_executors"])
    folder = Path(str(as_object(executor)["directory"]))
    assert (folder / "stdout").read_text() == "done\n"
