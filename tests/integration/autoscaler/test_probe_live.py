"""The probe framework on a real embedded master: real ZooKeeper, HTTP and an agent's link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest

from harness.master_process import SIZE, HttpScheduler, Running, agent_on, running
from mesaform.autoscaler.model.shape import Shape, make, text
from mesaform.autoscaler.observation import mesos_parsers
from mesaform.autoscaler.observation.mesos_agent_parser import Agents
from mesaform.autoscaler.observation.mesos_framework_parser import PROBE
from mesaform.autoscaler.observation.probe_client import ProbeFramework
from mesaform.mesos.operator import OperatorClient

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]
FITS, TOO_BIG = make(2, 2048), make(8, 2048)
assert SIZE.milli["cpus"] == 4000


@contextlib.asynccontextmanager
async def probing(
    session: aiohttp.ClientSession, masters: Sequence[str]
) -> AsyncIterator[ProbeFramework]:
    outcome = ProbeFramework(masters, session)
    life = asyncio.create_task(outcome.run())
    try:
        yield outcome
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@contextlib.asynccontextmanager
async def leading(zookeeper_url: str) -> AsyncIterator[Running]:
    async with running(zookeeper_url) as master:
        await master.leading()
        yield master


async def result(probe: ProbeFramework, shape: Shape) -> bool:
    async with asyncio.timeout(60):
        while (finding := probe.findings().get(text(shape))) is None:
            await asyncio.sleep(0.02)
    return finding.offered


async def settled(probe: ProbeFramework, state: str) -> None:
    async with asyncio.timeout(60):
        while probe.state != state:
            await asyncio.sleep(0.02)


async def framework(operator: OperatorClient, kind: str = "frameworks") -> dict[str, Any] | None:
    everybody: Any = (await operator.get_frameworks()).get(kind, [])
    return next((item for item in everybody if item["framework_info"]["name"] == PROBE), None)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_it_says_what_is_to_be_had_holds_nothing_and_is_silent_after(
    zookeeper_url: str, session: aiohttp.ClientSession
):
    async with leading(zookeeper_url) as master, agent_on(master):
        operator = OperatorClient([master.base], session)
        async with probing(session, [master.base]) as probe:
            assert await framework(operator) is None, "nobody is suspected, so it is not there"
            await probe.want([FITS, TOO_BIG])
            assert await result(probe, FITS)
            assert not await result(probe, TOO_BIG)
            await settled(probe, "quiet")
            metrics = await operator.get_metrics()
            own = await framework(operator)
            assert own is not None
            prefix = f"master/frameworks/{PROBE}/{own['framework_info']['id']['value']}/"
            assert metrics[f"{prefix}roles/{PROBE}/suppressed"] == 1
            assert metrics[f"{prefix}offers/sent"] == metrics[f"{prefix}offers/declined"] == 1, (
                "smaller offers are not made at all"
            )
            assert (
                metrics["master/outstanding_offers"]
                == metrics[f"allocator/mesos/roles/{PROBE}/shares/dominant"]
                == 0
            )
            view = mesos_parsers.cluster_view(
                mesos_parsers.MasterAnswers(Agents(), (), await operator.get_frameworks(), metrics)
            )
            assert view.frameworks == (), "it does not count as demand"


async def test_what_another_framework_sits_on_is_not_to_be_had(
    zookeeper_url: str, session: aiohttp.ClientSession
):
    async with leading(zookeeper_url) as master:
        hoarder = await HttpScheduler.subscribe(session, master.base, name="hoarder")
        async with agent_on(master):
            (offer,) = (await hoarder.events.next("OFFERS"))["offers"]["offers"]
            agents: Any = await OperatorClient([master.base], session).get_agents()
            assert not agents["agents"][0].get("allocated_resources"), (
                "by what agents tell, all is free"
            )
            async with probing(session, [master.base]) as probe:
                await probe.want([FITS])
                assert not await result(probe, FITS)
            await hoarder.call(
                "DECLINE", decline={"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 60}}
            )
            async with probing(session, [master.base]) as probe:
                await probe.want([FITS])
                assert await result(probe, FITS)


async def test_a_framework_that_waits_gets_its_offer_a_round_after_the_probe(
    zookeeper_url: str, session: aiohttp.ClientSession
):
    async with (
        leading(zookeeper_url) as master,
        agent_on(master),
        probing(session, [master.base]) as probe,
    ):
        await probe.want([FITS])
        assert await result(probe, FITS)
        other = await HttpScheduler.subscribe(session, master.base, name="other")
        assert (await other.events.next("OFFERS", timeout_s=60))["offers"]["offers"]


async def test_it_is_torn_down_at_the_end_of_a_term(
    zookeeper_url: str, session: aiohttp.ClientSession
):
    async with leading(zookeeper_url) as master:
        operator = OperatorClient([master.base], session)
        async with probing(session, [master.base]) as probe:
            await probe.want([FITS])
            assert not await result(probe, FITS)
        assert await framework(operator) is None
        assert await framework(operator, "completed_frameworks") is not None


async def test_it_survives_a_change_of_master_with_its_id(
    zookeeper_url: str, session: aiohttp.ClientSession
):
    async with running(zookeeper_url, MESOS_QUORUM="1") as first:
        await first.leading()
        async with (
            running(zookeeper_url, MESOS_QUORUM="1") as second,
            probing(session, [first.base, second.base]) as probe,
        ):
            await probe.want([TOO_BIG])
            assert not await result(probe, TOO_BIG)
            before = await framework(OperatorClient([first.base], session))
            await first.stop()
            await second.leading()
            async with agent_on(second):
                await probe.want([FITS])
                assert await result(probe, FITS)
                after = await framework(OperatorClient([second.base], session))
            assert before is not None
            assert after is not None
            assert after["framework_info"]["id"] == before["framework_info"]["id"]


async def test_a_master_that_removed_it_gets_a_new_framework(
    zookeeper_url: str, session: aiohttp.ClientSession
):
    async with leading(zookeeper_url) as master, probing(session, [master.base]) as probe:
        operator = OperatorClient([master.base], session)
        await probe.want([FITS])
        assert not await result(probe, FITS)
        gone = await framework(operator)
        assert gone is not None
        await operator.call("TEARDOWN", teardown={"framework_id": gone["framework_info"]["id"]})
        await settled(probe, "away")
        await probe.want([TOO_BIG])
        assert not await result(probe, TOO_BIG)
        new = await framework(operator)
        assert new is not None
        assert new["framework_info"]["id"] != gone["framework_info"]["id"]
