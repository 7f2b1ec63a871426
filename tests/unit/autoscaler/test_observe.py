"""What a snapshot is made of: queues that must all answer, and what an engine may do without. Real HTTP, a scripted master and services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mesaform.autoscaler.model.cluster_view import QueueEntry, Quota
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.observer import Observer, ServicesClient
from mesaform.common.errors import ClusterUnreachable
from mesaform.mesos.operator import OperatorClient
from mesaform.testing.fake_cloud import FakeFleet
from tests.unit.autoscaler.builders import NOW, a_spec, queued

FILTERS = {
    "*": {"min_allocatable_resources": {"quantities": [{"quantities": {"cpus": {"value": 2.0}}}]}}
}


def a_framework(name: str) -> dict[str, Any]:
    return {
        "framework_info": {"id": {"value": f"F-{name}"}, "name": name, "offer_filters": FILTERS},
        "active": True,
        "connected": True,
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

    async def operator(self, request: web.Request) -> web.Response:
        kind = (await request.json())["type"]
        answer = self.answers.get(kind, {})
        if isinstance(answer, int):
            return web.Response(status=answer, text="not here")
        return web.json_response({"type": kind, kind.lower(): answer})

    async def queue(self, _: web.Request) -> web.Response:
        app = {"id": "/web", "cpus": 1, "mem": 64}
        return web.json_response({"queue": [{"app": app, "count": 2, "delay": {"overdue": True}}]})

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response({"frameworkId": "F-services"})


class Jobs:
    """The jobs' queue, as it will be."""

    def __init__(self, *entries: QueueEntry, answers: bool = True) -> None:
        self.entries, self.answers = entries, answers

    async def queue(self) -> tuple[QueueEntry, ...]:
        if not self.answers:
            raise ClusterUnreachable("no jobs answer")
        return self.entries

    async def framework_id(self) -> str:
        await self.queue()
        return "F-jobs"


Made = Callable[..., Observer]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def observer(engine: Engine) -> AsyncIterator[Made]:
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
        yield lambda *others: Observer(
            OperatorClient([base], session),
            ServicesClient([base], session),
            FakeFleet(lambda: NOW),
            others=tuple(others),
        )
    await runner.cleanup()


async def test_the_view_knows_who_was_elected_when_and_what_quota_there_is(
    engine: Engine, observer: Made
):
    engine.answers["GET_QUOTA"] = {
        "status": {"configs": [{"role": "ads", "limits": {"cpus": {"value": 4}}}]}
    }
    snapshot = await observer().snapshot(a_spec(), PlannerState(), (), None)
    assert snapshot.cluster is not None
    assert snapshot.cluster.elected_at == 77.5
    assert snapshot.cluster.quotas == (Quota("ads", (4000, None, None, None)),)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_an_engine_without_quota_or_master_info_is_read_all_the_same(
    engine: Engine, observer: Made, status: int
):
    engine.answers |= {"GET_QUOTA": status, "GET_MASTER": status}
    snapshot = await observer().snapshot(a_spec(), PlannerState(), (), None)
    assert snapshot.cluster is not None
    assert (snapshot.cluster.quotas, snapshot.cluster.elected_at, snapshot.read_errors) == (
        (),
        0.0,
        (),
    )


async def test_all_queues_are_one_and_their_frameworks_are_not_looked_at_besides(observer: Made):
    made = observer(Jobs(queued("nightly", 3, source="jobs")))
    snapshot = await made.snapshot(a_spec(), PlannerState(), (), None)
    assert [(entry.source, entry.app, entry.count) for entry in snapshot.queue or ()] == [
        ("services", "/web", 2),
        ("jobs", "nightly", 3),
    ]
    assert snapshot.cluster is not None
    assert [framework.name for framework in snapshot.cluster.frameworks] == ["spark"]
    assert snapshot.cluster.frameworks[0].minimal == make(2)
    assert await made.waiting() == 5


async def test_while_one_queue_does_not_answer_none_is_believed_and_nothing_is_inferred(
    observer: Made,
):
    made = observer(Jobs(answers=False))
    snapshot = await made.snapshot(a_spec(), PlannerState(), (), None)
    assert snapshot.queue is None
    assert snapshot.read_errors == ("no jobs answer",)
    assert snapshot.cluster is not None
    assert snapshot.cluster.frameworks == ()
    assert await made.waiting() == 0
