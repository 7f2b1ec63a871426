"""Tasks by the master's event stream are those that a complete reading gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.autoscaler.model.cluster_tasks import Tasks
from mesaform.autoscaler.observation import task_events
from mesaform.autoscaler.observation.mesos_task_parser import TaskReader, from_json
from mesaform.autoscaler.observation.task_events import FULL_EVERY_S, TaskEvents
from mesaform.mesos.operator import OperatorClient
from mesaform.mesos.recordio import Decoder, encode

HANG_S = 60.0


@dataclass
class Master:
    """Tasks of a master, and the records that its event stream has not sent yet."""

    states: dict[str, list[str]] = field(default_factory=dict)
    records: list[bytes] = field(default_factory=list)
    time: float = 1.0

    def launch(self, name: str) -> None:
        self.states[name] = []
        self._send("TASK_ADDED", {"task": self.task(name)})

    def update(self, name: str, state: str) -> None:
        self.time += 1
        self.states[name] = [*self.states[name], f"{state} {self.time}"]
        status = {"task_id": {"value": name}, "state": state, "timestamp": self.time}
        self._send(
            "TASK_UPDATED", {"framework_id": {"value": "F"}, "status": status, "state": state}
        )

    def _send(self, kind: str, body: dict[str, Any]) -> None:
        self.records.append(json.dumps({"type": kind, kind.lower(): body}).encode())

    def task(self, name: str) -> dict[str, Any]:
        statuses = [item.split() for item in self.states[name]]
        return {
            "task_id": {"value": name},
            "framework_id": {"value": "F"},
            "agent_id": {"value": "S"},
            "state": statuses[-1][0] if statuses else "TASK_STAGING",
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}}],
            "statuses": [{"state": state, "timestamp": float(at)} for state, at in statuses],
        }

    def answer(self) -> dict[str, Any]:
        tasks = [self.task(name) for name in self.states]
        return {
            "tasks": [task for task in tasks if task["state"] != "TASK_FINISHED"],
            "completed_tasks": [task for task in tasks if task["state"] == "TASK_FINISHED"],
        }


@dataclass
class Follower:
    """The tasks as the autoscaler has them, with a stream that is fed by hand."""

    master: Master
    now: float = 0.0
    reads: int = 0
    reader: TaskReader = field(default_factory=TaskReader)

    def __post_init__(self) -> None:
        self.events = TaskEvents(None, lambda: self.now)  # type: ignore[arg-type]
        self.connect()

    def connect(self) -> None:
        self._take: Callable[[bytes], None] = self.events._begin()
        self.master.records.clear()
        self._take(encode(json.dumps({"type": "SUBSCRIBED"}).encode()))

    def deliver(self, count: int | None = None) -> None:
        records = self.master.records[:count]
        del self.master.records[:count]
        for record in records:
            self._take(encode(record))

    def tasks(self, during: Callable[[], None] = lambda: None) -> Tasks:
        """What a pass sees; `during` happens while a complete list is on its way."""
        tasks = self.events.tasks(self.reader)
        if tasks is None:
            stream = self.events.begin_reading()
            self.reads += 1
            tasks = from_json(self.master.answer())
            during()
            self.events.finish_reading(stream, tasks)
        return tasks


def as_sets(tasks: Tasks) -> tuple[set[Any], set[Any]]:
    return set(tasks.running), set(tasks.over)


NEXT = {"": "TASK_STARTING", "TASK_STARTING": "TASK_RUNNING", "TASK_RUNNING": "TASK_FINISHED"}


def step(master: Master, name: str) -> None:
    """The next thing that happens to a task."""
    if name not in master.states:
        master.launch(name)
        return
    last = master.states[name][-1].split()[0] if master.states[name] else ""
    if last in NEXT:
        master.update(name, NEXT[last])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("  dpr")), max_size=40))
def test_a_pass_after_all_events_sees_what_a_complete_reading_gives(
    steps: list[tuple[str, str]],
) -> None:
    master = Master()
    follower = Follower(master)
    for name, then in steps:
        step(master, name)
        if then == "d":
            follower.deliver(1)
        elif then == "p":
            follower.tasks(during=lambda name=name: step(master, name))  # type: ignore[misc]
        elif then == "r":
            follower.connect()
    follower.deliver()
    assert as_sets(follower.tasks()) == as_sets(from_json(master.answer()))


def test_the_list_is_read_twice_a_minute_however_much_happens() -> None:
    master = Master()
    follower = Follower(master)
    for number in range(30):
        step(master, f"t{number}")
        follower.deliver()
        assert len(follower.tasks().running) == number + 1
        follower.now += 2
    assert follower.reads == 60 / FULL_EVERY_S


@pytest.mark.parametrize(
    "record",
    [
        {"type": "AGENT_REMOVED", "agent_removed": {"agent_id": {"value": "S"}}},
        {"type": "AGENT_ADDED", "agent_added": {}},
        {"type": "FRAMEWORK_REMOVED", "framework_removed": {}},
        {"type": "SOMETHING_NEW"},
        {"type": "TASK_UPDATED", "task_updated": {"state": "TASK_RUNNING"}},
        {
            "type": "TASK_UPDATED",
            "task_updated": {
                "framework_id": {"value": "F"},
                "status": {"task_id": {"value": "a"}},
                "state": "TASK_UNREACHABLE",
            },
        },
        {"type": "TASK_ADDED", "task_added": {"task": {"task_id": 7}}},
    ],
)
def test_what_the_stream_does_not_tell_of_tasks_is_read(record: dict[str, Any]) -> None:
    master = Master()
    follower = Follower(master)
    step(master, "a")
    follower.tasks()
    follower._take(encode(json.dumps(record).encode()))
    follower.tasks()
    assert follower.reads == 2


def test_a_record_that_is_too_long_is_skipped_and_what_it_said_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_events, "MAX_RECORD_BYTES", 1000)
    master = Master()
    follower = Follower(master)
    follower.tasks()
    follower._take(encode(b'{"type":"TASK_ADDED","x":"' + b"y" * 5000 + b'"}'))
    step(master, "a")
    follower.deliver()
    assert len(follower.tasks().running) == 1
    assert follower.reads == 2


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 7))
def test_records_above_a_size_are_not_kept(records: list[bytes], size: int) -> None:
    stream = b"".join(encode(record) for record in records)
    decoder = Decoder(skip_above=10)
    got = [
        record
        for start in range(0, len(stream), size)
        for record in decoder.feed(stream[start : start + size])
    ]
    assert got == [record if len(record) <= 10 else b"" for record in records]
    assert decoder.is_at_boundary


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_the_stream_is_followed_again_after_it_broke(session: aiohttp.ClientSession) -> None:
    master, streams = Master(), 0
    more = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal streams
        assert (await request.json())["type"] == "SUBSCRIBE"
        streams += 1
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(encode(b'{"type":"SUBSCRIBED"}'))
        if streams == 1:
            return response
        await more.wait()
        for record in master.records:
            await response.write(encode(record))
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_post("/api/v1", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    operator = OperatorClient([f"http://127.0.0.1:{runner.addresses[0][1]}"], session)
    events, reader = TaskEvents(operator, lambda: 0.0, pause_s=0.01), TaskReader()
    running = asyncio.create_task(events.run())
    try:
        async with asyncio.timeout(HANG_S):
            while not (streams == 2 and events.is_connected):
                await asyncio.sleep(0.01)
            events.finish_reading(events.begin_reading(), Tasks())
            master.launch("a")
            more.set()
            while not (tasks := events.tasks(reader)) or not tasks.running:
                await asyncio.sleep(0.01)
        assert [task.task_id for task in tasks.running] == ["a"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await runner.cleanup()
