"""The fuzzer finds planted faults: in an HTTP server, on the agents' link, in records, in the core.

Each is one that the project had or could have: an unbounded number, a call that is never answered,
a message and a record that are used without a check, resources that are forgotten.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import msgspec
import pytest
from aiohttp import web

from harness.ports import free_port
from mesaform.common.records import Codec, Unreadable
from mesaform.engine import link
from mesaform.engine.allocator import Allocator
from mesaform.engine.documents import Document
from mesaform.engine.master.core import Master
from mesaform.engine.master.link_server import LinkServer
from mesaform.engine.master.state import Config, Ids
from mesaform.engine.master.term import CallFailed, EndOfLink, Term
from mesaform.engine.registry import Registry
from mesaform.http import UNHANDLED
from tests.fuzz import core_target, link_target, ports, record_target
from tests.fuzz.campaign import Campaign, Target
from tests.fuzz.exchange import Exchange
from tests.fuzz.inputs import from_json, stored
from tests.unit.engine_master.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SEED = 20_261_127
SECONDS = 300.0
"""Limit of a search, which ends as soon as the fault is found; a loaded machine needs longer."""
SHRINK_S = 0.2
HOST = "127.0.0.1"


class FaultyServer:
    """Port 8080 with two faults: large numbers of instances, and one app that it never answers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            body: Any = await request.json()
        except (ValueError, web.HTTPException):
            return web.Response(status=400)
        if isinstance(body, dict) and isinstance(body.get("instances"), int):
            body["instances"].to_bytes(8, "big", signed=True)  # the planted fault
        if isinstance(body, dict) and body.get("cmd") == "exit 3":
            await asyncio.Event().wait()  # the other one
        return web.Response()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, HOST, 0, shutdown_timeout=0.1)
        self._loop.run_until_complete(site.start())
        self.port = self._runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)


@pytest.fixture
def faulty_server() -> Iterator[FaultyServer]:
    server = FaultyServer()
    yield server
    server.stop()


def test_an_exception_and_a_missing_answer_are_found_and_stored(
    faulty_server: FaultyServer, tmp_path: Path
) -> None:
    exchange = Exchange((HOST, faulty_server.port), timeout_s=0.3)
    campaign = Campaign(
        [Target("8080", ports.services(), exchange.request)], tmp_path, shrink_s=SHRINK_S
    )

    def is_found() -> bool:
        kinds = {kind.partition(" ")[0] for _, kind in campaign.findings}
        return {"500", "no"} <= kinds

    campaign.run(SECONDS, SEED, is_found)
    assert is_found(), campaign.summary()
    assert len(campaign.store()) == len(stored(tmp_path))
    for path in stored(tmp_path):
        target, value = from_json(path.read_bytes())
        assert value in [finding.value for finding in campaign.findings.values()], (target, path)


class ForgetfulAllocator(Allocator):
    """An allocator with a planted fault: what a declined offer held is not available again."""

    def recover(self, *_arguments: Any, **_options: Any) -> None:
        """Forget it."""


class ForgetfulWorld(World):
    """A master with that allocator."""

    def __init__(self) -> None:
        super().__init__()
        info: Document = {"id": "m", "hostname": "h", "address": {"ip": HOST, "port": 5050}}
        self.master = Master(
            info, Ids("m"), Registry(), ForgetfulAllocator(), Config(), now=self.now
        )


def test_an_allocator_that_forgets_resources_is_found(tmp_path: Path) -> None:
    def perform(script: Any) -> Any:
        return core_target.perform(script, ForgetfulWorld)

    campaign = Campaign(
        [Target("core", core_target.scripts(), perform)], tmp_path, shrink_s=SHRINK_S
    )
    campaign.run(SECONDS, SEED, lambda: bool(campaign.findings))
    kinds = [kind for _, kind in campaign.findings]
    assert any("AssertionError" in kind for kind in kinds), campaign.summary()


class TrustingLinkServer(LinkServer):
    """The agents' link with a planted fault: the first message is decoded and not validated."""

    async def _first_message(self, requests: AsyncIterator[bytes]) -> link.Register:
        try:
            message = link.decode_from_agent(await anext(aiter(requests), b""))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise link.BadMessage(str(error)) from error
        if not isinstance(message, link.Register):
            raise link.BadMessage("the first message must be Register")
        return message

    async def _reject(self, context: Any, why: str, code: grpc.StatusCode) -> None:
        """Without the pause, which would only make the search longer."""
        await context.abort(code, why[:100])


class TrustingTerm:
    """A term that takes an agent's address and amounts as they are, and ends its link."""

    is_over = False

    def __init__(self) -> None:
        self.links: dict[str, Any] = {}

    def handle(self, event: Any) -> None:
        """Register an agent."""
        try:
            int(event.register.address.rpartition(":")[2] or 0)
            for resource in event.register.info.resources:
                if resource.scalar is not None:
                    round(resource.scalar.value * 1000)
        except Exception as error:
            raise CallFailed from error
        self.links[event.link_id].put_nowait(EndOfLink())

    def link_closed(self, link_id: str) -> None:
        """Forget a link."""
        del self.links[link_id]


@pytest.fixture
def trusting_link() -> Iterator[int]:
    """The port of such a server, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    term, port = TrustingTerm(), free_port(HOST)

    async def start() -> LinkServer:
        server = TrustingLinkServer(lambda: cast("Term", term))
        await server.start(f"{HOST}:{port}")
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    yield port
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    UNHANDLED.clear()


def test_a_link_message_that_is_used_without_a_check_is_found(
    trusting_link: int, tmp_path: Path
) -> None:
    perform = partial(link_target.perform, (HOST, trusting_link), deadline_s=60.0)
    target = Target("link", link_target.streams(), perform, has_variants=False)
    campaign = Campaign([target], tmp_path, shrink_s=SHRINK_S)
    campaign.run(SECONDS, SEED, lambda: bool(campaign.findings))
    assert [kind for _, kind in campaign.findings] == ["500 Messages"], campaign.summary()
    assert len(campaign.store()) == 1


@dataclass(frozen=True)
class Plan:
    """A record that somebody stored."""

    counts: dict[str, int]
    names: tuple[str, ...] = ()


class TrustingCodec(Codec[Plan]):
    """A codec with a planted fault: it computes with numbers whose range nothing limits."""

    def decode(self, data: bytes) -> Plan | Unreadable:
        """The value of a record."""
        value = super().decode(data)
        if not isinstance(value, Unreadable) and value.counts:
            value.counts[min(value.counts)].to_bytes(4, "big")
        return value


def test_a_record_that_is_used_without_a_check_is_found(tmp_path: Path) -> None:
    codec = TrustingCodec("test.plan", Plan)
    inputs = record_target.records_of(codec)
    perform = partial(record_target.perform_with, codec)
    campaign = Campaign([Target("records", inputs, perform)], tmp_path, shrink_s=SHRINK_S)
    campaign.run(SECONDS, SEED, lambda: bool(campaign.findings))
    kinds = [kind for _, kind in campaign.findings]
    assert any("OverflowError" in kind for kind in kinds), campaign.summary()
    assert len(campaign.store()) == len(stored(tmp_path))
