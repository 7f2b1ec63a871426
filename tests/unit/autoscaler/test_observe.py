"""Sources of a snapshot, mandatory and optional. Real HTTP, scripted master and services."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from harness.autoscaler_builders import NOW, a_spec
from mesaform.autoscaler.model.cluster_view import Quota
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.observer import Observer, ServicesClient
from mesaform.autoscaler.observation.task_events import TaskEvents
from mesaform.mesos.operator import OperatorClient
from mesaform.mesos.recordio import encode
from mesaform.testing.fake_cloud import FakeFleet

HANG_S = 60.0

FILTERS = {
    "*": {"min_allocatable_resources": {"quantities": [{"quantities": {"cpus": {"value": 2.0}}}]}}
}


def a_framework(name: str) -> dict[str, Any]:
    return {
        "framework_info": {"id": {"value": f"F-{name}"}, "name": name, "offer_filters": FILTERS},
        "active": True,
        "connected": True,
    }


def an_agent(*, allocated_cpus: float) -> dict[str, Any]:
    def cpus(value: float) -> list[dict[str, Any]]:
        return [{"name": "cpus", "type": "SCALAR", "scalar": {"value": value}}]

    instance = {"name": "instance_id", "type": "TEXT", "text": {"value": "i-1"}}
    return {
        "agent_info": {"id": {"value": "S-1"}, "hostname": "10.0.0.1", "attributes": [instance]},
        "active": True,
        "total_resources": cpus(2.0),
        "allocated_resources": cpus(allocated_cpus),
    }


@dataclass
class Engine:
    """Answers by call; a number is a status to refuse with."""

    answers: dict[str, Any] = field(
        default_factory=lambda: {
            "GET_FRAMEWORKS": {
                "frameworks": [a_framework("services"), a_framework("jobs"), a_framework("spark")]
            },
            "GET_MASTER": {"elected_time": 77.5},
        }
    )
    is_queue_available: bool = True
    stream: web.StreamResponse | None = None
    end: asyncio.Event = field(default_factory=asyncio.Event)
    before_agents: Callable[[], Awaitable[None]] | None = None

    async def operator(self, request: web.Request) -> web.StreamResponse:
        kind = (await request.json())["type"]
        if kind == "SUBSCRIBE":
            return await self._subscribed(request)
        if kind == "GET_AGENTS" and self.before_agents is not None:
            await self.before_agents()
        answer = self.answers.get(kind, {})
        if isinstance(answer, int):
            return web.Response(status=answer, text="not here")
        return web.json_response({"type": kind, kind.lower(): answer})

    async def _subscribed(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        self.stream = stream
        await self.send({"type": "SUBSCRIBED"})
        await self.end.wait()
        return stream

    async def send(self, event: dict[str, Any]) -> None:
        assert self.stream is not None
        await self.stream.write(encode(json.dumps(event).encode()))

    async def launch(self) -> None:
        """Launch an executor of Spark, as the master does: both answers and the stream have it."""
        task = {
            "task_id": {"value": "0"},
            "framework_id": {"value": "F-spark"},
            "agent_id": {"value": "S-1"},
            "state": "TASK_STAGING",
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 2.0}}],
        }
        self.answers["GET_TASKS"] = {"tasks": [task]}
        self.answers["GET_AGENTS"] = {"agents": [an_agent(allocated_cpus=2.0)]}
        if self.stream is not None:
            await self.send({"type": "TASK_ADDED", "task_added": {"task": task}})

    async def queue(self, _: web.Request) -> web.Response:
        app = {"id": "/web", "cpus": 1, "mem": 64}
        if not self.is_queue_available:
            raise web.HTTPServiceUnavailable
        return web.json_response({"queue": [{"app": app, "count": 2, "delay": {"overdue": True}}]})

    async def info(self, _: web.Request) -> web.Response:
        if not self.is_queue_available:
            raise web.HTTPServiceUnavailable
        return web.json_response({"frameworkId": "F-services"})


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def observer(engine: Engine) -> AsyncIterator[Observer]:
    app = web.Application()
    app.router.add_post("/api/v1", engine.operator)
    app.router.add_get("/v2/queue", engine.queue)
    app.router.add_get("/v2/info", engine.info)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        yield Observer(
            OperatorClient([base], session),
            ServicesClient([base], session),
            FakeFleet(lambda: NOW),
        )
    engine.end.set()
    await runner.cleanup()


async def test_the_view_knows_who_was_elected_when_and_what_quota_there_is(
    engine: Engine, observer: Observer
):
    engine.answers["GET_QUOTA"] = {
        "status": {"configs": [{"role": "ads", "limits": {"cpus": {"value": 4}}}]}
    }
    snapshot = await observer.snapshot(a_spec(), PlannerState(), (), None)
    assert snapshot.cluster is not None
    assert snapshot.cluster.elected_at == 77.5
    assert snapshot.cluster.quotas == (Quota("ads", (4000, None, None, None)),)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_an_engine_without_quota_or_master_info_is_read_all_the_same(
    engine: Engine, observer: Observer, status: int
):
    engine.answers |= {"GET_QUOTA": status, "GET_MASTER": status}
    snapshot = await observer.snapshot(a_spec(), PlannerState(), (), None)
    assert snapshot.cluster is not None
    assert (snapshot.cluster.quotas, snapshot.cluster.elected_at, snapshot.read_errors) == (
        (),
        0.0,
        (),
    )


async def test_the_services_framework_is_not_counted_besides_its_queue(observer: Observer):
    snapshot = await observer.snapshot(a_spec(), PlannerState(), (), None)
    assert [(entry.app, entry.count) for entry in snapshot.queue or ()] == [("/web", 2)]
    assert snapshot.cluster is not None
    assert [framework.name for framework in snapshot.cluster.frameworks] == ["jobs", "spark"]
    assert snapshot.cluster.frameworks[1].minimal == make(2)
    assert await observer.waiting() == 2


async def test_no_demand_is_inferred_while_the_queue_does_not_answer(
    engine: Engine, observer: Observer
):
    engine.is_queue_available = False
    snapshot = await observer.snapshot(a_spec(), PlannerState(), (), None)
    assert snapshot.queue is None
    assert len(snapshot.read_errors) == 1
    assert "no services answer" in snapshot.read_errors[0]
    assert snapshot.cluster is not None
    assert snapshot.cluster.frameworks == ()
    assert await observer.waiting() == 0


async def follows(events: TaskEvents) -> None:
    async with asyncio.timeout(HANG_S):
        while not events.is_connected:
            await asyncio.sleep(0)


@pytest.mark.parametrize("has_stream", [True, False])
async def test_a_task_that_starts_while_agents_are_read_is_among_the_tasks(
    engine: Engine, observer: Observer, has_stream: bool
):
    engine.answers["GET_AGENTS"] = {"agents": [an_agent(allocated_cpus=0.0)]}
    async with asyncio.TaskGroup() as group:
        if has_stream:
            observer.events = TaskEvents(observer.operator, time.monotonic)
            following = group.create_task(observer.events.run())
            await follows(observer.events)
        await observer.snapshot(a_spec(), PlannerState(), (), None)
        engine.before_agents = engine.launch
        view = (await observer.snapshot(a_spec(), PlannerState(), (), None)).cluster
        if has_stream:
            following.cancel()
    assert view is not None
    (agent,) = view.agents
    assert (agent.free[0], agent.frameworks) == (0, {"F-spark": 1})
    assert [item.tasks for item in view.frameworks if item.name == "spark"] == [1]
