from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.scripted_engine import ScriptedEngine
from tests.unit.services.support import Server, announce


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    """A master with two agents of 4 cpus; it fails the test on a violation of the protocol."""
    async with ScriptedEngine() as engine:
        engine.add_agent("host-a", attributes={"rack": "r1"})
        engine.add_agent("host-b", attributes={"rack": "r2"})
        yield engine
        assert engine.faults == []


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def server(
    engine: ScriptedEngine, zookeeper_url: str, http: aiohttp.ClientSession
) -> AsyncIterator[Server]:
    """One services server that leads, with its state in a real ZooKeeper."""
    await announce(zookeeper_url, engine)
    async with Server("127.61.1.1", zookeeper_url, http) as server:
        await server.wait_until_leading()
        yield server
