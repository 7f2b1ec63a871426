"""The operator client against small servers with the same protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from mesaform.common.errors import ClusterUnreachable, NotFound, Permanent, Retryable
from mesaform.common.json_types import JsonObject
from mesaform.mesos.operator import OperatorClient

HOST = "127.61.0.1"


@dataclass
class Master:
    """A master that leads, or stands by for `leader`, or knows no leader. It records its calls."""

    leads: bool = False
    leader: Master | None = None
    refusal: tuple[int, str] | None = None
    calls: list[JsonObject] = field(default_factory=list)
    base: str = ""
    runner: web.AppRunner | None = None

    async def start(self) -> Master:
        app = web.Application()
        app.router.add_post("/api/v1", self.answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, HOST, 0)
        await site.start()
        self.base = f"http://{HOST}:{self.runner.addresses[0][1]}"
        return self

    async def answer(self, request: web.Request) -> web.Response:
        if not self.leads:
            if self.leader is None:
                return web.Response(status=503, text="No leader elected")
            where = self.leader.base.removeprefix("http:")
            return web.Response(status=307, headers={"Location": f"{where}/master/api/v1"})
        call = await request.json()
        self.calls.append(call)
        if self.refusal:
            return web.Response(status=self.refusal[0], text=self.refusal[1])
        if call["type"] == "GET_AGENTS":
            return web.json_response(
                {"type": "GET_AGENTS", "get_agents": {"agents": [{"active": True}]}}
            )
        if call["type"] == "GET_METRICS":
            return web.json_response(
                {
                    "type": "GET_METRICS",
                    "get_metrics": {"metrics": [{"name": "master/elected", "value": 1.0}]},
                }
            )
        return web.Response(status=200)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def masters() -> AsyncIterator[list[Master]]:
    leader = await Master(leads=True).start()
    standby = await Master(leader=leader).start()
    lost = await Master().start()
    yield [lost, standby, leader]
    for master in (leader, standby, lost):
        assert master.runner
        await master.runner.cleanup()


async def test_the_client_reaches_the_leader_among_standby_masters(masters, session):
    client = OperatorClient([master.base for master in masters], session)
    assert await client.get_agents() == {"agents": [{"active": True}]}
    assert await client.leader() == masters[2].base
    assert await client.get_metrics() == {"master/elected": 1.0}


async def test_a_redirect_is_followed_only_when_none_of_the_given_masters_leads(masters, session):
    _, standby, leader = masters
    client = OperatorClient([standby.base], session)
    assert await client.call("GET_AGENTS") == {
        "type": "GET_AGENTS",
        "get_agents": {"agents": [{"active": True}]},
    }
    assert await client.leader() == leader.base


async def test_an_unreachable_redirect_target_is_not_needed_when_a_given_master_leads(
    masters, session
):
    _, standby, leader = masters
    standby.leader = Master(base="http://127.61.0.2:1")
    client = OperatorClient([standby.base, leader.base], session)
    assert await client.leader() == leader.base


async def test_without_a_leader_the_error_names_every_master_that_was_tried(masters, session):
    lost, standby, _ = masters
    standby.leader = Master(base="http://127.61.0.2:1")
    client = OperatorClient([lost.base, standby.base, "http://127.61.0.3:1"], session)
    with pytest.raises(ClusterUnreachable) as caught:
        await client.get_tasks()
    text = str(caught.value)
    for address in (lost.base, standby.base, "http://127.61.0.3:1", "http://127.61.0.2:1"):
        assert address in text
    assert "No leader elected" in text


async def test_the_client_reaches_a_new_leader_after_the_old_leader_steps_down(masters, session):
    lost, _, leader = masters
    client = OperatorClient([lost.base, leader.base], session)
    assert await client.leader() == leader.base
    leader.leads, leader.leader, lost.leads = False, lost, True
    assert await client.leader() == lost.base


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Permanent),
        (403, Permanent),
        (404, NotFound),
        (409, Retryable),
        (500, Retryable),
        (503, Retryable),
    ],
)
async def test_a_refusal_keeps_the_servers_message(masters, session, status, kind):
    leader = masters[2]
    leader.refusal = (status, "Agent 'nope' is being transitioned")
    client = OperatorClient([leader.base], session)
    with pytest.raises(kind, match="Agent 'nope' is being transitioned") as caught:
        await client.mark_gone("nope")
    assert type(caught.value) is kind


async def test_the_drain_family_is_sent_as_mesos_reads_it(masters, session):
    leader = masters[2]
    client = OperatorClient([leader.base], session)
    await client.deactivate("S1")
    await client.drain("S1", 2.5, mark_gone=True)
    await client.drain("S1")
    await client.reactivate("S1")
    await client.mark_gone("S1")
    assert leader.calls == [
        {"type": "DEACTIVATE_AGENT", "deactivate_agent": {"agent_id": {"value": "S1"}}},
        {
            "type": "DRAIN_AGENT",
            "drain_agent": {
                "agent_id": {"value": "S1"},
                "max_grace_period": {"seconds": 2, "nanos": 500000000},
                "mark_gone": True,
            },
        },
        {"type": "DRAIN_AGENT", "drain_agent": {"agent_id": {"value": "S1"}}},
        {"type": "REACTIVATE_AGENT", "reactivate_agent": {"agent_id": {"value": "S1"}}},
        {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "S1"}}},
    ]
