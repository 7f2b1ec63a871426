"""The inbox: messages wait for a pass, leave the queue after it, and none stops the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import ClientSession, web

from harness.autoscaler_builders import NOW
from mesaform.autoscaler.model.notice import Notice
from mesaform.autoscaler.observation.notice_endpoint import NoticeEndpoint
from mesaform.autoscaler.observation.notice_queue import MOST_PENDING, Inbox, run_in_daemon_thread
from mesaform.autoscaler.observation.shutdown_endpoint import ShutdownEndpoint
from mesaform.autoscaler.reporting.http_server import http_port
from mesaform.aws.ports import ScheduledEvent
from mesaform.common.errors import NotFound, Retryable
from mesaform.http import HttpServer
from mesaform.testing.fake_cloud import FakeNotices
from mesaform.topology.instance_identity import identity_header
from mesaform.topology.user_data import (
    NOTICES_PATH,
    SHUTDOWN_REPORTS_PATH,
    MachineNotice,
    ShutdownReport,
)
from tests.support.instances import Account
from tests.unit.autoscaler.test_notice import an_event

OURS = {"i-1": "127.0.0.1", "i-2": "10.0.0.2"}
TOLD = MachineNotice("i-1", "interruption", NOW, NOW + 30, "spot interruption (terminate)")


class World:
    """A queue, an inbox on it, and time."""

    def __init__(self, most_pending: int = MOST_PENDING) -> None:
        self.now = NOW
        self.queue = FakeNotices(lambda: self.now)
        self.inbox = Inbox(self.queue, lambda: self.now, patience_s=0.0, most_pending=most_pending)
        self.inbox.update(OURS, {})

    async def receive(self) -> None:
        await self.inbox._receive()

    async def passes(self) -> list[str]:
        """A pass that takes everything; the machines that it heard of."""
        heard = self.inbox.take()
        await self.inbox.settle()
        return sorted(notice.instance_id for item in heard for notice in item.notices)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_message_leaves_the_queue_only_after_a_pass_remembered_it(world):
    world.queue.send(an_event())
    await world.receive()
    assert world.queue.left == ["m-1"]
    assert [item.notices[0].instance_id for item in world.inbox.take()] == ["i-1"]
    assert world.queue.left == ["m-1"]
    await world.inbox.settle()
    assert world.queue.left == []


async def test_a_pass_that_fails_leaves_them_to_the_next(world):
    world.queue.send(an_event())
    await world.receive()
    world.inbox.take()
    assert await world.passes() == ["i-1"]
    assert await world.passes() == []


async def test_what_an_inbox_has_no_place_for_stays_in_the_queue():
    world = World(most_pending=2)
    for number in range(1, 6):
        world.queue.send(an_event(**{"instance-id": f"i-{number}"}))
        await world.receive()
    assert len(world.inbox.take()) == 2
    await world.inbox.settle()
    await world.receive()
    assert len(world.inbox.take()) == 3
    assert world.queue.left == ["m-3", "m-4", "m-5"]


async def test_what_comes_during_a_pass_waits_for_the_next(world):
    world.queue.send(an_event())
    await world.receive()
    world.inbox.take()
    world.queue.send(an_event(**{"instance-id": "i-2"}))
    await world.receive()
    await world.inbox.settle()
    assert world.queue.left == ["m-2"]
    assert await world.passes() == ["i-2"]


async def test_a_message_that_comes_again_is_one(world):
    world.queue.send(an_event())
    await world.receive()
    world.now += 11
    await world.receive()
    assert await world.passes() == ["i-1"]
    assert world.queue.left == []


async def test_a_message_that_nobody_can_read_is_deleted_and_stops_no_other(world):
    for body in (
        "nonsense",
        an_event(),
        an_event("EC2 Something Else"),
        an_event(**{"instance-id": "i-2"}),
    ):
        world.queue.send(body)
    await world.receive()
    assert sorted(world.queue.left) == ["m-2", "m-4"]
    assert await world.passes() == ["i-1", "i-2"]


async def test_states_of_strangers_leave_at_once_and_wake_nobody(world):
    world.queue.send(
        an_event(
            "EC2 Instance State-change Notification", state="terminated", **{"instance-id": "i-9"}
        )
    )
    await world.receive()
    assert world.queue.left == []
    assert not world.inbox.woken.is_set()


@pytest.mark.parametrize(
    "kind", ["EC2 Spot Instance Interruption Warning", "EC2 Instance State-change Notification"]
)
async def test_what_concerns_a_machine_of_ours_wakes_the_daemon(world, kind):
    world.queue.send(an_event(kind))
    await world.receive()
    assert world.inbox.woken.is_set()
    world.inbox.take()
    assert not world.inbox.woken.is_set()


async def test_a_notice_of_a_machine_not_known_yet_waits_for_a_pass_without_waking_one(world):
    world.queue.send(an_event(**{"instance-id": "i-new"}))
    await world.receive()
    assert not world.inbox.woken.is_set()
    assert await world.passes() == ["i-new"]


async def test_before_the_first_pass_everything_wakes():
    world = World()
    world.inbox = Inbox(world.queue, lambda: NOW)
    world.queue.send(an_event())
    await world.receive()
    assert world.inbox.woken.is_set()


async def test_a_delete_that_fails_is_no_trouble(world):
    world.queue.send(an_event())
    await world.receive()
    world.queue.fail_next = Retryable("throttled", after_s=1.0)
    assert await world.passes() == ["i-1"]
    world.now += 11
    await world.receive()
    assert await world.passes() == ["i-1"]
    assert world.queue.left == []


@pytest.mark.parametrize(
    "trouble", [NotFound("no queue"), Retryable("throttled", after_s=0.0), RuntimeError("ours")]
)
async def test_listening_goes_on_after_any_trouble(world, trouble):
    world.queue.fail_next = trouble
    world.queue.send(an_event())
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(world.inbox.listen())
        await world.inbox.woken.wait()
        listening.cancel()


async def test_ec2s_schedule_is_heard_unless_it_is_known(world):
    world.queue.events = [ScheduledEvent("i-1", "instance-retirement", NOW + 86400)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(world.inbox.watch_schedule())
        await world.inbox.woken.wait()
        watching.cancel()
    (heard,) = world.inbox.take()
    (notice,) = heard.notices
    assert (notice.kind, notice.ends_at, notice.source, notice.what) == (
        "scheduled",
        NOW + 86400,
        "ec2",
        "instance retirement",
    )
    await world.inbox.settle()
    world.inbox.update(OURS, {"i-1": notice})
    world.inbox._scheduled(world.queue.events[0])
    assert world.inbox.take() == []
    world.inbox._scheduled(ScheduledEvent("i-1", "instance-retirement", NOW + 3600))
    assert len(world.inbox.take()) == 1


def test_a_machine_is_believed_about_itself_only(world):
    assert world.inbox.report(TOLD, "127.0.0.1") is False
    for address in ("10.0.0.2", ""):
        with pytest.raises(PermissionError):
            world.inbox.report(TOLD, address)
    with pytest.raises(PermissionError):
        world.inbox.report(msgspec.structs.replace(TOLD, instance_id="i-9"), "127.0.0.1")


def test_before_the_first_pass_no_machine_is_believed(world):
    fresh = Inbox(world.queue, lambda: NOW)
    assert fresh.report(TOLD, "127.0.0.1") is False
    assert fresh.take() == []


def test_a_machine_may_stop_telling_once_it_is_remembered(world):
    assert world.inbox.report(TOLD, "127.0.0.1") is False
    later = Notice("interruption", "i-1", NOW, NOW + 120, "queue", "reported")
    world.inbox.update(OURS, {"i-1": later})
    assert world.inbox.report(TOLD, "127.0.0.1") is False  # it knows the end better
    world.inbox.update(
        OURS, {"i-1": Notice("interruption", "i-1", NOW, NOW + 30, "machine", "reported")}
    )
    assert world.inbox.report(TOLD, "127.0.0.1") is True
    assert (
        world.inbox.report(MachineNotice("i-1", "rebalance", NOW, 0.0, "advice"), "127.0.0.1")
        is True
    )


@asynccontextmanager
async def served(endpoint: NoticeEndpoint | ShutdownEndpoint) -> AsyncIterator[ClientSession]:
    server = HttpServer(endpoint.add_to(web.Application()), http_port(9550))
    port = await server.listen("127.0.0.1", 0)
    async with ClientSession(f"http://127.0.0.1:{port}") as client:
        yield client
    await server.stop()


async def test_only_the_leader_accepts_reports_of_machines_over_http(world):
    endpoint = NoticeEndpoint()
    body = msgspec.json.encode(TOLD)
    async with served(endpoint) as client:
        assert (await client.post(NOTICES_PATH, data=body)).status == 503
        endpoint.inbox = world.inbox
        answer = await client.post(NOTICES_PATH, data=body)
        assert (answer.status, await answer.json()) == (200, {"known": False})
        assert world.inbox.woken.is_set()
        assert (await client.post(NOTICES_PATH, data=b"nonsense")).status == 400
        assert (
            await client.post(
                NOTICES_PATH, data=json.dumps({**msgspec.to_builtins(TOLD), "kind": "odd"})
            )
        ).status == 400
        for wrong in ({"at": 1e308}, {"ends_at": -1}, {"instance_id": ""}, {"what": "x" * 201}):
            body = msgspec.json.encode(msgspec.to_builtins(TOLD) | wrong)
            assert (await client.post(NOTICES_PATH, data=body)).status == 400
        other = msgspec.json.encode(msgspec.structs.replace(TOLD, instance_id="i-2"))
        assert (await client.post(NOTICES_PATH, data=other)).status == 403
    assert await world.passes() == ["i-1"]


async def test_a_notice_without_the_machines_proof_is_refused(world, tmp_path):
    account = Account(tmp_path)
    endpoint = NoticeEndpoint(account.verifier)
    endpoint.inbox = world.inbox
    body = msgspec.json.encode(TOLD)
    own, other = account.proof("i-1", "127.0.0.1"), account.proof("i-2", "127.0.0.1")
    async with served(endpoint) as client:
        for proof in (None, other, account.proof("i-1", "10.0.0.1")):
            answer = await client.post(NOTICES_PATH, data=body, headers=identity_header(proof))
            assert answer.status == 403
        damaged = {"Mesaform-Instance-Identity": "x"}
        assert (await client.post(NOTICES_PATH, data=body, headers=damaged)).status == 403
        answer = await client.post(NOTICES_PATH, data=body, headers=identity_header(own))
        assert answer.status == 200
    assert await world.passes() == ["i-1"]


async def test_a_machine_reports_its_shutdown_to_any_autoscaler_with_its_proof(tmp_path):
    account = Account(tmp_path)
    stored: list[ShutdownReport] = []

    async def store(report: ShutdownReport) -> None:
        stored.append(report)

    report = ShutdownReport("i-1", NOW, 600.0, 700.0, 60.0)
    body = msgspec.json.encode(report)
    endpoint = ShutdownEndpoint(store, account.verifier)
    async with served(endpoint) as client:
        other = identity_header(account.proof("i-2", "127.0.0.1"))
        for headers in ({}, other):
            answer = await client.post(SHUTDOWN_REPORTS_PATH, data=body, headers=headers)
            assert answer.status == 403
        own = identity_header(account.proof("i-1", "127.0.0.1"))
        assert (await client.post(SHUTDOWN_REPORTS_PATH, data=body, headers=own)).status == 204
    assert stored == [report]


async def test_blocking_work_beside_hands_back_its_result_or_its_error():
    assert await run_in_daemon_thread(lambda: 7) == 7
    with pytest.raises(KeyError):
        await run_in_daemon_thread(lambda: {"present": 1}["absent"])
