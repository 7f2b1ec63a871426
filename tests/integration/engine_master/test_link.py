"""The agents' link over gRPC: large messages, agents that leave, peers that send nothing."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator

import aiohttp
import grpc
import grpc.aio
import msgspec
import pytest

from harness.master_process import (
    SIZE,
    HttpScheduler,
    LinkedAgent,
    Running,
    agent_on,
    eventually,
    running,
)
from harness.ports import free_port
from mesaform.engine import link
from mesaform.engine.master import link_server
from mesaform.engine.registry import Registry
from mesaform.http import UNHANDLED
from mesaform.mesos.messages import (
    AgentInfo,
    Attribute,
    CommandInfo,
    FrameworkInfo,
    Resource,
    Scalar,
    TaskInfo,
    TaskStatus,
    Text,
    ident,
    to_wire,
)
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


async def test_at_the_end_of_a_term_agents_learn_that_the_master_leads_no_more(master):
    async with agent_on(master) as agent:
        master.process.term._close()
        assert await agent.end() == (grpc.StatusCode.UNAVAILABLE, "this master does not lead")
    assert master.process._links.rejected == 0


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


def with_cpus(value: float) -> AgentInfo:
    resource = Resource(name="cpus", type="SCALAR", scalar=Scalar(value=value))
    return AgentInfo(hostname="odd", resources=[resource])


def with_attribute(size: int) -> AgentInfo:
    large = Attribute(name="blob", type="TEXT", text=Text(value="x" * size))
    return AgentInfo(hostname="odd", attributes=[large])


BAD_FIRST_MESSAGES = {
    "NaN (C1)": link.encode(link.Register(with_cpus(math.nan), None, "odd:5051")),
    "Infinity (C1)": link.encode(link.Register(with_cpus(math.inf), None, "odd:5051")),
    "1e308 (C1)": link.encode(link.Register(with_cpus(1e308), None, "odd:5051")),
    "an attribute of 2 MB (M6)": link.encode(link.Register(with_attribute(2_000_000), None, "o:1")),
    "an id that is a path": link.encode(link.Register(AgentInfo(hostname="odd"), "/etc")),
    "bytes that are no message": b"\xc1 not a message",
    "another type": link.encode(link.Pong()),
    "a wrong field": msgspec.msgpack.encode({"type": "Register", "info": 7}),
}


@pytest.mark.parametrize("name", BAD_FIRST_MESSAGES)
async def test_a_bad_message_ends_its_own_link_with_a_reason_and_changes_nothing(master, name):
    async with agent_on(master, "good") as good:
        term = master.process.term
        before = term.core.state.registry
        async with raw_link(master) as call:
            await call.write(BAD_FIRST_MESSAGES[name])
            await eventually(call.done)
            assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert await call.details()
        assert master.process.term is term
        assert term.core.state.registry == before
        assert set(term.core.state.agents) == {good.id}
    async with agent_on(master, "later") as later:
        assert later.id in master.process.term.core.state.agents
    assert master.process.metrics()["mesaform/links_rejected"] == 1


async def test_a_bad_update_ends_the_link_of_its_agent_which_may_come_back(master):
    async with agent_on(master, "good") as good, raw_link(master) as call:
        await call.write(link.encode(link.Register(AgentInfo(hostname="odd"), None, "odd:5051")))
        registered = link.decode_from_master(await call.read())
        assert isinstance(registered, link.Registered)
        status = TaskStatus(task_id=ident("t"), state="TASK_RUNNING", timestamp=math.nan)
        await call.write(link.encode(link.Update("f", status, "TASK_RUNNING")))
        assert "timestamp" in await ended_with(call)
        agents = master.process.term.core.state.agents
        assert agents[good.id].is_connected
        assert not agents[registered.agent_id].is_connected
        async with agent_on(master, "odd", agent_id=registered.agent_id):
            assert agents[registered.agent_id].is_connected


async def test_a_peer_that_repeats_a_bad_message_waits_longer_each_time_and_others_do_not(master):
    first = BAD_FIRST_MESSAGES["another type"]
    pauses: list[float] = []
    for _ in range(4):
        async with raw_link(master) as call:
            started_at = time.monotonic()
            await call.write(first)
            async with agent_on(master, "good"):
                pass  # an agent of the same address registers meanwhile
            await call.code()
            pauses.append(time.monotonic() - started_at)
    assert pauses[-1] > 4 * link_server.REJECTION_PAUSE.first_s


async def test_a_defect_before_registration_is_counted_and_ends_its_link_only(master):
    class Defective:
        """A verifier that no proof of an agent passes or fails."""

        def __getattr__(self, name: str) -> object:
            raise KeyError(name)

    master.process._links._verifier = Defective()
    before = UNHANDLED.by_port().get(link_server.PORT, 0)
    register = link.Register(AgentInfo(hostname="h", resources=to_wire(SIZE)), None, "h:5051")
    async with raw_link(master) as call:
        await call.write(link.encode(register))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert "its log has the details" in (await call.details())
    assert UNHANDLED.by_port()[link_server.PORT] == before + 1
    UNHANDLED.clear()


async def ended_with(call: grpc.aio.StreamStreamCall) -> str:
    """The reason that the master gives at the end of a link."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return str(await call.details())


@contextlib.asynccontextmanager
async def raw_link(master: Running) -> AsyncIterator[grpc.aio.StreamStreamCall]:
    """The agents' end of the link for bytes that no agent of ours sends."""
    async with grpc.aio.insecure_channel(f"{master.address}:{master.link_port}") as channel:
        yield channel.stream_stream(link.METHOD)()
