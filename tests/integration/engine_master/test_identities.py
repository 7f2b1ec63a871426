"""Attacks on the inside of a cluster (finding H3): forged agents, and frameworks taken over."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from msgspec import structs

from harness.master_process import (
    SIZE,
    HttpScheduler,
    LinkedAgent,
    Running,
    running,
)
from mesaform.common.errors import BadInput
from mesaform.engine import link
from mesaform.engine.master.agent_calls import why_refused
from mesaform.engine.master.authentication import authenticator_from
from mesaform.engine.master.authorization import acls_from
from mesaform.engine.registry import AgentRecord
from mesaform.mesos.credential import Credential
from mesaform.mesos.messages import AgentInfo, Attribute, Text, to_wire
from mesaform.topology.instance_identity import SignedIdentity, identity_header
from tests.support.instances import Account
from tests.unit.engine_master.world import World

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]

OWNER, INTRUDER = "i-00000000000000001", "i-00000000000000002"
ADDRESS, ELSEWHERE = "127.97.0.1", "127.97.0.2"
SECRET = "a secret of services"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(tmp_path_factory.mktemp("account"))


@pytest.fixture
async def master(zookeeper_url: str, account: Account, tmp_path: Path) -> AsyncIterator[Running]:
    credentials = tmp_path / "credentials.json"
    content = {"credentials": [{"principal": "services", "secret": SECRET}]}
    credentials.write_text(json.dumps(content))
    settings = {"MESOS_CREDENTIALS": f"file://{credentials}", "MESOS_ACLS": NO_ROOT}
    async with running(zookeeper_url, **account.environment, **settings) as process:
        await process.leading()
        yield process


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


NO_ROOT = '{"run_tasks":[{"principals":{"type":"NONE"},"users":{"values":["root"]}}]}'


def an_agent(
    master: Running,
    identity: SignedIdentity | None,
    agent_id: str | None = None,
    address: str = ADDRESS,
    **attributes: str,
) -> LinkedAgent:
    info = AgentInfo(
        hostname=address,
        resources=to_wire(SIZE),
        attributes=[
            Attribute(name=name, type="TEXT", text=Text(value=value))
            for name, value in attributes.items()
        ],
    )
    register = link.Register(info, agent_id, f"{address}:5051", "1.12.0", [], identity)
    return LinkedAgent(f"{master.address}:{master.link_port}", register)


async def refused(agent: LinkedAgent) -> str:
    """The reason for which the master refuses an agent."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with agent:
            pass
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return str(caught.value.details())


async def test_a_forged_register_is_refused_and_counted_and_the_true_agent_stays(
    master: Running, account: Account
) -> None:
    own = account.proof(OWNER, ADDRESS)
    async with an_agent(master, own, instance_id=OWNER) as agent:
        foreign = account.proof(INTRUDER, ELSEWHERE)
        reasons = [
            await refused(an_agent(master, None, agent.id)),
            await refused(an_agent(master, foreign, agent.id, ELSEWHERE)),
            await refused(an_agent(master, foreign, agent.id, ADDRESS)),
        ]
        assert reasons == [
            "it does not prove which instance it is",
            f"agent {agent.id} belongs to {OWNER}, not to {INTRUDER}",
            f"{INTRUDER} cannot register at {ADDRESS}:5051",
        ]
        assert master.process.metrics()["mesaform/agents_refused"] == 3
        term = master.process.term
        assert term is not None
        state = term.core.state
        assert list(state.agents) == [agent.id]
        assert state.agents[agent.id].link_id is not None
        record = state.record(agent.id)
        assert record is not None
        assert record.instance_id == OWNER
        again = an_agent(master, own, agent.id, instance_id=OWNER)
        async with again:
            assert again.id == agent.id


@pytest.mark.parametrize(
    ("name", "value"),
    [("instance_id", OWNER), ("zone", "us-east-1c"), ("instance_type", "p5.48xlarge")],
)
async def test_an_agent_cannot_claim_facts_of_another_machine(
    master: Running, account: Account, name: str, value: str
) -> None:
    proof = account.proof(INTRUDER, ELSEWHERE)
    reason = await refused(an_agent(master, proof, None, ELSEWHERE, **{name: value}))
    assert reason.startswith(f"{INTRUDER} has {name} ")
    assert reason.endswith(f"not {value}")


async def test_an_agent_cannot_register_at_the_address_of_another_one(
    master: Running, account: Account
) -> None:
    async with an_agent(master, account.proof(OWNER, ADDRESS)) as agent:
        await refused(an_agent(master, account.proof(INTRUDER, ELSEWHERE), None, ADDRESS))
        assert master.process.term is not None
        assert list(master.process.term.core.state.agents) == [agent.id]


async def test_an_agent_id_still_belongs_to_its_instance_under_the_next_master(
    zookeeper_url: str, account: Account
) -> None:
    async with running(zookeeper_url, **account.environment) as first:
        await first.leading()
        async with an_agent(first, account.proof(OWNER, ADDRESS)) as agent:
            known = agent.id
    async with running(zookeeper_url, **account.environment) as second:
        await second.leading()
        intruder = account.proof(INTRUDER, ELSEWHERE)
        assert await refused(an_agent(second, intruder, known, ELSEWHERE)) == (
            f"agent {known} belongs to {OWNER}, not to {INTRUDER}"
        )
        assert "does not prove" in await refused(an_agent(second, None, known))
        async with an_agent(second, account.proof(OWNER, ADDRESS), known) as agent:
            assert agent.id == known


async def test_an_agent_of_an_older_image_may_return_until_it_has_proven_its_instance(
    zookeeper_url: str, account: Account
) -> None:
    async with running(zookeeper_url) as old:
        await old.leading()
        async with an_agent(old, None, instance_id=OWNER) as agent:
            known = agent.id
    async with running(zookeeper_url, **account.environment) as master:
        await master.leading()
        async with an_agent(master, None, known, instance_id=OWNER) as agent:
            assert agent.id == known
        intruder = account.proof(INTRUDER, ELSEWHERE)
        assert "belongs to" in await refused(an_agent(master, intruder, known, ELSEWHERE))
        async with an_agent(master, account.proof(OWNER, ADDRESS), known, instance_id=OWNER):
            pass
        assert "does not prove" in await refused(an_agent(master, None, known, instance_id=OWNER))


@pytest.mark.parametrize("type_", ["MARK_AGENT_GONE", "TEARDOWN", "DEACTIVATE_AGENT"])
def test_a_task_on_an_agents_machine_cannot_act_as_an_operator(
    account: Account, type_: str
) -> None:
    world = World()
    agent, other = world.agent(host="10.0.0.5"), world.agent(host="10.0.0.6")
    world.state.registry.agents[agent.id] = _owned(world, agent.id, OWNER)
    world.state.registry.agents[other.id] = _owned(world, other.id, INTRUDER)
    (proof,) = identity_header(account.proof(OWNER, "10.0.0.5")).values()

    def refusal(source: str, header: str, target: str) -> str | None:
        return why_refused(world.state, account.verifier, (source,), header, (type_, target))

    assert "does not prove" in (refusal("10.0.0.5", "", agent.id) or "")
    assert "has the address 10.0.0.5" in (refusal("10.0.0.6", proof, agent.id) or "")
    assert refusal("10.0.0.5", proof, other.id) == f"{type_} of {other.id} is refused to {OWNER}"
    is_own_end = type_ == "MARK_AGENT_GONE"
    assert (refusal("10.0.0.5", proof, agent.id) is None) is is_own_end
    assert refusal("10.0.0.99", "", agent.id) is None  # an operator, or a master
    assert why_refused(world.state, None, ("10.0.0.5",), "", (type_, agent.id)) is None


async def test_a_task_cannot_act_as_an_operator_through_a_standby(
    master: Running, zookeeper_url: str, account: Account
) -> None:
    call = {"type": "TEARDOWN", "teardown": {"framework_id": {"value": "of-another"}}}
    connector = aiohttp.TCPConnector(local_addr=(ADDRESS, 0))
    async with (
        an_agent(master, account.proof(OWNER, ADDRESS), instance_id=OWNER),
        running(zookeeper_url, **account.environment) as standby,
        aiohttp.ClientSession(connector=connector, headers={"Host": "x.localhost"}) as task,
    ):
        for base in (master.base, standby.base):
            async with task.post(f"{base}/api/v1", json=call) as answer:
                assert answer.status == 403
                assert "TEARDOWN from an agent's machine is refused" in await answer.text()
        proof = identity_header(account.proof(OWNER, ADDRESS))
        async with task.post(
            f"{standby.base}/api/v1", json=call, headers=proof, allow_redirects=False
        ) as answer:
            leader = f"//{master.address}:{master.port}/master/api/v1"
            assert (answer.status, answer.headers["Location"]) == (307, leader)


def _owned(world: World, agent_id: str, instance_id: str) -> AgentRecord:
    return structs.replace(world.state.registry.agents[agent_id], instance_id=instance_id)


def subscription(framework_id: str | None, principal: str | None) -> dict[str, Any]:
    info: dict[str, Any] = {
        "user": "root",
        "name": "marathon",
        "roles": ["*"],
        "failover_timeout": 600,
        "capabilities": [{"type": "MULTI_ROLE"}],
    }
    body: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
    if principal is not None:
        info["principal"] = principal
    if framework_id is not None:
        info["id"] = body["framework_id"] = {"value": framework_id}
    return body


async def answer(
    session: aiohttp.ClientSession,
    master: Running,
    body: dict[str, Any],
    headers: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Status and first record, or text, of the answer to a call."""
    async with session.post(
        f"{master.base}/api/v1/scheduler", json=body, headers=headers or {}
    ) as response:
        if response.status != 200:
            return response.status, await response.text()
        length = int(await response.content.readuntil(b"\n"))
        return 200, (await response.content.readexactly(length)).decode()


async def test_the_framework_of_services_can_be_taken_over_only_with_its_secret(
    master: Running, session: aiohttp.ClientSession
) -> None:
    own = Credential("services", SECRET).headers
    url = f"{master.base}/api/v1/scheduler"
    stream = await session.post(url, json=subscription(None, "services"), headers=own)
    scheduler = HttpScheduler(session, master.base, stream)
    first = await scheduler.events.next()
    scheduler.id = first["subscribed"]["framework_id"]["value"]

    wrong = Credential("services", "guessed").headers
    for headers in ({}, wrong, {"Authorization": "Basic ???"}, {"Authorization": "Bearer x"}):
        body = subscription(scheduler.id, "services")
        assert (await answer(session, master, body, headers))[0] == 401
    status, text = await answer(session, master, subscription(scheduler.id, "intruder"))
    assert status == 200
    error = {"message": "Changing framework's principal is not allowed."}
    assert json.loads(text) == {"type": "ERROR", "error": error}
    status, text = await answer(session, master, subscription(scheduler.id, "other"), own)
    assert status == 400
    assert text == (
        "Failed to validate scheduler::Call: Authenticated principal 'services' does not match"
        " principal 'other' set in `FrameworkInfo`"
    )
    # The call of an intruder that knows the stream's id, too.
    assert (await scheduler.call("TEARDOWN"))[0] == 401
    scheduler.headers |= own
    assert (await scheduler.call("REVIVE"))[0] == 202
    stream.close()


async def test_frameworks_without_a_credential_need_none_and_keep_their_principal(
    master: Running, session: aiohttp.ClientSession
) -> None:
    scheduler = await HttpScheduler.subscribe(
        session, master.base, principal="spark", failover_timeout=600
    )
    assert scheduler.id
    taken = await HttpScheduler.subscribe(
        session, master.base, scheduler.id, principal="x", failover_timeout=600
    )
    assert not taken.id
    message = taken.events.seen[0]["error"]["message"]
    assert message == "Changing framework's principal is not allowed."
    assert (await scheduler.call("REVIVE"))[0] == 202


async def test_every_framework_needs_a_credential_where_the_master_asks_for_one(
    zookeeper_url: str, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text('{"credentials": [{"principal": "p", "secret": "s"}]}')
    required = {
        "MESOS_CREDENTIALS": str(credentials),
        "MESOS_AUTHENTICATE_HTTP_FRAMEWORKS": "true",
    }
    async with running(zookeeper_url, **required) as master:
        await master.leading()
        response = await session.post(
            f"{master.base}/api/v1/scheduler", json=subscription(None, None)
        )
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Basic realm="mesos-master-scheduler"'
        login = base64.b64encode(b"p:s").decode()
        status, text = await answer(
            session, master, subscription(None, None), {"Authorization": f"Basic {login}"}
        )
        assert (status, json.loads(text)["type"]) == (200, "SUBSCRIBED")
        assert master.process.term is not None
        (framework,) = master.process.term.core.state.frameworks.values()
        assert framework.info.principal == "p"


async def test_a_command_that_names_root_is_refused_in_the_words_of_mesos(
    master: Running, account: Account, session: aiohttp.ClientSession
) -> None:
    async with an_agent(master, account.proof(OWNER, ADDRESS)) as agent:
        scheduler = await HttpScheduler.subscribe(session, master.base)
        offer = (await scheduler.events.next("OFFERS"))["offers"]["offers"][0]
        task = {
            "name": "t",
            "task_id": {"value": "t"},
            "agent_id": {"value": agent.id},
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
            ],
            "command": {"value": "id", "user": "root"},
        }
        accept = {
            "offer_ids": [offer["id"]],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": [task]}}],
        }
        assert (await scheduler.call("ACCEPT", accept=accept))[0] == 202
        status = (await scheduler.events.next("UPDATE"))["update"]["status"]
        assert (status["state"], status["reason"]) == ("TASK_ERROR", "REASON_TASK_UNAUTHORIZED")
        assert status["message"] == (
            f"Principal '' no authorized to launch task t of framework {scheduler.id}"
            " under user 'root'"
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MESOS_CREDENTIALS", "/nowhere"),
        ("MESOS_AUTHENTICATE_HTTP_FRAMEWORKS", "true"),
        ("MESOS_ACLS", '{"run_tasks": [{"principals": {"type": "ALL"}, "users": {}}]}'),
        ("MESOS_ACLS", '{"teardown_frameworks": []}'),
        ("MESOS_ACLS", "no JSON"),
    ],
)
def test_settings_that_cannot_be_kept_stop_the_master(name: str, value: str) -> None:
    read = acls_from if name == "MESOS_ACLS" else authenticator_from
    with pytest.raises(BadInput):
        read({name: value})
