"""The agent's end of the link: finds the leading master, keeps one stream to it, and moves to the next leader at once."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import grpc.aio

from mesaform.engine import link
from mesaform.engine.agent.config import Config
from mesaform.zookeeper.election import watch_leader
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable, split_zk_url

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 10.0
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 3.0
MISSED_PINGS = 5


@dataclass(frozen=True, slots=True)
class Leader:
    """The leading master: where its link listens, and its name for people."""

    target: str
    hostname: str


class LinkBroken(Exception):
    """The stream ended, or the other end fell silent."""


class Uplink:
    """One agent's connection.

    Args:
        config: where the masters are.
        register: makes the first message of each stream.
        on_message: takes every message; the stream is up from `Registered` on.
        on_lost: a stream that was up is gone.

    """

    def __init__(
        self,
        config: Config,
        register: Callable[[], link.Register],
        on_message: Callable[[link.FromMaster], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._config = config
        self._register = register
        self._on_message = on_message
        self._on_lost = on_lost
        self._outgoing: asyncio.Queue[link.FromAgent] | None = None
        self._moved = asyncio.Event()
        self.leader: Leader | None = None
        self.registered = False

    def send(self, message: link.FromAgent) -> None:
        """Queue a message on the stream that is up; without one it is dropped."""
        if self._outgoing is not None and self.registered:
            self._outgoing.put_nowait(message)

    async def drain(self) -> None:
        """Return when everything queued was handed to the network."""
        if self._outgoing is not None:
            await self._outgoing.join()

    async def run(self) -> None:
        """Keep connected for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_leader(), name="follow leader")
            group.create_task(self._stay_connected(), name="stay connected")

    async def _follow_leader(self) -> None:
        async for leader in _leaders(self._config):
            if leader is None:
                # A stream that is up proves its master; an election, or ZooKeeper being away, is no reason to drop it.
                log.info(
                    "no master is known to lead; staying with %s",
                    self.leader.target if self.leader else "none",
                )
            elif leader != self.leader:
                log.info("the leading master is %s", leader.target)
                self.leader = leader
                self._moved.set()

    async def _stay_connected(self) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            self._moved.clear()
            leader = self.leader
            if leader is not None:
                was_registered = await self._connect_until_moved(leader)
                backoff_s = BACKOFF_MIN_S if was_registered else min(backoff_s * 2, BACKOFF_MAX_S)
            try:
                async with asyncio.timeout(
                    None if leader is None else backoff_s * random.uniform(0.5, 1.0)  # noqa: S311
                ):
                    await self._moved.wait()
                backoff_s = BACKOFF_MIN_S
            except TimeoutError:
                pass

    async def _connect_until_moved(self, leader: Leader) -> bool:
        """Serve one stream until it breaks or another master leads; whether it was ever up."""
        self.registered = False
        up = False
        stream = asyncio.create_task(self._serve(leader), name=f"link to {leader.target}")
        moved = asyncio.create_task(self._moved.wait(), name="leader moves")
        try:
            await asyncio.wait({stream, moved}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stream, moved):
                task.cancel()
            results = await asyncio.gather(stream, moved, return_exceptions=True)
            up, self.registered = self.registered, False
            if up:
                self._on_lost()
        if isinstance(results[0], Exception):
            log.info("link to %s: %s", leader.target, _in_words(results[0]))
        return up

    async def _serve(self, leader: Leader) -> None:
        outgoing = self._outgoing = asyncio.Queue()
        async with grpc.aio.insecure_channel(leader.target, options=link.CLIENT_OPTIONS) as channel:
            call = channel.stream_stream(
                link.METHOD,
                request_serializer=link.encode,
                response_deserializer=link.decode_from_master,
            )()
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await call.write(self._register())
                answer = await call.read()
            self._take(answer)
            silence_s = (
                MISSED_PINGS * answer.ping_interval_s
                if isinstance(answer, link.Registered)
                else ANSWER_TIMEOUT_S
            )
            writer = asyncio.create_task(_write_all(call, outgoing), name="link writer")
            try:
                while True:
                    async with asyncio.timeout(silence_s):
                        message = await call.read()
                    self._take(message)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    def _take(self, message: object) -> None:
        if message is grpc.aio.EOF:
            raise LinkBroken("the master closed the stream")
        if isinstance(message, link.Registered):
            self.registered = True
        self._on_message(message)  # type: ignore[arg-type]


async def _write_all(
    call: grpc.aio.StreamStreamCall, outgoing: asyncio.Queue[link.FromAgent]
) -> None:
    while True:
        message = await outgoing.get()
        try:
            await call.write(message)
        except grpc.aio.AioRpcError:
            return  # the reader sees the same end
        finally:
            outgoing.task_done()


async def _leaders(config: Config) -> AsyncIterator[Leader | None]:
    """Who leads, now and at each change."""
    if not config.master.startswith("zk://"):
        host = config.master.removeprefix("http://").rpartition(":")[0] or config.master
        yield Leader(f"{host}:{config.link_port}", host)
        return
    hosts, path = split_zk_url(config.master)
    zk = ZooKeeper(hosts)
    while True:
        try:
            await zk.start()
            break
        except ZooKeeperUnavailable as error:
            log.warning("%s; trying again", error)
            zk = ZooKeeper(hosts)
    try:
        async for payload in watch_leader(zk, path):
            yield _leader_from(payload, config.link_port)
    finally:
        await zk.stop()


def _leader_from(payload: bytes | None, link_port: int) -> Leader | None:
    """Read MasterInfo JSON."""
    if payload is None:
        return None
    try:
        info = json.loads(payload)
        address = info["address"]
        return Leader(
            f"{address['ip']}:{link_port}",
            address.get("hostname") or info.get("hostname") or address["ip"],
        )
    except (ValueError, KeyError, TypeError) as error:
        log.warning("the leader's MasterInfo cannot be read (%r): %r", error, payload[:500])
        return None


def _in_words(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
