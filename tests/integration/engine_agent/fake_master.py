"""A leading master at the other end of the link, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import grpc
import grpc.aio

from mesaform.engine import link
from mesaform.mesos.messages import TERMINAL_STATES, FrameworkInfo, TaskInfo, TaskStatus
from tests.unit.engine_agent.builders import AGENT_ID


class FakeMaster:
    """Takes one agent at a time; every update that came, in order, is in `updates`.

    Args:
        host: an address of the test's own.

    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 0
        self.refuse = ""
        #: Why the proof of an agent is not accepted.
        self.deny = ""
        self.denials = 0
        self.acknowledges = True
        self.registrations: list[link.Register] = []
        self.updates: list[link.Update] = []
        self.others: list[link.FromAgent] = []
        self._server: grpc.aio.Server | None = None
        self._to_agent: asyncio.Queue[link.FromMaster | bytes | None] = asyncio.Queue()
        self._news = asyncio.Condition()

    async def start(self) -> None:
        server = self._server = grpc.aio.server(options=link.SERVER_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=link.decode_from_agent,
            response_serializer=_encode,
        )
        service, method = link.METHOD.strip("/").split("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        self.port = server.add_insecure_port(f"{self.host}:{self.port}")
        await server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(grace=None)

    def say(self, message: link.FromMaster | bytes) -> None:
        """Send a message, or bytes that no master of ours sends."""
        self._to_agent.put_nowait(message)

    def drop_link(self) -> None:
        self._to_agent.put_nowait(None)

    def launch(self, info: TaskInfo, owner: FrameworkInfo) -> None:
        self.say(link.Launch(owner, info))

    def acknowledge(self, update: link.Update) -> None:
        self.say(
            link.Acknowledge(
                update.framework_id, update.status.task_id.value, update.status.uuid or b""
            )
        )

    async def registered(self, times: int = 1) -> link.Register:
        await self._until(lambda: len(self.registrations) >= times)
        return self.registrations[-1]

    async def denied(self, times: int) -> None:
        await self._until(lambda: self.denials >= times)

    async def status(self, task_id: str, state: str, **more: object) -> TaskStatus:
        """The first status of that task in that state (and with those attributes)."""

        def find() -> TaskStatus | None:
            for update in self.updates:
                status = update.status
                if (status.task_id.value, status.state) == (task_id, state) and all(
                    getattr(status, name) == value for name, value in more.items()
                ):
                    return status
            return None

        await self._until(lambda: find() is not None)
        match = find()
        assert match is not None
        return match

    async def terminal_status(self, task_id: str) -> TaskStatus:
        """The status with which a task ended."""

        def ended() -> list[TaskStatus]:
            statuses = (update.status for update in self.updates)
            return [
                status
                for status in statuses
                if status.task_id.value == task_id and status.state in TERMINAL_STATES
            ]

        await self._until(lambda: bool(ended()))
        return ended()[0]

    async def heard(self, kind: type[link.FromAgent]) -> None:
        await self._until(lambda: any(isinstance(message, kind) for message in self.others))

    async def _until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(done)

    async def _connect(
        self, requests: AsyncIterator[link.FromAgent], context: grpc.aio.ServicerContext
    ) -> None:
        first = await anext(aiter(requests))
        assert isinstance(first, link.Register)
        if self.deny:
            await self._change(self._count_denial)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, self.deny)
        self._to_agent = asyncio.Queue()
        await context.write(
            link.Refused(self.refuse)
            if self.refuse
            else link.Registered(first.agent_id or AGENT_ID, 15.0)
        )
        await self._change(lambda: self.registrations.append(first))
        reader = asyncio.create_task(self._read(requests))
        try:
            while (message := await self._to_agent.get()) is not None:
                await context.write(message)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _count_denial(self) -> None:
        self.denials += 1

    async def _read(self, requests: AsyncIterator[link.FromAgent]) -> None:
        try:
            async for message in requests:
                if isinstance(message, link.Update):
                    await self._change(partial(self.updates.append, message))
                    if self.acknowledges:
                        self.acknowledge(message)
                else:
                    await self._change(partial(self.others.append, message))
        finally:
            self._to_agent.put_nowait(None)

    async def _change(self, change: Callable[[], None]) -> None:
        async with self._news:
            change()
            self._news.notify_all()


def _encode(message: link.FromMaster | bytes) -> bytes:
    return message if isinstance(message, bytes) else link.encode(message)
