from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

import aiohttp
import pytest

from mesaform.common.errors import ClusterUnreachable, Permanent, Retryable
from mesaform.common.resources import Resources
from mesaform.mesos.messages import CommandInfo, FrameworkInfo, TaskInfo, ident, to_wire
from mesaform.mesos.scheduler import FrameworkFailedOver, FrameworkRemoved, SchedulerClient
from mesaform.mesos.scheduler_api import (
    Event,
    acknowledge,
    decline,
    kill,
    launch,
    reconcile,
    revive,
    suppress,
    teardown,
)
from tests.support.scripted_engine import ScriptedEngine

INFO = FrameworkInfo(user="root", name="probe", roles=["*"], failover_timeout=60.0)


class Framework:
    """A client with its events kept, in the order in which they came."""

    def __init__(self, leader: Callable[[], Awaitable[str]], info: FrameworkInfo = INFO) -> None:
        self.leader, self.info = leader, info
        self.events: list[Event] = []
        self.react: Callable[[Event], Awaitable[None]] | None = None

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession()
        self.client = SchedulerClient(self.leader, self.info, self.session)
        self.running = asyncio.create_task(self.client.run(self._handle))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.session.close()

    async def _handle(self, event: Event) -> None:
        self.events.append(event)
        if self.react is not None:
            await self.react(event)

    async def seen(self, kind: str, count: int = 1) -> Event:
        async with asyncio.timeout(60):
            while len(events := [event for event in self.events if event.type == kind]) < count:
                assert not self.running.done(), self.running.exception()
                await asyncio.sleep(0.005)
        return events[count - 1]

    async def states_of(self, task_id: str, last: str) -> list[str]:
        async with asyncio.timeout(60):
            while True:
                states = [
                    event.update.status.state
                    for event in self.events
                    if event.update and event.update.status.task_id.value == task_id
                ]
                if last in states:
                    return states
                await asyncio.sleep(0.005)


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as engine:
        engine.add_agent()
        yield engine
        assert engine.faults == []


def a_task(event: Event, task_id: str = "t1") -> TaskInfo:
    assert event.offers is not None
    return TaskInfo(
        name=task_id,
        task_id=ident(task_id),
        agent_id=event.offers.offers[0].agent_id,
        resources=to_wire(Resources.of(cpus=1, mem_mib=64), allocated_to="*"),
        command=CommandInfo(value="true"),
    )


async def start_task(framework: Framework, task_id: str = "t1") -> None:
    event = await framework.seen("OFFERS")
    assert event.offers is not None
    await framework.client.call(
        launch(
            [offer.id.value for offer in event.offers.offers], [a_task(event, task_id)], refuse_s=0
        )
    )


async def test_a_task_is_launched_acknowledged_and_killed(engine: ScriptedEngine) -> None:
    async with Framework(engine.leader) as framework:

        async def acknowledge_all(event: Event) -> None:
            if event.update and (answer := acknowledge(event.update.status)):
                await framework.client.call(answer)

        framework.react = acknowledge_all
        await start_task(framework)
        assert await framework.states_of("t1", "TASK_RUNNING") == ["TASK_STARTING", "TASK_RUNNING"]
        await framework.client.call(kill("t1"))
        await framework.states_of("t1", "TASK_KILLED")
        await engine.until(lambda: not engine.tasks["t1"].unacknowledged)


async def test_a_broken_stream_is_reopened_with_the_same_id(
    engine: ScriptedEngine,
) -> None:
    async with Framework(engine.leader) as framework:
        first = await framework.seen("SUBSCRIBED")
        await start_task(framework)
        engine.break_streams()
        second = await framework.seen("SUBSCRIBED", 2)
        assert second.subscribed == first.subscribed
        await framework.client.call(reconcile([("t1", None)]))
        await framework.states_of("t1", "TASK_RUNNING")
        assert engine.of_type("SUBSCRIBE")[1]["framework_id"] == {
            "value": framework.client.framework_id
        }


async def test_five_missing_heartbeats_are_a_broken_stream() -> None:
    async with ScriptedEngine(heartbeat_s=0.02) as engine, Framework(engine.leader) as framework:
        await framework.seen("HEARTBEAT", 8)
        assert engine.subscribes == 1
        engine.silent = True
        await framework.seen("SUBSCRIBED", 2)


async def test_a_standby_s_redirect_is_followed(engine: ScriptedEngine) -> None:
    async with ScriptedEngine("127.61.0.2") as standby:
        standby.redirect = f"//{engine.host}:{engine.port}"
        async with Framework(standby.leader) as framework:
            await framework.seen("SUBSCRIBED")
            await framework.client.call(revive())
            assert engine.of_type("REVIVE")
            assert not standby.calls


async def test_masters_that_redirect_in_a_circle_are_asked_again_until_a_leader_exists(
    engine: ScriptedEngine,
) -> None:
    engine.redirect = engine.url
    async with Framework(engine.leader) as framework:
        await asyncio.sleep(0.05)
        assert framework.events == []
        engine.redirect = None
        await framework.seen("SUBSCRIBED")


async def test_the_leader_is_asked_for_before_each_subscription(engine: ScriptedEngine) -> None:
    async with ScriptedEngine("127.61.0.2") as next_leader:
        answers: list[ScriptedEngine | None] = [None, engine, None, next_leader]

        async def leader() -> str:
            answer = answers.pop(0)
            if answer is None:
                raise ClusterUnreachable("no leader")
            return answer.url

        async with Framework(leader) as framework:
            await framework.seen("SUBSCRIBED")
            engine.break_streams()
            await framework.seen("SUBSCRIBED", 2)
            assert next_leader.subscribes == 1


async def test_a_removed_framework_ends_the_run_with_its_own_error(engine: ScriptedEngine) -> None:
    async with Framework(engine.leader) as framework:
        await framework.seen("SUBSCRIBED")
        engine.remove_framework(str(framework.client.framework_id))
        with pytest.raises(FrameworkRemoved):
            await asyncio.wait_for(framework.running, 60)


@pytest.mark.parametrize("sends_error", [True, False])
async def test_the_end_of_the_stream_after_a_teardown_is_no_lost_connection(
    engine: ScriptedEngine, *, sends_error: bool
) -> None:
    """Apache Mesos ends the stream without an ERROR."""
    lines: list[str] = []
    engine.tells_removal = sends_error
    async with aiohttp.ClientSession() as session:
        client = SchedulerClient(engine.leader, INFO, session, lines.append)
        subscribed = asyncio.Event()

        async def handle(_event: Event) -> None:
            subscribed.set()

        running = asyncio.create_task(client.run(handle))
        await asyncio.wait_for(subscribed.wait(), 60)
        await client.call(teardown())
        await asyncio.wait_for(running, 60)
    assert [line.split()[0] for line in lines] == ["subscribed"]
    assert engine.subscribes == 1


async def test_a_framework_taken_over_by_another_scheduler_stops(engine: ScriptedEngine) -> None:
    async with Framework(engine.leader) as first:
        await first.seen("SUBSCRIBED")
        info = FrameworkInfo(
            user="root",
            name="probe",
            roles=["*"],
            failover_timeout=60.0,
            id=ident(str(first.client.framework_id)),
        )
        async with Framework(engine.leader, info) as second:
            await second.seen("SUBSCRIBED")
            with pytest.raises(FrameworkFailedOver):
                await asyncio.wait_for(first.running, 60)
            await second.client.call(suppress())
            assert second.client.is_subscribed


async def test_a_call_without_a_subscription_may_be_tried_again() -> None:
    async with aiohttp.ClientSession() as session:

        async def leader() -> str:
            raise ClusterUnreachable("nobody")

        with pytest.raises(Retryable, match="DECLINE: not subscribed"):
            await SchedulerClient(leader, INFO, session).call(decline(["o1"]))


async def test_a_call_that_a_new_leader_does_not_know_may_be_tried_again(
    engine: ScriptedEngine,
) -> None:
    async with Framework(engine.leader) as framework:
        await framework.seen("SUBSCRIBED")
        engine.frameworks.clear()
        with pytest.raises(Retryable, match="cannot be found"):
            await framework.client.call(revive())


async def test_a_handler_whose_call_did_not_get_through_makes_the_stream_anew(
    engine: ScriptedEngine,
) -> None:
    async with Framework(engine.leader) as framework:
        failures = ["once"]

        async def fail_once(event: Event) -> None:
            if event.offers and failures:
                failures.pop()
                raise Retryable("ACCEPT: connection refused", after_s=0)

        framework.react = fail_once
        await framework.seen("SUBSCRIBED", 2)
        await framework.seen("OFFERS", 2)


async def test_a_framework_that_the_master_refuses_is_an_error_at_once() -> None:
    async with ScriptedEngine() as engine:

        async def elsewhere() -> str:
            return engine.url

        bad = FrameworkInfo(user="root", name="probe", id=ident("x"))
        async with aiohttp.ClientSession(
            headers={"Mesos-Stream-Id": "must not be here"}
        ) as session:

            async def ignore(_event: Event) -> None: ...

            with pytest.raises(Permanent, match="SUBSCRIBE: 400"):
                await asyncio.wait_for(SchedulerClient(elsewhere, bad, session).run(ignore), 60)
