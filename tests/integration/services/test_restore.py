"""Snapshots of the state in S3, and their restoration into an ensemble that has lost everything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import aiohttp
import pytest
from moto.server import ThreadedMotoServer

from mesaform.aws.bucket import ensure_bucket
from mesaform.aws.control import S3Control
from mesaform.aws.ports.snapshots import RESTORE_REQUEST, RestoreRequest
from mesaform.aws.snapshots import SnapshotObjects
from mesaform.cli.snapshot_client import SnapshotClient
from mesaform.common.errors import MesaformError
from mesaform.common.snapshots import SnapshotName
from mesaform.services import backups
from mesaform.services.settings import BackupAccount
from mesaform.topology.zookeeper import ZK_AUTOSCALER_RESTORED, ZK_AUTOSCALER_STATE
from mesaform.zookeeper.session import ZooKeeper, split_zk_url
from tests.support.scripted_engine import ScriptedEngine
from tests.unit.services.support import Server, announce

pytestmark = pytest.mark.zookeeper
REGION = "us-east-1"
ACCOUNT = BackupAccount("toy", "d1", REGION)
STATE = b"the planner's state as it is stored"


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.97.0.3", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@dataclass
class Place:
    """A cluster's ensemble, engine and bucket; servers of services are started in it."""

    engine: ScriptedEngine
    zk: ZooKeeper
    url: str
    http: aiohttp.ClientSession
    bucket: str

    @property
    def root(self) -> str:
        return f"{split_zk_url(self.url)[1]}/marathon"

    @property
    def snapshots(self) -> SnapshotObjects:
        return SnapshotObjects(self.bucket, ACCOUNT.cluster, REGION)

    def client(self, deployment: str = ACCOUNT.deployment) -> SnapshotClient:
        control = S3Control(self.bucket, ACCOUNT.cluster, REGION)
        return SnapshotClient(self.snapshots, control, ACCOUNT.cluster, deployment, self.root)

    @contextlib.asynccontextmanager
    async def server(self, deployment: str | None = ACCOUNT.deployment) -> AsyncIterator[Server]:
        """A server that leads; without a deployment it writes no snapshots."""
        server = Server("127.61.1.3", self.url, self.http)
        if deployment is not None:
            account = replace(ACCOUNT, deployment=deployment)
            server.settings = replace(server.settings, backup=account)
        async with server:
            await server.wait_until_leading()
            yield server

    async def nodes(self) -> dict[str, bytes]:
        """Every record of services, and the framework id."""
        found = {}
        for kind in ("apps", "instances", "deployments"):
            for name in await self.zk.children(f"{self.root}/{kind}"):
                found[f"{kind}/{name}"] = (await self.zk.get(f"{self.root}/{kind}/{name}") or b"")[
                    0
                ]
        node = await self.zk.get(f"{self.root}/framework_id")
        return found | ({"framework_id": node[0]} if node else {})

    async def empty(self) -> None:
        """Lose everything, as an ensemble does whose disks are gone."""
        for kind in ("apps", "instances", "deployments"):
            for name in await self.zk.children(f"{self.root}/{kind}"):
                await self.zk.delete(f"{self.root}/{kind}/{name}")
        await self.zk.delete(f"{self.root}/framework_id")

    async def snapshot(self) -> SnapshotName:
        """Raise two apps, and return the first snapshot that a leader writes of them."""

        async def written() -> SnapshotName | None:
            return next(iter(await asyncio.to_thread(self.snapshots.names)), None)

        async with self.server(None) as server:
            await raise_apps(server)
        async with self.server() as server:
            return await server.until(written)


@pytest.fixture
async def place(
    engine: ScriptedEngine,
    zookeeper_url: str,
    http: aiohttp.ClientSession,
    s3_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Place]:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(backups, "POLL_EMPTY_S", 0.1)
    monkeypatch.setattr(backups, "POLL_S", 0.1)
    bucket = await asyncio.to_thread(ensure_bucket, REGION)
    zk = ZooKeeper(split_zk_url(zookeeper_url)[0])
    await zk.start()
    await announce(zookeeper_url, engine)
    await zk.put(ZK_AUTOSCALER_STATE, STATE)
    place = Place(engine, zk, zookeeper_url, http, bucket)
    yield place
    await zk.delete(ZK_AUTOSCALER_STATE)
    await zk.delete(ZK_AUTOSCALER_RESTORED)
    await zk.stop()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    for snapshot in place.snapshots.names():
        place.snapshots.remove(snapshot)


async def raise_apps(server: Server) -> None:
    await server.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
    await server.post({"id": "/group/other", "cmd": "serve", "mem": 32})
    await server.running("/web", 2)
    await server.running("/group/other", 1)


async def test_a_lost_state_is_restored_and_its_tasks_are_the_ones_that_ran(place: Place) -> None:
    name = await place.snapshot()
    content = await asyncio.to_thread(place.snapshots.read, name)
    before = await place.nodes()
    live = set(place.engine.live())
    await place.empty()
    async with place.server() as server:

        async def subscribed() -> str | None:
            return (await server.get("/v2/info"))["frameworkId"]

        fresh_id = await server.until(subscribed)
        counts = await asyncio.to_thread(place.client().restore, name, any_deployment=False)
        assert counts["apps"] == 2
        await server.wait_until_leading()  # a restored leader begins its term anew
        await server.running("/web", 2)
        await server.running("/group/other", 1)
        assert await server.until(subscribed) != fresh_id
        assert fresh_id in place.engine.removed, "the framework without tasks does not stay"
        after = await place.nodes()
        assert set(after) == set(before)
        assert after["framework_id"] == before["framework_id"]
        assert after["apps/%2Fweb"] == before["apps/%2Fweb"]
        assert set(place.engine.live()) == live, "no task was started or killed"
    assert content.nodes[ZK_AUTOSCALER_STATE] == STATE
    assert (await place.zk.get(ZK_AUTOSCALER_RESTORED) or (b"",))[0] == STATE
    assert await place.zk.get(f"{place.root}/restoration") is None


async def test_nothing_is_restored_where_there_is_a_state(place: Place) -> None:
    name = await place.snapshot()
    async with place.server() as server:
        await server.running("/web", 2)
        before = await place.nodes()
        with pytest.raises(MesaformError, match=r"2 apps, 3 tasks \(/group/other, /web\)"):
            await asyncio.to_thread(place.client().restore, name, any_deployment=False)
        assert set(await place.nodes()) == set(before)
        assert (await server.get("/v2/info"))["frameworkId"], "it leads on"


async def test_a_snapshot_of_another_deployment_needs_leave(place: Place) -> None:
    name = await place.snapshot()
    await place.empty()
    async with place.server("d2") as server:
        client = place.client("d2")
        with pytest.raises(MesaformError, match="of the deployment d1, this is d2"):
            await asyncio.to_thread(client.restore, name, any_deployment=False)
        assert (await server.get("/v2/apps"))["apps"] == []
        restored = await asyncio.to_thread(client.restore, name, any_deployment=True)
        assert restored["apps"] == 2


async def test_an_interrupted_restoration_is_completed_before_anything_is_served(
    place: Place,
) -> None:
    name = await place.snapshot()
    before = await place.nodes()
    await place.empty()
    request = RestoreRequest(id="r1", snapshot=str(name), at=time.time(), by="me")
    await place.zk.put(f"{place.root}/restoration", RESTORE_REQUEST.encode(request))
    await place.zk.put(f"{place.root}/apps/%2Fweb", before["apps/%2Fweb"])
    async with place.server() as server:
        assert {app["id"] for app in (await server.get("/v2/apps"))["apps"]} == {
            "/web",
            "/group/other",
        }
        await server.running("/web", 2)


async def test_a_restoration_whose_snapshot_is_gone_leaves_no_half_of_a_state(
    place: Place,
) -> None:
    lost = SnapshotName.of(1.0, "d1")
    request = RestoreRequest(id="r1", snapshot=str(lost), at=time.time(), by="me")
    await place.zk.put(f"{place.root}/restoration", RESTORE_REQUEST.encode(request))
    await place.zk.put(f"{place.root}/instances/x.y", b"anything")
    async with place.server() as server:
        assert (await server.get("/v2/apps"))["apps"] == []
        assert await place.zk.get(f"{place.root}/instances/x.y") is None
        assert await place.zk.get(f"{place.root}/restoration") is None


async def test_a_bucket_that_does_not_answer_is_a_warning_and_ends_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.97.0.4:9")  # nothing listens there
    async with place.server() as server:
        await raise_apps(server)

        async def warned() -> list[str]:
            return (await server.get("/health"))["warnings"]

        (warning,) = await server.until(warned, 60.0)
        assert warning.startswith("snapshots: no snapshot could be written")
        assert (await server.request("GET", "/health"))[0] == 200
        assert 'mesaform_leader_warning{subject="snapshots"} 1' in await server.get("/metrics")
        await server.running("/web", 2)
