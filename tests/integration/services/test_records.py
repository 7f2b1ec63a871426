"""A record of services that cannot be read is set aside; everything else goes on."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesaform.common.set_aside import SetAsideLog
from mesaform.services.store import StateStore
from mesaform.zookeeper.session import ZooKeeper, split_zk_url
from mesaform.zookeeper.set_aside import SetAsideNodes
from tests.support.scripted_engine import ScriptedEngine
from tests.unit.services.support import Server, announce

pytestmark = pytest.mark.zookeeper

UNREADABLE = {
    "garbage": b"\x00garbage",
    "null": b"null",
    "a newer version": b'{"schema":"services.app/9","id":{"path":"/web"}}',
    "too large": zlib.compress(b"[" * 20_000_000),
}


@pytest.fixture
async def zk(zookeeper_hosts: str) -> AsyncIterator[ZooKeeper]:
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


@pytest.fixture
async def cluster(
    engine: ScriptedEngine, zookeeper_url: str, http: aiohttp.ClientSession
) -> tuple[ScriptedEngine, str, list[str]]:
    """An engine on which two tasks of `/web` and one of `/other` run, without a server."""
    await announce(zookeeper_url, engine)
    async with Server("127.61.1.1", zookeeper_url, http) as server:
        await server.wait_until_leading()
        await server.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
        await server.post({"id": "/other", "cmd": "serve", "mem": 32})
        tasks = [task["id"] for task in (await server.running("/web", 2))["tasks"]]
        await server.running("/other", 1)
    return engine, f"{split_zk_url(zookeeper_url)[1]}/marathon", tasks


async def works(server: Server, instances: int) -> None:
    """Check that the other apps can be changed."""
    assert (await server.request("PATCH", "/v2/apps/other", {"instances": instances}))[0] == 200
    await server.running("/other", instances)


@pytest.mark.parametrize("name", UNREADABLE)
async def test_tasks_of_an_app_whose_record_cannot_be_read_run_until_it_is_restored(
    cluster, zk, zookeeper_url, http, name
):
    engine, root, tasks = cluster
    path = f"{root}/apps/%2Fweb"
    written = (await zk.get(path))[0]
    await zk.put(path, UNREADABLE[name])
    async with Server("127.61.1.2", zookeeper_url, http) as server:
        await server.wait_until_leading()
        await works(server, 2)
        assert (await server.request("GET", "/v2/apps/web"))[0] == 404
        assert set(tasks) <= set(engine.live())
        nodes = SetAsideNodes(zk, root)
        assert [entry.id for entry in await nodes.all()] == ["apps/%2Fweb"]
        assert await nodes.content("apps", "%2Fweb") == UNREADABLE[name]
        metrics = await server.get("/metrics")
        assert 'mesaform_records_set_aside_total{kind="apps"} 1' in metrics
        # An operator repairs the record.
        await zk.put(f"{nodes.folder}/apps/%2Fweb/0", written)
        await zk.delete(f"{nodes.folder}/apps/%2Fweb/1")
        await nodes.restore("apps", "%2Fweb")

        async def is_back() -> bool:
            return (await server.request("GET", "/v2/apps/web"))[0] == 200

        await server.until(is_back)
        app = await server.running("/web", 2)
        assert {task["id"] for task in app["tasks"]} == set(tasks)


async def test_an_app_whose_record_was_removed_is_deleted_with_its_tasks(
    cluster, zk, zookeeper_url, http
):
    engine, root, tasks = cluster
    await zk.put(f"{root}/apps/%2Fweb", b"null")
    async with Server("127.61.1.2", zookeeper_url, http) as server:
        await server.wait_until_leading()
        await SetAsideNodes(zk, root).remove("apps", "%2Fweb")
        await engine.until(lambda: not set(tasks) & set(engine.live()))
        await works(server, 2)


async def test_an_app_is_defined_anew_beside_its_record_that_was_set_aside(
    cluster, zk, zookeeper_url, http
):
    _, root, _ = cluster
    await zk.put(f"{root}/apps/%2Fweb", b"null")
    async with Server("127.61.1.2", zookeeper_url, http) as server:
        await server.wait_until_leading()
        await server.post({"id": "/web", "cmd": "serve anew", "instances": 1, "mem": 32})
        await server.running("/web", 1)
        assert len(await SetAsideNodes(zk, root).all()) == 1


async def test_a_task_whose_record_cannot_be_read_runs_on_and_counts(
    cluster, zk, zookeeper_url, http
):
    engine, root, tasks = cluster
    await zk.put(f"{root}/instances/{quote(tasks[0], safe='')}", b'{"task_id":1}')
    async with Server("127.61.1.2", zookeeper_url, http) as server:
        await server.wait_until_leading()
        app = await server.running("/web", 2)
        assert {task["id"] for task in app["tasks"]} == set(tasks)
        await works(server, 2)
        assert set(tasks) <= set(engine.live())
        launched = [task for task in engine.tasks if task.startswith("web.")]
        assert sorted(launched) == sorted(tasks)


async def test_a_deployment_and_a_record_under_another_name_are_set_aside(
    cluster, zk, zookeeper_url, http
):
    _, root, tasks = cluster
    await zk.put(f"{root}/deployments/d1", b"garbage")
    await zk.put(f"{root}/apps/%2Fcopy", (await zk.get(f"{root}/apps/%2Fweb"))[0])
    async with Server("127.61.1.2", zookeeper_url, http) as server:
        await server.wait_until_leading()
        app = await server.running("/web", 2)
        assert {task["id"] for task in app["tasks"]} == set(tasks)
        assert (await server.request("GET", "/v2/apps/copy"))[0] == 404
        entries = await SetAsideNodes(zk, root).all()
        assert [entry.id for entry in entries] == ["apps/%2Fcopy", "deployments/d1"]


@pytest.mark.parametrize("stored", [b"\xff\xfe", b'{"schema":"services.framework-id/2","id":{}}'])
async def test_a_framework_id_that_cannot_be_read_is_the_one_that_runs_the_tasks(
    cluster, zk, zookeeper_url, http, stored
):
    engine, root, tasks = cluster
    known = list(engine.frameworks)
    await zk.put(f"{root}/framework_id", stored)
    async with Server("127.61.1.2", zookeeper_url, http) as server:
        await server.wait_until_leading()
        app = await server.running("/web", 2)
        assert {task["id"] for task in app["tasks"]} == set(tasks)
        await works(server, 2)
        assert list(engine.frameworks) == known


async def test_records_of_the_release_before_schemas_are_read(zk, zookeeper_root):
    root = f"{zookeeper_root}/marathon"
    await zk.put(f"{root}/framework_id", b"4b5f-0001")
    await zk.put(f"{root}/apps/%2Fweb", APP_5698494)
    await zk.put(f"{root}/instances/{TASK_5698494}", INSTANCE_5698494)
    await zk.put(f"{root}/deployments/{DEPLOYMENT_ID_5698494}", DEPLOYMENT_5698494)
    store = StateStore(zk, root, SetAsideLog())
    state = await store.load(0.0)
    assert state.apps["/web"].env == {"A": "1"}
    assert state.instances[TASK_5698494].ports == [31005]
    assert state.deployments[DEPLOYMENT_ID_5698494].affected_apps == ["/web"]
    assert await store.framework_id() == "4b5f-0001"
    assert await SetAsideNodes(zk, root).all() == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["apps", "instances", "deployments"]),
            st.sampled_from(["%2Fweb", "web.instance-1._app.1", "d1", "~"]),
            st.binary(max_size=60)
            | st.sampled_from([b"null", b"[]", b"{}", b'{"id":"/web"}', b'{"id":"d1"}']),
        ),
        max_size=4,
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_bytes_in_any_node_are_loaded_or_kept(zk, zookeeper_root, records):
    root = f"{zookeeper_root}/any"
    store = StateStore(zk, root, SetAsideLog())
    for kind, name, data in records:
        await zk.put(f"{root}/{kind}/{name}", data)
    before = len(await SetAsideNodes(zk, root).all())
    stored = {(kind, name): data for kind, name, data in records}
    state = await store.load(0.0)
    kept = len(await SetAsideNodes(zk, root).all()) - before
    rebuilt = sum(not item.host for item in state.instances.values())
    readable = len(state.apps) + len(state.instances) + len(state.deployments) - rebuilt
    assert kept + readable >= len(stored)
    for kind, name, _ in records:
        await zk.delete(f"{root}/{kind}/{name}")


async def test_a_fault_in_one_app_ends_the_work_for_that_app_only(engine, zookeeper_url, zk, http):
    await announce(zookeeper_url, engine)
    root = f"{split_zk_url(zookeeper_url)[1]}/marathon"
    # Accepted by the types and by no check of the API: a command without an executable.
    await zk.put(f"{root}/apps/%2Fbad", b'{"id":"/bad","args":[],"version":"2026-11-26T00:00:00Z"}')
    async with Server("127.61.1.2", zookeeper_url, http) as server:
        await server.wait_until_leading()
        await server.post({"id": "/good", "cmd": "serve", "mem": 32})
        await server.running("/good", 1)

        async def is_reported() -> bool:
            body = (await server.get("/v2/apps/bad?embed=app.lastTaskFailure"))["app"]
            return "IndexError" in body.get("lastTaskFailure", {}).get("message", "")

        await server.until(is_reported)
        queued = await server.queued("/bad")
        summary = queued["processedOffersSummary"]["rejectSummaryLastOffers"]
        assert summary[-1]["reason"] == "InternalError"
        assert 'mesaform_contained_faults_total{kind="app"}' in await server.get("/metrics")
        assert (await server.request("GET", "/health"))[0] == 200


APP_5698494 = (
    b'{"id":"/web","cmd":"serve","args":null,"user":null,"env":{"A":"1"},"instances":1,"cpus":1.0,'
    b'"mem":32.0,"disk":0.0,"gpus":0,"constraints":[],"acceptedResourceRoles":null,'
    b'"backoffSeconds":1.0,"backoffFactor":1.15,"maxLaunchDelaySeconds":300.0,"fetch":[],'
    b'"healthChecks":[],"killSelection":"YOUNGEST_FIRST","labels":{},"portDefinitions":[{"port":'
    b'10000,"protocol":"tcp","name":null,"labels":{}}],"requirePorts":false,"role":"*",'
    b'"taskKillGracePeriodSeconds":null,"unreachableStrategy":{"inactiveAfterSeconds":300.0,'
    b'"expungeAfterSeconds":600.0},"upgradeStrategy":{"minimumHealthCapacity":1.0,'
    b'"maximumOverCapacity":1.0},"version":"2026-11-25T10:00:00.000Z",'
    b'"configVersion":"2026-11-25T10:00:00.000Z"}'
)
TASK_5698494 = "web.instance-1d0c2d4e-6b0f-4c2a-9d2b-0d7a6f8c1e11._app.1"
INSTANCE_5698494 = (
    b'{"task_id":"web.instance-1d0c2d4e-6b0f-4c2a-9d2b-0d7a6f8c1e11._app.1","app_id":"/web",'
    b'"version":"2026-11-25T10:00:00.000Z","config_version":"2026-11-25T10:00:00.000Z",'
    b'"agent_id":"s1","host":"host-a","places":{"rack":"r1","@hostname":"host-a"},"ports":[31005],'
    b'"state":"TASK_RUNNING","staged_at":1764064800.5,"started_at":1764064801.25}'
)
DEPLOYMENT_ID_5698494 = "5f0a4c6e-3f70-4f2f-8a52-4a4a3c1d9f10"
DEPLOYMENT_5698494 = (
    b'{"id":"5f0a4c6e-3f70-4f2f-8a52-4a4a3c1d9f10","version":"2026-11-25T10:00:00.000Z",'
    b'"affectedApps":["/web"],"steps":[[{"action":"StartApplication","app":"/web"}]],'
    b'"previous":{"/web":null},"since":1764064800.5}'
)
