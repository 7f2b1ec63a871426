"""Access to port 5050: operators' token, and credentials and ACLs of frameworks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from harness.master_process import (
    SIZE,
    Events,
    HttpScheduler,
    LinkedAgent,
    Running,
    running,
)
from mesaform.common.access import (
    AccessDocument,
    FrameworkCredential,
    access_text,
    basic_header,
)
from mesaform.engine import link
from mesaform.mesos.messages import AgentInfo, to_wire
from mesaform.topology.instance_identity import IDENTITY_HEADER, SignedIdentity, identity_header
from tests.support.instances import Account

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]

TOKEN = "7" * 64
SPARK = FrameworkCredential("spark", "a secret of spark")
AGENT, ELSEWHERE, LOCAL = "i-00000000000000001", "10.97.1.1", "127.97.1.1"
JSON = {"Content-Type": "application/json", "Accept": "application/json"}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(tmp_path_factory.mktemp("account"))


@asynccontextmanager
async def guarded(
    zookeeper_url: str, account: Account, folder: Path, **acls: object
) -> AsyncIterator[Running]:
    """A leading master that requires the token."""
    file = folder / "access.json"
    file.write_text(access_text(AccessDocument((TOKEN,), (SPARK,), acls)))
    settings = {
        "MESAFORM_ACCESS_FILE": str(file),
        "MESAFORM_ACCESS_REQUIRED": "1",
        "MESOS_AUTHENTICATE_HTTP_FRAMEWORKS": "true",
    }
    async with running(zookeeper_url, **account.environment, **settings) as process:
        await process.leading()
        yield process


@pytest.fixture
async def master(zookeeper_url: str, account: Account, tmp_path: Path) -> AsyncIterator[Running]:
    async with guarded(zookeeper_url, account, tmp_path) as process:
        yield process


def an_agent(identity: SignedIdentity) -> link.Register:
    info = AgentInfo(hostname=LOCAL, resources=to_wire(SIZE))
    return link.Register(info, None, f"{LOCAL}:5051", "1.12.0", [], identity)


def login(user: str, password: str) -> dict[str, str]:
    return {"Authorization": basic_header(user, password)}


async def status(url: str, headers: dict[str, str] | None = None, call: str = "") -> int:
    body = f'{{"type":"{call}"}}' if call else None
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            "POST" if call else "GET",
            URL(url, encoded=True),
            data=body,
            headers=JSON | (headers or {}),
            allow_redirects=False,
        ) as response,
    ):
        return response.status


PATHS = (
    *("/", "/master", "/state", "/master/state", "/slaves", "/flags", "/version", "/redirect"),
    *("/metrics/snapshot", "/static/master.js", "/tasks", "/nothing", "/%73tate", "/state/x"),
    *("/api/v1", "/master/api/v1/scheduler%2Fx", "/api/v1/%73cheduler", "/health%2F..%2Fstate"),
)


async def test_every_path_but_health_needs_the_token(master: Running) -> None:
    assert await status(f"{master.base}/health") == 200
    assert await status(f"{master.base}/master/health") == 200
    for path in PATHS:
        assert await status(master.base + path) == 401, path
        assert await status(master.base + path, login("operator", TOKEN)) != 401, path
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert await status(f"{master.base}/api/v1", bearer, "GET_AGENTS") == 200
    framework = login(SPARK.principal, SPARK.secret)
    for call in ("GET_AGENTS", "MARK_AGENT_GONE", "TEARDOWN"):
        assert await status(f"{master.base}/api/v1", call=call) == 401
        assert await status(f"{master.base}/api/v1", framework, call) == 401
        assert await status(f"{master.base}/api/v1/scheduler%2Fx", call=call) == 401
        assert await status(f"{master.base}/api/v1/", call=call) == 401


async def test_an_agents_machine_asks_with_its_proof_and_a_forged_one_is_refused(
    master: Running, account: Account
) -> None:
    own = identity_header(account.proof(AGENT, master.address))
    connector = aiohttp.TCPConnector(local_addr=(master.address, 0))
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"{master.base}/api/v1"
        async with session.post(url, json={"type": "GET_AGENTS"}, headers=own) as response:
            assert response.status == 200
    stolen = identity_header(account.proof(AGENT, ELSEWHERE))
    for proof in (stolen, {IDENTITY_HEADER: "{}"}, {IDENTITY_HEADER: "x"}):
        assert await status(f"{master.base}/api/v1", proof, "GET_AGENTS") == 401
        assert await status(f"{master.base}/state", own) == 401


async def subscribed(master: Running, headers: dict[str, str], **info: Any) -> Any:
    """The answer to SUBSCRIBE: its status, or the framework's principal."""
    async with aiohttp.ClientSession(headers=headers) as session:
        wanted = {"user": "nobody", "name": "f", **info}
        body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": wanted}}
        async with session.post(f"{master.base}/api/v1/scheduler", json=body) as response:
            if response.status != 200:
                assert (response.status != 401) or response.headers["WWW-Authenticate"]
                return response.status
        scheduler = await HttpScheduler.subscribe(session, master.base, **wanted)
        term = master.process.term
        assert term is not None
        return term.core.state.frameworks[scheduler.id].info.principal


async def test_a_framework_needs_its_secret_or_is_an_operators(master: Running) -> None:
    assert await subscribed(master, {}) == 401
    assert await subscribed(master, {}, principal="spark") == 401
    assert await subscribed(master, login("spark", "wrong")) == 401
    assert await subscribed(master, login("spark", TOKEN)) == 401
    assert await subscribed(master, login("spark", SPARK.secret), principal="other") == 400
    assert await subscribed(master, login("spark", SPARK.secret)) == "spark"
    assert await subscribed(master, login("operator", TOKEN)) == "operator"
    assert await subscribed(master, {"Authorization": f"Bearer {TOKEN}"}) == "operator"


RULES: dict[str, Any] = {
    "register_frameworks": [
        {"principals": {"values": ["spark"]}, "roles": {"values": ["analytics", "b"]}},
        {"principals": {"values": ["spark"]}, "roles": {"type": "NONE"}},
    ],
    "run_tasks": [
        {"principals": {"type": "NONE"}, "users": {"values": ["root"]}},
        {"principals": {"values": ["spark"]}, "users": {"values": ["nobody"]}},
        {"principals": {"values": ["spark"]}, "users": {"type": "NONE"}},
    ],
}
MULTI_ROLE = [{"type": "MULTI_ROLE"}]


async def test_roles_and_users_of_a_principal_are_limited_in_the_words_of_mesos(
    zookeeper_url: str, account: Account, tmp_path: Path
) -> None:
    """The texts and statuses were read from Apache Mesos 1.12 with the same rules."""
    async with (
        guarded(zookeeper_url, account, tmp_path, **RULES) as master,
        aiohttp.ClientSession(headers=login("spark", SPARK.secret)) as session,
    ):

        async def first_event(framework_id: str | None = None, **info: Any) -> Any:
            wanted = {"user": "nobody", "name": "f", "capabilities": MULTI_ROLE, **info}
            body: Any = {"type": "SUBSCRIBE", "subscribe": {"framework_info": wanted}}
            if framework_id:
                wanted["id"] = body["framework_id"] = {"value": framework_id}
            async with session.post(f"{master.base}/api/v1/scheduler", json=body) as response:
                return await Events(response).next()

        refused = "Not authorized to register framework {} with roles {{ {} }}"
        for roles, named in ((["d", "c"], "c, d"), (["analytics", "c"], "analytics, c")):
            event = await first_event(roles=roles)
            assert event["error"]["message"] == refused.format("", named)
        event = await first_event(capabilities=[])
        assert event["error"]["message"] == refused.format("", "*")
        scheduler = await HttpScheduler.subscribe(
            session,
            master.base,
            user="daemon",
            roles=["analytics"],
            capabilities=MULTI_ROLE,
            failover_timeout=100,
        )
        info = {
            "user": "daemon",
            "name": "f",
            "id": {"value": scheduler.id},
            "capabilities": MULTI_ROLE,
            "failover_timeout": 100,
            "principal": "spark",
        }
        forbidden = {"framework_info": {**info, "roles": ["analytics", "c"]}}
        assert await scheduler.call("UPDATE_FRAMEWORK", update_framework=forbidden) == (
            403,
            refused.format(scheduler.id, "analytics, c"),
        )
        permitted = {"framework_info": {**info, "roles": ["analytics", "b"]}}
        answer = await scheduler.call("UPDATE_FRAMEWORK", update_framework=permitted)
        assert answer[0] == 200
        own = account.proof(AGENT, LOCAL)
        async with LinkedAgent(f"{master.address}:{master.link_port}", an_agent(own)):
            await only_nobody_runs_tasks(scheduler)


async def only_nobody_runs_tasks(scheduler: HttpScheduler) -> None:
    """Launch one task as each user: the framework's is `daemon`."""
    (offer,) = (await scheduler.events.next("OFFERS"))["offers"]["offers"]
    commands = {"t0": {"user": "root"}, "t1": {}, "t2": {"user": "nobody"}}
    tasks = [
        {
            "name": name,
            "task_id": {"value": name},
            "agent_id": offer["agent_id"],
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}],
            "command": {"value": "true", **command},
        }
        for name, command in commands.items()
    ]
    accept = {
        "offer_ids": [offer["id"]],
        "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}],
    }
    assert (await scheduler.call("ACCEPT", accept=accept))[0] == 202
    for name, user in (("t0", "root"), ("t1", "daemon")):
        status = (await scheduler.events.next("UPDATE"))["update"]["status"]
        assert (status["state"], status["reason"]) == ("TASK_ERROR", "REASON_TASK_UNAUTHORIZED")
        assert status["message"] == (
            f"Principal 'spark' no authorized to launch task {name} of framework {scheduler.id}"
            f" under user '{user}'"
        )
