"""Who may read and write which node, against a real server with the masters' superuser."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from kazoo.security import make_digest_acl

from harness.zookeeper import ZooKeeperServer
from mesaform.common.errors import BadInput, MesaformError
from mesaform.topology.zookeeper import ZK_USER, super_digest, zk_url
from mesaform.zookeeper.access import Credentials, read_zk_url
from mesaform.zookeeper.election import Candidate, watch_leader
from mesaform.zookeeper.session import ZooKeeper

pytestmark = pytest.mark.zookeeper

PASSWORD = "a5" * 32
MASTER = Credentials(ZK_USER, PASSWORD)
ROOTS = ("/mesos", "/marathon/leader", "/mesaform/autoscaler/election")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    setting = f"DigestAuthenticationProvider.superDigest={super_digest(PASSWORD)}"
    server = ZooKeeperServer(
        tmp_path_factory.mktemp("owned"), address="127.99.0.9", settings=(setting,)
    )
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def session(
    server: ZooKeeperServer, credentials: Credentials | None = None
) -> AsyncIterator[ZooKeeper]:
    zk = ZooKeeper(server.hosts, credentials=credentials)
    await zk.start()
    try:
        yield zk
    finally:
        await zk.stop()


@asynccontextmanager
async def leading(zk: ZooKeeper, path: str, payload: bytes = b"here") -> AsyncIterator[None]:
    """A candidate that leads, and has protected its tree."""
    elected = asyncio.Event()

    async def lead(_epoch: int) -> None:
        elected.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Candidate(zk, path, payload).run(lead))
    try:
        await asyncio.wait_for(elected.wait(), 60)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _leaders(zk: ZooKeeper, path: str) -> AsyncGenerator[bytes | None, None]:
    async for payload in watch_leader(zk, path):
        yield payload


async def until_protected(outsider: ZooKeeper, path: str) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(MesaformError):
                await outsider.get(path)
                await asyncio.sleep(0.01)
                continue
            return


async def test_a_forged_launch_intent_is_refused_and_the_masters_own_is_kept(
    server: ZooKeeperServer,
) -> None:
    intent = "/mesaform/autoscaler/launches/token"
    async with session(server, MASTER) as master, session(server) as task:
        await master.put(intent, b"mine")
        for attack in (
            lambda: task.put("/mesaform/autoscaler/launches/forged", b"buy"),
            lambda: task.put(intent, b"buy"),
            lambda: task.delete(intent),
            lambda: task.get(intent),
            lambda: task.children("/mesaform/autoscaler/launches"),
        ):
            with pytest.raises(MesaformError, match="NoAuthError"):
                await attack()
        assert await master.get(intent) == (b"mine", 0)
        assert await master.children("/mesaform/autoscaler/launches") == ["token"]


async def test_an_agent_finds_the_leader_and_its_lease_and_reads_nothing_else(
    server: ZooKeeperServer,
) -> None:
    async with session(server, MASTER) as master, session(server) as agent:
        await master.put("/mesos/registry", b"agents")
        await master.put("/mesaform/autoscaler/lease", b"7")
        await master.put("/mesaform/autoscaler/state", b"secret")
        await master.put("/marathon/apps/web", b"secret")
        async with leading(master, "/mesos", b"the leader"):
            async with asyncio.timeout(60), aclosing(_leaders(agent, "/mesos")) as leaders:
                assert await anext(leaders) == b"the leader"
            assert await agent.get("/mesaform/autoscaler/lease") == (b"7", 0)
            for path in ("/mesos/registry", "/mesaform/autoscaler/state", "/marathon/apps/web"):
                with pytest.raises(MesaformError, match="NoAuthError"):
                    await agent.get(path)
            with pytest.raises(MesaformError, match="NoAuthError"):
                await agent.create_sequential("/mesos/json.info_", b"I lead")


async def test_an_agent_that_comes_before_every_master_learns_of_the_first_leader(
    zookeeper_hosts: str, zookeeper_root: str
) -> None:
    agent, master = ZooKeeper(zookeeper_hosts), ZooKeeper(zookeeper_hosts)
    await agent.start()
    await master.start()
    path = f"{zookeeper_root}/absent"
    try:
        async with asyncio.timeout(60), aclosing(_leaders(agent, path)) as leaders:
            assert await anext(leaders) is None
            async with leading(master, path, b"first"):
                assert await anext(leaders) == b"first"
    finally:
        await agent.stop()
        await master.stop()


async def test_a_new_leader_protects_what_an_earlier_version_left_open(
    server: ZooKeeperServer,
) -> None:
    async with session(server, MASTER) as master, session(server) as task:
        await master._call(master._client.set_acls_async, "/", _open())
        await task.put("/old/apps/web", b"app")
        await task.put("/old/leader", b"")
        assert await task.get("/old/apps/web") == (b"app", 0)
        async with leading(master, "/old/leader"):
            await until_protected(task, "/old/apps/web")
            await until_protected(task, "/old")
            with pytest.raises(MesaformError, match="NoAuthError"):
                await task.put("/elsewhere", b"")
        assert await master.get("/old/apps/web") == (b"app", 0)
        assert await task.get("/mesos") is not None  # agents of Apache Mesos may not create it


@pytest.mark.parametrize("is_ephemeral", [True, False])
async def test_who_came_before_the_first_master_neither_leads_nor_keeps_masters_from_it(
    tmp_path: Path, is_ephemeral: bool
) -> None:
    setting = f"DigestAuthenticationProvider.superDigest={super_digest(PASSWORD)}"
    empty = ZooKeeperServer(tmp_path, address="127.99.0.10", settings=(setting,))
    empty.start()
    intruder = Credentials("intruder", "x")
    own = [make_digest_acl("intruder", "x", all=True)]
    try:
        async with session(empty, intruder) as squatter, session(empty, MASTER) as master:
            for path in ("/mesos", "/mesaform", "/mesaform/autoscaler"):
                await squatter._call(squatter._client.create_async, path, b"", own)
            false_leader = ("/mesos/json.info_", b"I lead", own, is_ephemeral, True)
            path = await squatter._call(squatter._client.create_async, *false_leader)
            if not is_ephemeral:
                await squatter._call(squatter._client.create_async, f"{path}/below", b"", own)
            async with leading(master, "/mesos", b"the leader"), session(empty) as agent:
                async with asyncio.timeout(60), aclosing(_leaders(agent, "/mesos")) as leaders:
                    assert await anext(leaders) == b"the leader"
                for attack in (
                    lambda: squatter.create_sequential("/mesos/json.info_", b"I lead"),
                    lambda: squatter.put("/mesaform/autoscaler/launches/forged", b"buy"),
                    lambda: squatter.put("/elsewhere", b""),
                    lambda: squatter.children("/mesaform"),
                ):
                    with pytest.raises(MesaformError, match="NoAuthError"):
                        await attack()
    finally:
        empty.kill()


def _open() -> list[object]:
    from kazoo.security import OPEN_ACL_UNSAFE

    return list(OPEN_ACL_UNSAFE)


async def test_masters_with_a_new_secret_take_the_nodes_over(server: ZooKeeperServer) -> None:
    earlier = Credentials(ZK_USER, "b6" * 32)
    async with session(server, MASTER) as master:
        await master._call(master._client.set_acls_async, "/", _open())
        async with session(server, earlier) as before:
            await before.put("/rotated/app", b"app")
            async with leading(master, "/rotated/leader"):
                await until_protected(before, "/rotated/app")
            assert await master.get("/rotated/app") == (b"app", 0)


def test_the_url_of_masters_is_read_from_a_file_and_shown_without_the_password(tmp_path) -> None:
    file = tmp_path / "zk"
    file.write_text(zk_url(["10.0.0.1", "10.0.0.2"], "/mesos", PASSWORD) + "\n")
    url = read_zk_url(f"file://{file}")
    assert (url.hosts, url.path) == ("10.0.0.1:2181,10.0.0.2:2181", "/mesos")
    assert url.credentials == MASTER
    assert PASSWORD not in repr(url)
    assert url.text == "zk://10.0.0.1:2181,10.0.0.2:2181/mesos"


@pytest.mark.parametrize("url", ["file:///nowhere/zk", "zk://a:1", "http://a/mesos", ""])
def test_another_url_is_an_error_that_shows_the_form(url: str) -> None:
    with pytest.raises(BadInput, match="write zk://"):
        read_zk_url(url)
