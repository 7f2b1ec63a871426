"""Faults at the agent: a bad launch, a bad record or a full disk ends its task and nothing else."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from harness.agent_process import AgentProcess, gone, is_running
from mesaform.common.json_types import as_list, as_object
from mesaform.engine import link
from tests.integration.engine_agent.conftest import running_agent
from tests.integration.engine_agent.fake_master import FakeMaster
from tests.unit.engine_agent.builders import AGENT_ID, framework, task

pytestmark = pytest.mark.slow
OWNER = framework("PARTITION_AWARE", "TASK_KILLING_STATE")
TERMINAL = {"TASK_ERROR", "TASK_FAILED"}


def raw_launch(task_id: str, **fields: object) -> bytes:
    """A launch with fields that the types of the protocol do not allow."""
    info = msgspec.to_builtins(task(task_id, "sleep 1000"), builtin_types=(bytes,)) | fields
    owner = msgspec.to_builtins(OWNER, builtin_types=(bytes,))
    return msgspec.msgpack.encode({"type": "Launch", "framework": owner, "task": info})


def health(**check: object) -> dict[str, object]:
    return {"health_check": check}


BAD_LAUNCHES: dict[str, dict[str, object]] = {
    "type 1 (C3)": health(type=1),
    "type of a list (C3)": health(type=["HTTP"]),
    "http of a text (C3)": health(type="HTTP", http="x"),
    "http of a list (C3)": health(http=[1]),
    "command of a number": health(type="COMMAND", command=7),
    "an unknown type": health(type="ODD"),
    "a delay of NaN": health(type="TCP", tcp={"port": 1}, delay_seconds=float("nan")),
    "a grace of 1e30 ns (M5)": {"kill_policy": {"grace_period": {"nanoseconds": 1e30}}},
    "a negative port": {
        "resources": [
            {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": -1, "end": 2}]}}
        ]
    },
    "cpus of Infinity": {
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": float("inf")}}]
    },
    "a command of a list": {"command": []},
    "an executor": {"executor": {"executor_id": {"value": "e"}}},
    "an environment of numbers": {
        "command": {"value": "true", "environment": {"variables": [{"name": 1, "value": 2}]}}
    },
    "a NUL in a variable": {
        "command": {
            "value": "true",
            "environment": {"variables": [{"name": "A", "value": "a\0b"}]},
        }
    },
    "an unknown user": {"command": {"value": "true", "user": "no-such-user"}},
}


async def test_a_bad_launch_ends_its_own_task_and_neither_the_agent_nor_the_link(master, agent):
    await master.registered()
    master.launch(task("lives", "sleep 1000"), OWNER)
    running = await master.status("lives", "TASK_RUNNING")
    pid = agent.pid
    names = list(BAD_LAUNCHES)
    for number, name in enumerate(names):
        master.say(raw_launch(f"bad{number}", **BAD_LAUNCHES[name]))
    master.say(raw_launch("../escape"))
    master.say(b"\xc1 no message")
    ends: dict[str, str] = {}
    for number, name in enumerate(names):
        status = await master.terminal_status(f"bad{number}")
        ends[name] = status.state
        assert status.message, name
        assert status.reason, name
    assert set(ends.values()) <= TERMINAL, ends
    master.launch(task("later", "true"), OWNER)
    await master.status("later", "TASK_FINISHED")
    assert agent.pid == pid
    assert is_running(pid)
    assert len(master.registrations) == 1
    assert is_running(running.container_status.executor_pid)
    assert not (agent.work_dir / "escape").exists()


async def test_an_agent_that_restarts_adopts_no_bad_task_twice(master, agent):
    """C3: the agent adopted the task again and died again."""
    await master.registered()
    for number, name in enumerate(BAD_LAUNCHES):
        master.say(raw_launch(f"bad{number}", **BAD_LAUNCHES[name]))
    await agent.kill()
    agent.start()
    await master.registered(2)
    master.launch(task("later", "true"), OWNER)
    await master.status("later", "TASK_FINISHED")
    assert len(master.registrations) == 2


async def test_a_task_whose_record_cannot_be_read_is_killed_and_reported_and_others_are_adopted(
    master, agent
):
    await master.registered()
    pids = {}
    for name in ("damaged", "empty", "newer", "lives"):
        master.launch(task(name, "sleep 1000"), OWNER)
        running = await master.status(name, "TASK_RUNNING")
        pids[name] = running.container_status.executor_pid
    await agent.kill()
    damaged = {"damaged": b"garbage", "empty": b"", "newer": b'{"schema":"engine.task/9"}'}
    for name, data in damaged.items():
        record_of(agent, name).write_bytes(data)
    agent.start()
    register = await master.registered(2)
    assert [known.task.task_id.value for known in register.tasks] == ["lives"]
    for name in damaged:
        status = await master.status(name, "TASK_FAILED")
        assert "checkpoint could not be read" in (status.message or "")
        await gone(pids[name])
    assert is_running(pids["lives"])
    kept = [path.read_bytes() for path in (agent.work_dir / "meta" / "tasks").glob("*.set-aside")]
    assert sorted(kept) == sorted(damaged.values())
    state = as_object((await agent.get("/state"))[1])
    assert len(as_list(as_object(state["mesaform"])["records_set_aside"])) == 3
    metrics = as_object((await agent.get("/metrics/snapshot"))[1])
    assert metrics["mesaform/records_set_aside/task_checkpoints"] == 3


async def test_an_agent_whose_own_record_cannot_be_read_registers_as_a_new_one(master, agent):
    await master.registered()
    await agent.kill()
    (agent.work_dir / "meta" / "agent.json").write_bytes(b"\0")
    agent.start()
    assert (await master.registered(2)).agent_id is None
    assert (agent.work_dir / "meta" / "agent.json.set-aside").read_bytes() == b"\0"


async def test_an_agent_shows_why_its_proof_is_refused_until_it_is_accepted(
    tmp_path: Path, master: FakeMaster
):
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    master.deny = "the document is of instance i-2"
    async for agent in running_agent(work_dir, master):
        await master.denied(2)  # the first one has been logged and is shown by now
        shown = as_object(as_object((await agent.get("/state"))[1])["mesaform"])
        assert shown["rejected_by_master"] == f"PERMISSION_DENIED: {master.deny}"
        master.deny = ""
        await master.registered()
        master.launch(task("t", "sleep 1000"), OWNER)
        await master.status("t", "TASK_RUNNING")
        shown = as_object(as_object((await agent.get("/state"))[1])["mesaform"])
        assert shown["rejected_by_master"] == ""


async def test_records_from_before_schemas_are_read(master, agent):
    await master.registered()
    master.launch(task("old", "sleep 1000"), OWNER)
    running = await master.status("old", "TASK_RUNNING")
    await agent.kill()
    rewrite_as_v0(agent)
    agent.start()
    register = await master.registered(2)
    assert register.agent_id == AGENT_ID
    assert [known.task.task_id.value for known in register.tasks] == ["old"]
    assert is_running(running.container_status.executor_pid)


async def test_an_old_record_beside_its_new_one_is_never_read_again(master, agent):
    """A crash between the two writes leaves it; the new one may become unreadable later."""
    await master.registered()
    for name in ("kept", "damaged"):
        master.launch(task(name, "sleep 1000"), OWNER)
        await master.status(name, "TASK_RUNNING")
    await agent.kill()
    record = {name: record_of(agent, name) for name in ("kept", "damaged")}
    new = {path: path.read_bytes() for path in record.values()}
    rewrite_as_v0(agent)
    for path, data in new.items():
        path.write_bytes(data)
    record["damaged"].write_bytes(b"garbage")
    agent.start()
    register = await master.registered(2)
    assert [known.task.task_id.value for known in register.tasks] == ["kept"]
    await master.status("damaged", "TASK_FAILED")
    await agent.kill()
    assert list(agent.work_dir.glob("meta/tasks/*.msgpack")) == []
    agent.start()
    register = await master.registered(3)
    assert [known.task.task_id.value for known in register.tasks] == ["kept"]


async def test_no_variable_of_a_task_is_in_the_log_and_no_other_user_reads_its_files(master, agent):
    await master.registered()
    secret = "s3cr3t-of-the-task"
    variables = [{"name": "TOKEN", "value": secret}]
    command = {"value": "sleep 1000", "environment": {"variables": variables}}
    master.launch(task("t", command), OWNER)
    await master.status("t", "TASK_RUNNING")
    master.say(raw_launch("bad", command={"value": secret, "environment": {"variables": 7}}))
    master.say(raw_launch("odd", command=command, kill_policy={"grace_period": secret}))
    await master.terminal_status("bad")
    await master.terminal_status("odd")
    assert secret not in (agent.work_dir.parent / "agent.log").read_text()
    (sandbox,) = (agent.work_dir / "sandboxes" / "fw" / "t").iterdir()
    private = [sandbox, sandbox / "stdout", sandbox / "stderr", record_of(agent, "t")]
    assert [oct(path.stat().st_mode & 0o007) for path in private] == ["0o0"] * len(private)


# --- full disks


@pytest.fixture
async def cramped_agent(small_disk: Path, master: FakeMaster) -> AsyncIterator[AgentProcess]:
    """An agent with its work folder and its log on a file system of a few MiB."""
    work_dir = small_disk / "work"
    work_dir.mkdir()
    async for started in running_agent(work_dir, master):
        yield started


async def test_on_a_full_disk_launches_fail_kills_work_and_it_goes_on_when_space_returns(
    master, cramped_agent
):
    await master.registered()
    for name in ("killed", "finished"):
        line = "while ! [ -e go ]; do sleep 0.02; done" if name == "finished" else "sleep 1000"
        master.launch(task(name, line), OWNER)
        await master.status(name, "TASK_RUNNING")
    finished_sandbox = next((cramped_agent.work_dir / "sandboxes/fw/finished").iterdir())
    (finished_sandbox / "go.later").touch()
    ballast = fill(cramped_agent.work_dir.parent)

    master.launch(task("no-place", "true"), OWNER)
    failed = await master.status("no-place", "TASK_FAILED")
    assert failed.reason == "REASON_CONTAINER_LAUNCH_FAILED"
    assert "No space left on device" in (failed.message or "")
    (finished_sandbox / "go.later").rename(finished_sandbox / "go")
    await master.status("finished", "TASK_FINISHED")
    master.say(link.Kill("fw", "killed"))
    await master.status("killed", "TASK_KILLED")

    ballast.unlink()
    master.launch(task("place", "sleep 1000"), OWNER)
    await master.status("place", "TASK_RUNNING")
    async with asyncio.timeout(60):
        while (await unwritten(cramped_agent)) > 0:
            await asyncio.sleep(0.1)
    await cramped_agent.kill()
    cramped_agent.start()
    register = await master.registered(2)
    assert [known.task.task_id.value for known in register.tasks] == ["place"]


async def test_an_agent_that_restarts_on_a_full_disk_adopts_its_tasks(master, cramped_agent):
    await master.registered()
    master.launch(task("lives", "sleep 1000"), OWNER)
    running = await master.status("lives", "TASK_RUNNING")
    ballast = fill(cramped_agent.work_dir.parent)
    cramped_agent.signal(signal.SIGKILL)
    await cramped_agent.ended()
    cramped_agent.start()
    register = await master.registered(2)
    assert [known.task.task_id.value for known in register.tasks] == ["lives"]
    master.say(link.Kill("fw", "lives"))
    await master.status("lives", "TASK_KILLED")
    await gone(running.container_status.executor_pid)
    ballast.unlink()


async def unwritten(agent: AgentProcess) -> float:
    metrics = as_object((await agent.get("/metrics/snapshot"))[1])
    count = metrics["mesaform/unwritten_checkpoints"]
    assert isinstance(count, float)
    return count


def fill(folder: Path) -> Path:
    """Fill a file system to its last byte."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        size = 1 << 20
        while size:
            try:
                os.write(file.fileno(), b"\0" * size)
            except OSError:
                size //= 2
    return ballast


def record_of(agent: AgentProcess, task_id: str) -> Path:
    """The checkpoint of a task."""
    (sandbox,) = (agent.work_dir / "sandboxes" / "fw" / task_id).iterdir()
    return agent.work_dir / "meta" / "tasks" / f"{sandbox.name}.json"


def rewrite_as_v0(agent: AgentProcess) -> None:
    """Replace each record by the file that a release before schemas wrote."""
    meta = agent.work_dir / "meta"
    for path in (meta / "agent.json", *(meta / "tasks").glob("*.json")):
        document = msgspec.json.decode(path.read_bytes())
        del document["schema"]
        path.with_suffix(".msgpack").write_bytes(msgspec.msgpack.encode(_with_bytes(document)))
        path.unlink()


def _with_bytes(value: object) -> object:
    """The document with its uuids as bytes, as msgpack has them."""
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: msgspec.convert(item, bytes) if name == "uuid" else _with_bytes(item)
        for name, item in value.items()
    }


# --- disk quota


async def test_a_task_that_exceeds_its_disk_is_ended_when_quotas_are_enforced(
    tmp_path: Path, master: FakeMaster
):
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    quotas = {
        "MESOS_ENFORCE_CONTAINER_DISK_QUOTA": "true",
        "MESOS_CONTAINER_DISK_WATCH_INTERVAL": "100ms",
    }
    async for agent in running_agent(work_dir, master, **quotas):
        await master.registered()
        disk = {"name": "disk", "type": "SCALAR", "scalar": {"value": 2.0}}
        line = "head -c {} /dev/zero >file; sync; sleep 1000"
        for name, size in (("small", 1 << 20), ("large", 5 << 20)):
            launched = msgspec.to_builtins(task(name, line.format(size)), builtin_types=(bytes,))
            launched["resources"].append(disk)
            owner = msgspec.to_builtins(OWNER, builtin_types=(bytes,))
            master.say(
                msgspec.msgpack.encode({"type": "Launch", "framework": owner, "task": launched})
            )
        failed = await master.status("large", "TASK_FAILED")
        assert failed.reason == "REASON_CONTAINER_LIMITATION_DISK"
        # The agent measures while the task still writes.
        assert re.fullmatch(r"Disk usage \([2-5]MB\) exceeds quota \(2MB\)", failed.message)
        await master.status("small", "TASK_RUNNING")
        master.say(link.Kill("fw", "small"))
        await master.status("small", "TASK_KILLED")
        assert is_running(agent.pid)
