"""The fuzzer finds planted faults: in a server of this test's own, and in the allocator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mesaform.engine.allocator import Allocator
from mesaform.engine.documents import Document
from mesaform.engine.master.core import Master
from mesaform.engine.master.state import Config, Ids
from mesaform.engine.registry import Registry
from tests.fuzz import core_target, ports
from tests.fuzz.campaign import Campaign, Target
from tests.fuzz.exchange import Exchange
from tests.fuzz.inputs import from_json, stored
from tests.unit.engine_master.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SEED = 20_261_127
SECONDS = 300.0
"""Limit of a search, which ends as soon as the fault is found; a loaded machine needs longer."""
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
    campaign = Campaign([Target("8080", ports.services(), exchange.request)], tmp_path)

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

    campaign = Campaign([Target("core", core_target.scripts(), perform)], tmp_path)
    campaign.run(SECONDS, SEED, lambda: bool(campaign.findings))
    kinds = [kind for _, kind in campaign.findings]
    assert any("AssertionError" in kind for kind in kinds), campaign.summary()
