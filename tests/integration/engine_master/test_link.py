"""The agents' link over gRPC: large messages, agents that leave, peers that send nothing."""

from __future__ import annotations

import aiohttp
import grpc
import grpc.aio
import pytest

from mesaform.engine import link
from mesaform.engine.master import link_server
from mesaform.engine.registry import Registry
from mesaform.mesos.messages import AgentInfo, CommandInfo, FrameworkInfo, TaskInfo, ident, to_wire
from tests.integration.engine_master.process import (
    SIZE,
    HttpScheduler,
    LinkedAgent,
    agent_on,
    eventually,
    running,
)
from tests.support.zookeeper import free_port
from tests.unit.engine_master.world import SMALL

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]


@pytest.fixture
async def master(zookeeper_url):
    async with running(zookeeper_url) as process:
        await process.leading()
        yield process


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as client:
        yield client


async def test_an_agent_with_more_tasks_than_fit_in_grpcs_own_limit_registers(master):
    framework = FrameworkInfo(user="root", name="f", id=ident("f-1"), failover_timeout=600.0)
    tasks = [
        link.KnownTask(
            framework,
            TaskInfo(
                name="t",
                task_id=ident(f"t{number}"),
                agent_id=ident("a"),
                resources=to_wire(SMALL),
                command=CommandInfo(value="x" * 100_000),
            ),
            "TASK_RUNNING",
        )
        for number in range(60)
    ]
    register = link.Register(
        AgentInfo(hostname="big", resources=to_wire(SIZE)), None, "big:5051", "1.12.0", tasks
    )
    assert len(link.encode(register)) > 4 * 1024 * 1024
    async with LinkedAgent(f"{master.address}:{master.link_port}", register) as agent:
        assert len(master.process.term.core.state.agents[agent.id].tasks) == 60


async def test_an_agent_that_leaves_is_out_of_the_registry_and_its_tasks_are_gone(master, session):
    scheduler = await HttpScheduler.subscribe(session, master.base)
    async with agent_on(master) as agent:
        await scheduler.launch((await scheduler.events.next("OFFERS"))["offers"]["offers"][0], "t")
        await agent.receive(link.Launch)
        await agent.send(link.Leaving())
        status = (await scheduler.events.next("UPDATE"))["update"]["status"]
        assert (status["task_id"]["value"], status["state"]) == ("t", "TASK_GONE")
    assert master.process.term.core.state.registry == Registry(
        master.process.term.core.state.registry.epoch
    )
    async with session.get(f"{master.base}/metrics/snapshot") as answer:
        metrics = await answer.json()
    assert metrics["master/slave_removals/reason_unregistered"] == 1
    assert metrics["registrar/registry_size_bytes"] > 0
    assert metrics["registrar/state_store_ms"] <= metrics["registrar/state_store_ms/max"]


async def test_a_peer_that_opens_a_stream_and_says_nothing_is_let_go(master):
    server = link_server.LinkServer(lambda: master.process.term, first_message_timeout_s=0.1)
    target = f"{master.address}:{free_port(master.address)}"
    await server.start(target)
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(
            link.METHOD,
            request_serializer=link.encode,
            response_deserializer=link.decode_from_master,
        )()
        await eventually(call.done)
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    await server.stop()
