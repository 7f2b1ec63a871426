"""The agent's end of the link: one stream to the leading master, at every time.

It follows the leader in ZooKeeper, and moves to the next leader at once. Depends on grpc.aio and
`zookeeper.election`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import grpc.aio
import structlog

from mesaform.common.backoff import Backoff
from mesaform.engine import link
from mesaform.engine.agent.config import Config
from mesaform.engine.link_tls import channel_credentials
from mesaform.engine.link_validation import RejectedLaunch, read_from_master
from mesaform.zookeeper.election import watch_leader
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable, split_zk_url

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 10.0
RECONNECT = Backoff(first_s=0.1, cap_s=3.0, jitter=0.5)
"""Pauses between connections. Short: tasks cannot be launched here in the meantime."""
RECONNECT_REJECTED = Backoff(first_s=1.0, cap_s=60.0, jitter=0.5)
"""Pauses after a rejection: the same message is rejected again."""
FromMaster: TypeAlias = link.FromMaster | RejectedLaunch
MISSED_PINGS = 5  # as many as make the agent unreachable to the master


@dataclass(frozen=True, slots=True)
class Leader:
    """The leading master: the address of its link port, and its host name."""

    target: str
    hostname: str


class LinkBroken(Exception):
    """The stream ended, or the master sent nothing for too long."""


class Uplink:
    """One agent's connection.

    Args:
        config: has the address of the masters.
        register: makes the first message of each stream.
        on_message: receives every message. The stream is up after `Registered`.
        on_lost: called when a stream that was up has ended.

    """

    def __init__(
        self,
        config: Config,
        register: Callable[[], link.Register],
        on_message: Callable[[FromMaster], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._config = config
        self._register = register
        self._on_message = on_message
        self._on_lost = on_lost
        self._outgoing: asyncio.Queue[link.FromAgent] | None = None
        self._moved = asyncio.Event()
        self.leader: Leader | None = None
        self.is_registered = False
        #: Why the master rejected what the agent sent last; empty while it is registered.
        self.rejected = ""
        #: Invalid messages of masters.
        self.ignored = 0

    def send(self, message: link.FromAgent) -> None:
        """Queue a message on the stream that is up. Without one the message is dropped."""
        if self._outgoing is not None and self.is_registered:
            self._outgoing.put_nowait(message)

    async def drain(self) -> None:
        """Return when every queued message was passed to the network."""
        if self._outgoing is not None:
            await self._outgoing.join()

    async def run(self) -> None:
        """Stay connected. This never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_leader(), name="follow leader")
            group.create_task(self._stay_connected(), name="stay connected")

    async def _follow_leader(self) -> None:
        async for leader in _leaders(self._config):
            if leader is None:
                # A stream that is up shows that its master leads. It outlives an election and an
                # outage of ZooKeeper.
                log.info("no_leader_known", present=self.leader.target if self.leader else None)
            elif leader != self.leader:
                log.info("leader_changed", leader=leader.target)
                self.leader = leader
                self._moved.set()

    async def _stay_connected(self) -> None:
        failures = 1
        while True:
            self._moved.clear()
            leader = self.leader
            if leader is not None:
                was_registered = await self._connect_until_moved(leader)
                failures = 1 if was_registered else failures + 1
            policy = RECONNECT_REJECTED if self.rejected else RECONNECT
            pause_s = policy.delay_s(failures, random.random())  # noqa: S311
            try:
                async with asyncio.timeout(None if leader is None else pause_s):
                    await self._moved.wait()
                failures = 1
            except TimeoutError:
                pass

    async def _connect_until_moved(self, leader: Leader) -> bool:
        """Serve one stream until it breaks or another master leads.

        Return whether it was ever up.
        """
        self.is_registered = False
        was_up = False
        stream = asyncio.create_task(self._serve(leader), name=f"link to {leader.target}")
        moved = asyncio.create_task(self._moved.wait(), name="leader moves")
        try:
            await asyncio.wait({stream, moved}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stream, moved):
                task.cancel()
            results = await asyncio.gather(stream, moved, return_exceptions=True)
            was_up, self.is_registered = self.is_registered, False
            if was_up:
                self._on_lost()
        self._log_end(leader, results[0])
        return was_up

    def _log_end(self, leader: Leader, end: object) -> None:
        if not isinstance(end, Exception):
            return
        error = _describe(end)
        if _is_rejection(end):
            if error != self.rejected:
                log.error("rejected_by_master", master=leader.target, error=error)
            self.rejected = error
        else:
            log.info("link_ended", master=leader.target, error=error)

    async def _serve(self, leader: Leader) -> None:
        outgoing = self._outgoing = asyncio.Queue()
        async with self._open_channel(leader.target) as channel:
            call = channel.stream_stream(
                link.METHOD,
                request_serializer=link.encode,
                response_deserializer=None,
            )()
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await call.write(self._register())
                answer = self._take(await call.read())
            silence_s = (
                MISSED_PINGS * answer.ping_interval_s
                if isinstance(answer, link.Registered)
                else ANSWER_TIMEOUT_S
            )
            writer = asyncio.create_task(_write_all(call, outgoing), name="link writer")
            try:
                while True:
                    async with asyncio.timeout(silence_s):
                        data = await call.read()
                    self._take(data)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    def _open_channel(self, target: str) -> grpc.aio.Channel:
        """A channel with the present certificate, where the cluster has TLS.

        Raises:
            OSError: the certificate cannot be read.
            ValueError: it has another form.

        """
        tls = self._config.http.tls
        if tls is None:
            return grpc.aio.insecure_channel(target, options=link.CLIENT_OPTIONS)
        credentials = channel_credentials(tls)
        return grpc.aio.secure_channel(target, credentials, options=link.CLIENT_OPTIONS)

    def _take(self, data: bytes | object) -> FromMaster | None:
        """Handle one message. One that is invalid is logged, counted and ignored.

        Raises:
            LinkBroken: the stream has ended.

        """
        if not isinstance(data, bytes):
            raise LinkBroken("the master closed the stream")
        try:
            message = read_from_master(data)
        except link.BadMessage as error:
            self.ignored += 1
            log.warning("message_ignored", error=str(error), count=self.ignored)
            return None
        if isinstance(message, link.Registered):
            self.is_registered, self.rejected = True, ""
        self._on_message(message)
        return message


async def _write_all(
    call: grpc.aio.StreamStreamCall, outgoing: asyncio.Queue[link.FromAgent]
) -> None:
    while True:
        message = await outgoing.get()
        try:
            await call.write(message)
        except grpc.aio.AioRpcError:
            return  # the reader gets the same error
        finally:
            outgoing.task_done()


async def _leaders(config: Config) -> AsyncIterator[Leader | None]:
    """The leader, now and at each change."""
    if not config.master.startswith("zk://"):
        host = config.master.rpartition("://")[2].rpartition(":")[0] or config.master
        yield Leader(f"{host}:{config.link_port}", host)
        return
    hosts, path = split_zk_url(config.master)
    zk = ZooKeeper(hosts)
    while True:
        try:
            await zk.start()
            break
        except ZooKeeperUnavailable as error:
            log.warning("zookeeper_unavailable", error=str(error))
            zk = ZooKeeper(hosts)
    try:
        async for payload in watch_leader(zk, path):
            yield _leader_from(payload, config.link_port)
    finally:
        await zk.stop()


def _leader_from(payload: bytes | None, link_port: int) -> Leader | None:
    """The leader of a MasterInfo in JSON; None when it cannot be read."""
    if payload is None:
        return None
    try:
        info = json.loads(payload)
        address = info["address"]
        return Leader(
            f"{address['ip']}:{link_port}",
            address.get("hostname") or info.get("hostname") or address["ip"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("master_info_unreadable", error=repr(error), payload=repr(payload[:500]))
        return None


_REJECTIONS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}
"""The master does not accept what the agent sends, or its proof."""


def _is_rejection(error: Exception) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in _REJECTIONS


def _describe(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
