from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from mesaform.common.errors import ClusterUnreachable
from mesaform.common.resources import Resources
from mesaform.mesos import run_framework
from mesaform.mesos.run_framework import Runner
from mesaform.mesos.run_state import Change, Job
from mesaform.mesos.sandbox import Sandboxes
from tests.support.scripted_engine import ScriptedEngine


class RecordingReporter:
    """Keeps everything it receives."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.written: dict[tuple[str, str], str] = {}
        self.notes: list[str] = []

    def changed(self, change: Change) -> None:
        self.changes.append(change)

    def output(self, task: str, stream: str, text: str) -> None:
        self.written[task, stream] = self.written.get((task, stream), "") + text

    def note(self, line: str) -> None:
        self.notes.append(line)

    def ended(self, code: int) -> None: ...


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as engine:
        engine.add_agent()
        yield engine
        assert engine.faults == []
        assert not engine.frameworks, "a job left its framework behind"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def runner_for(
    engine: ScriptedEngine,
    session: aiohttp.ClientSession,
    reporter: RecordingReporter,
    instances: int = 1,
    timeout_s: float | None = None,
) -> Runner:
    job = Job("hello", ("sh", "-c", "work"), Resources.of(cpus=0.5, mem_mib=64), instances)
    sandboxes = Sandboxes([engine.url], session)
    return Runner(job, "x", engine.leader, sandboxes, session, reporter, timeout_s)


async def started(engine: ScriptedEngine, count: int = 1) -> list[str]:
    await engine.until(
        lambda: sum(task.state == "TASK_RUNNING" for task in engine.tasks.values()) == count
    )
    return list(engine.tasks)


async def test_a_task_s_output_and_exit_code_are_the_job_s(
    engine: ScriptedEngine, session: aiohttp.ClientSession
) -> None:
    reporter = RecordingReporter()
    running = asyncio.create_task(runner_for(engine, session, reporter).run(asyncio.Event()))
    [task_id] = await started(engine)
    engine.files[f"/sandbox/{task_id}/stdout"] = b"h\xc3\xa9"
    engine.files[f"/sandbox/{task_id}/stderr"] = b""
    await engine.until(lambda: reporter.written.get(("hello", "stdout")))
    engine.files[f"/sandbox/{task_id}/stdout"] += "llo ✓\n".encode() * 20_000
    engine.finish(task_id, "TASK_FAILED", "Command exited with status 3")
    assert await asyncio.wait_for(running, 60) == 3
    assert reporter.written["hello", "stdout"] == "hé" + "llo ✓\n" * 20_000
    assert [change.state for change in reporter.changes] == [
        "TASK_STAGING",
        "TASK_STARTING",
        "TASK_RUNNING",
        "TASK_FAILED",
    ]


async def test_an_interrupt_kills_the_tasks_and_exits_130(
    engine: ScriptedEngine, session: aiohttp.ClientSession
) -> None:
    interrupted, reporter = asyncio.Event(), RecordingReporter()
    running = asyncio.create_task(runner_for(engine, session, reporter, 3).run(interrupted))
    for task_id in await started(engine, 3):
        engine.files[f"/sandbox/{task_id}/stdout"] = engine.files[f"/sandbox/{task_id}/stderr"] = (
            b""
        )
    interrupted.set()
    assert await asyncio.wait_for(running, 60) == 130
    assert {task.state for task in engine.tasks.values()} == {"TASK_KILLED"}
    assert len(engine.of_type("KILL")) == 3


async def test_a_time_out_kills_the_tasks_and_exits_124(
    engine: ScriptedEngine, session: aiohttp.ClientSession
) -> None:
    running = asyncio.create_task(
        runner_for(engine, session, RecordingReporter(), timeout_s=0.3).run(asyncio.Event())
    )
    for task_id in await started(engine):
        engine.files[f"/sandbox/{task_id}/stdout"] = engine.files[f"/sandbox/{task_id}/stderr"] = (
            b""
        )
    assert await asyncio.wait_for(running, 60) == 124
    assert not engine.live()


async def test_a_job_survives_a_broken_stream(
    engine: ScriptedEngine, session: aiohttp.ClientSession
) -> None:
    reporter = RecordingReporter()
    running = asyncio.create_task(runner_for(engine, session, reporter).run(asyncio.Event()))
    [task_id] = await started(engine)
    engine.files[f"/sandbox/{task_id}/stdout"] = engine.files[f"/sandbox/{task_id}/stderr"] = b""
    engine.break_streams()
    await engine.until(lambda: engine.subscribes == 2 and engine.of_type("RECONCILE"))
    engine.finish(task_id)
    assert await asyncio.wait_for(running, 60) == 0
    assert [note.partition(";")[0].partition(" to 127")[0] for note in reporter.notes] == [
        "no connection to a leading master",
        "subscribed",
    ]


async def test_an_interrupt_while_nothing_fits_leaves_nothing_behind(
    engine: ScriptedEngine, session: aiohttp.ClientSession
) -> None:
    interrupted = asyncio.Event()
    runner = runner_for(engine, session, RecordingReporter())
    engine.agents.clear()
    running = asyncio.create_task(runner.run(interrupted))
    await engine.until(lambda: engine.frameworks)
    interrupted.set()
    assert await asyncio.wait_for(running, 60) == 130
    assert engine.of_type("TEARDOWN")


async def test_a_job_begun_while_masters_elect_waits_for_the_leader(
    engine: ScriptedEngine, session: aiohttp.ClientSession
) -> None:
    reporter, answers = RecordingReporter(), [ClusterUnreachable("no leading master answers")]
    runner = runner_for(engine, session, reporter)

    async def leader() -> str:
        if answers:
            raise answers.pop()
        return engine.url

    runner.leader = leader
    running = asyncio.create_task(runner.run(asyncio.Event()))
    [task_id] = await started(engine)
    engine.files[f"/sandbox/{task_id}/stdout"] = engine.files[f"/sandbox/{task_id}/stderr"] = b""
    engine.finish(task_id)
    assert await asyncio.wait_for(running, 60) == 0
    assert reporter.notes == ["no leading master answers; waiting up to 15 s for a leader"]


async def test_a_job_ends_with_an_error_when_the_cluster_is_taken_down(
    engine: ScriptedEngine, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_framework, "GONE_LOOK_S", 0.01)
    runner = runner_for(engine, session, RecordingReporter())
    looks: list[int] = []

    async def is_gone() -> bool:
        looks.append(1)
        return True

    is_down = asyncio.Event()

    async def leader() -> str:
        if is_down.is_set():
            raise ClusterUnreachable("no leading master answers")
        return engine.url

    runner.is_gone, runner.leader = is_gone, leader
    running = asyncio.create_task(runner.run(asyncio.Event()))
    [task_id] = await started(engine)
    assert not looks, "a connected job asked whether its cluster is gone"
    engine.files[f"/sandbox/{task_id}/stdout"] = engine.files[f"/sandbox/{task_id}/stderr"] = b""
    is_down.set()
    engine.break_streams()
    with pytest.raises(ClusterUnreachable, match="taken down"):
        await asyncio.wait_for(running, 60)
    engine.frameworks.clear()  # the masters are gone, so nobody tore the framework down


async def test_a_missing_leader_is_an_error(session: aiohttp.ClientSession) -> None:
    async def nobody() -> str:
        raise ClusterUnreachable("no leading master answers")

    job = Job("hello", ("true",), Resources.of(cpus=1))
    with pytest.raises(ClusterUnreachable):
        await Runner(
            job, "x", nobody, Sandboxes([], session), session, RecordingReporter(), leader_wait_s=0
        ).run(asyncio.Event())


async def test_unreadable_output_is_noted_and_the_exit_code_stays(
    engine: ScriptedEngine, session: aiohttp.ClientSession
) -> None:
    reporter = RecordingReporter()
    runner = runner_for(engine, session, reporter)
    runner.sandboxes = Sandboxes(["http://127.61.9.9:9"], session)
    running = asyncio.create_task(runner.run(asyncio.Event()))
    [task_id] = await started(engine)
    engine.finish(task_id, "TASK_FAILED", "Command terminated with signal Killed")
    assert await asyncio.wait_for(running, 60) == 137
    assert "the output of hello cannot be read: http://127.61.9.9:9" in reporter.notes[-1]
