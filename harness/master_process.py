"""A master in this process with real ZooKeeper, HTTP and gRPC, and a fake agent on the link."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Self, TypeAlias, TypeVar
from uuid import UUID

import aiohttp
import grpc.aio
import msgspec

from harness.engine_invariants import check_state
from harness.ports import free_port
from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.master.config import read_settings
from mesaform.engine.master.shell import MasterProcess
from mesaform.mesos.messages import AgentInfo, TaskStatus, ident, to_wire

JsonDict: TypeAlias = dict[str, Any]
SIZE = Resources.of(cpus=4, mem_mib=4096, disk_mib=8192, ports=[(31000, 32000)])
T = TypeVar("T")
M = TypeVar("M", bound=link.LinkMessage)
_addresses = (f"127.98.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))


class Running:
    """One master that serves; `base` is its URL."""

    def __init__(self, zk_url: str, **env: str) -> None:
        self.address = next(_addresses)
        self.port, self.link_port = free_port(self.address), free_port(self.address)
        ports = {"MESOS_PORT": str(self.port), "MESAFORM_LINK_PORT": str(self.link_port)}
        self.process = MasterProcess(
            read_settings(
                {
                    "MESOS_IP": self.address,
                    "MESOS_ZK": zk_url,
                    "MESOS_CLUSTER": "test",
                    **ports,
                    **env,
                }
            )
        )
        self.base = f"http://{self.address}:{self.port}"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        task = self._task = asyncio.create_task(self.process.run())
        await eventually(lambda: self.process.leader is not None or task.done())
        if task.done():
            task.result()

    async def leading(self) -> None:
        await eventually(lambda: self.process.term is not None)

    def check(self) -> None:
        """Check the invariants of the state, if this master leads."""
        if self.process.term is not None:
            check_state(self.process.term.core.state)

    async def stop(self) -> None:
        self.check()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


async def eventually(condition: Callable[[], T], timeout_s: float = 60.0) -> T:
    """Wait for a condition of this process to hold."""
    async with asyncio.timeout(timeout_s):
        while not (result := condition()):
            await asyncio.sleep(0.01)
    return result


class Events:
    """A RecordIO stream that is read record by record."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.seen: list[JsonDict] = []

    async def next(self, kind: str | None = None, timeout_s: float = 60.0) -> JsonDict:
        """The next record (of this kind)."""
        async with asyncio.timeout(timeout_s):
            while True:
                length = int(await self.response.content.readuntil(b"\n"))
                record = msgspec.json.decode(await self.response.content.readexactly(length))
                self.seen.append(record)
                if kind is None or record["type"] == kind:
                    return record

    async def ended(self, timeout_s: float = 60.0) -> bool:
        async with asyncio.timeout(timeout_s):
            while await self.response.content.readany():
                pass
        return True


class HttpScheduler:
    """A scheduler over HTTP."""

    def __init__(
        self, session: aiohttp.ClientSession, base: str, response: aiohttp.ClientResponse
    ) -> None:
        self.session, self.base, self.events = session, base, Events(response)
        self.headers = {"Mesos-Stream-Id": response.headers["Mesos-Stream-Id"]}
        self.id = ""

    @classmethod
    async def subscribe(
        cls,
        session: aiohttp.ClientSession,
        base: str,
        framework_id: str | None = None,
        **info: object,
    ) -> HttpScheduler:
        wanted: JsonDict = {
            "user": "root",
            "name": "f",
            "roles": ["*"],
            "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}],
        }
        wanted |= info
        body: JsonDict = {"type": "SUBSCRIBE", "subscribe": {"framework_info": wanted}}
        if framework_id is not None:
            wanted["id"] = body["framework_id"] = {"value": framework_id}
        scheduler = cls(session, base, await session.post(f"{base}/api/v1/scheduler", json=body))
        first = await scheduler.events.next()
        scheduler.id = (
            first["subscribed"]["framework_id"]["value"] if first["type"] == "SUBSCRIBED" else ""
        )
        return scheduler

    async def call(self, type_: str, **body: object) -> tuple[int, str]:
        document = {"type": type_, "framework_id": {"value": self.id}, **body}
        async with self.session.post(
            f"{self.base}/api/v1/scheduler", json=document, headers=self.headers
        ) as response:
            return response.status, await response.text()

    async def launch(self, offer: JsonDict, task_id: str) -> None:
        resources = [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
        ]
        task = {
            "name": task_id,
            "task_id": {"value": task_id},
            "agent_id": offer["agent_id"],
            "resources": resources,
            "command": {"value": "true"},
        }
        operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        status, text = await self.call(
            "ACCEPT",
            accept={
                "offer_ids": [offer["id"]],
                "operations": [operation],
                "filters": {"refuse_seconds": 0},
            },
        )
        assert status == 202, text

    async def acknowledge(self, status: JsonDict) -> None:
        body = {name: status[name] for name in ("agent_id", "task_id", "uuid")}
        assert (await self.call("ACKNOWLEDGE", acknowledge=body))[0] == 202


class LinkedAgent:
    """Speaks the agents' end of the link and nothing else."""

    def __init__(
        self,
        target: str,
        register: link.Register,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._channel = (
            grpc.aio.secure_channel(target, credentials)
            if credentials
            else grpc.aio.insecure_channel(target)
        )
        call = self._channel.stream_stream(
            link.METHOD,
            request_serializer=link.encode,
            response_deserializer=link.decode_from_master,
        )
        self._call = call()
        self._register = register
        self.id = ""
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self.send(self._register)
        self.id = (await self.receive(link.Registered)).agent_id
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._call.cancel()
        await self._channel.close()

    async def send(self, message: link.FromAgent) -> None:
        await self._call.write(message)

    async def receive(self, kind: type[M], timeout_s: float = 60.0) -> M:
        """The next message of this kind; pings are answered meanwhile."""
        async with asyncio.timeout(timeout_s):
            while True:
                message = await self._call.read()
                assert message is not grpc.aio.EOF, "the master ended the link"
                if isinstance(message, link.Ping):
                    await self.send(link.Pong())
                if isinstance(message, kind):
                    return message

    async def end(self, timeout_s: float = 60.0) -> tuple[grpc.StatusCode, str]:
        """The status and the reason with which the master ends the link."""
        async with asyncio.timeout(timeout_s):
            try:
                while await self._call.read() is not grpc.aio.EOF:
                    pass  # the status comes after the last message
            except grpc.aio.AioRpcError as error:
                return error.code(), str(error.details())
        return grpc.StatusCode.OK, ""

    async def update(self, framework_id: str, task_id: str, state: str) -> bytes:
        uuid = UUID(int=next(self._numbers), version=4).bytes
        status = TaskStatus(
            task_id=ident(task_id),
            state=state,
            source="SOURCE_EXECUTOR",
            agent_id=ident(self.id),
            uuid=uuid,
            timestamp=1.0,
        )
        await self.send(link.Update(framework_id, status, state))
        return uuid


def agent_on(
    master: Running,
    host: str = "h1",
    agent_id: str | None = None,
    tasks: Iterable[link.KnownTask] = (),
) -> LinkedAgent:
    info = AgentInfo(hostname=host, resources=to_wire(SIZE))
    return LinkedAgent(
        f"{master.address}:{master.link_port}",
        link.Register(info, agent_id, f"{host}:5051", "1.12.0", list(tasks)),
    )


@contextlib.asynccontextmanager
async def running(zk_url: str, **env: str) -> AsyncIterator[Running]:
    master = Running(zk_url, **env)
    await master.start()
    try:
        yield master
    finally:
        await master.stop()
