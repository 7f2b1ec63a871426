"""The daemon's process: real ZooKeeper, moto's EC2, S3 and SSM, scripted master and services."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from harness.autoscaler_builders import a_spec
from harness.ports import free_port
from mesaform.autoscaler.model.shape import Shape
from mesaform.autoscaler.reporting.decision_text import render_row
from mesaform.aws import client
from mesaform.aws.control import S3Control
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ledger import S3Ledger
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag, spec_parameter_name
from mesaform.topology.user_data import Lease, ShutdownReport
from mesaform.zookeeper.session import ZooKeeper
from tests.integration.aws.conftest import REGION, bucket, cloud, moto_url  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]
HOST = "127.96.0.1"


def scalars(**amounts: float) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}}
        for name, value in amounts.items()
    ]


def compact(document: Any) -> str:
    """As both engines write JSON: without spaces."""
    return msgspec.json.encode(document).decode()


@dataclass
class Cluster:
    """A master and services that say what the test wants, on their real ports."""

    queue: list[dict[str, Any]] = field(default_factory=list)
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)

    def register(self, machine: Machine, cpus: float = 2, mem: float = 7680) -> None:
        attributes = {
            "instance_id": machine.instance_id,
            "instance_type": machine.instance_type,
            "zone": machine.zone,
            "pool": "default",
        }
        self.agents[f"S-{machine.instance_id}"] = {
            "agent_info": {
                "hostname": machine.private_address or machine.instance_id,
                "id": {"value": f"S-{machine.instance_id}"},
                "attributes": [
                    {"name": name, "type": "TEXT", "text": {"value": value}}
                    for name, value in attributes.items()
                ],
            },
            "active": True,
            "deactivated": False,
            "total_resources": scalars(cpus=cpus, mem=mem, disk=35840),
            "allocated_resources": [],
        }

    async def api(self, request: web.Request) -> web.Response:
        call = await request.json()
        kind = call["type"]
        if kind.startswith("GET_"):
            answers: dict[str, Any] = {
                "GET_AGENTS": {"agents": list(self.agents.values()), "recovered_agents": []},
                "GET_TASKS": {"tasks": self.tasks},
                "GET_FRAMEWORKS": {"frameworks": []},
                "GET_METRICS": {"metrics": []},
            }
            return web.json_response(
                {"type": kind, kind.lower(): answers.get(kind, {})}, dumps=compact
            )
        if kind == "SUBSCRIBE":  # tasks are read in each pass then
            return web.Response(status=501, text="there are no events here")
        self.calls.append(kind)
        agent_id = call[kind.lower()]["agent_id"]["value"]
        if kind == "DRAIN_AGENT":
            del self.agents[agent_id]
        else:
            self.agents[agent_id].update(
                active=kind == "REACTIVATE_AGENT", deactivated=kind != "REACTIVATE_AGENT"
            )
        return web.Response()

    async def waiting(self, _: web.Request) -> web.Response:
        return web.json_response({"queue": self.queue})

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response({"frameworkId": "F-services"})

    def want(self, count: int, shape: Shape | None = None) -> None:
        app = {
            "id": "/web",
            "cpus": 1,
            "mem": 512,
            "disk": 0,
            "constraints": [],
            "portDefinitions": [{"port": 0}],
        }
        self.queue = (
            [{"app": app, "count": count, "delay": {"overdue": True, "timeLeftSeconds": 0}}]
            if count
            else []
        )


@contextlib.asynccontextmanager
async def cluster_on(outcome: Cluster, host: str) -> AsyncIterator[Cluster]:
    """Serve the scripted cluster on the real ports of an address."""
    app = web.Application()
    app.router.add_post("/api/v1", outcome.api)
    app.router.add_get("/v2/queue", outcome.waiting)
    app.router.add_get("/v2/info", outcome.info)
    runner = web.AppRunner(app)
    await runner.setup()
    for port in (5050, 8080):
        await web.TCPSite(runner, host, port).start()
    try:
        yield outcome
    finally:
        await runner.cleanup()


@pytest.fixture
def host() -> str:
    """Address of the scripted master and the daemons; no other file of tests uses it."""
    return HOST


@pytest.fixture
async def cluster(host: str) -> AsyncIterator[Cluster]:
    async with cluster_on(Cluster(), host) as outcome:
        yield outcome


class Daemon:
    def __init__(self, zk_hosts: str, root: str, number: int, host: str = HOST) -> None:
        self.host = host
        self.port = free_port(host)
        self.environment = {
            **os.environ,
            "MESAFORM_CLUSTER": "toy",
            "MESAFORM_ZK": f"zk://{zk_hosts}{root}/autoscaler",
            "MESAFORM_MASTERS": f"zk://{host}:2181/mesos",
            "MESAFORM_BIND": f"{host}:{self.port}",
            "AWS_REGION": REGION,
        }
        self.number = number
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        out = None if os.environ.get("SHOW") else asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mesaform.autoscaler",
            env=self.environment,
            stdout=out,
            stderr=out,
        )

    async def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 60)

    async def get(self, path: str) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.host}:{self.port}{path}") as response,
        ):
            text = await response.text()
            return json.loads(text) if "json" in response.content_type else text


@pytest.fixture
async def daemons(
    zookeeper_hosts: str, zookeeper_root: str, bucket: str, host: str
) -> AsyncIterator[Any]:
    started: list[Daemon] = []

    async def start() -> Daemon:
        daemon = Daemon(zookeeper_hosts, zookeeper_root, len(started), host)
        started.append(daemon)
        await daemon.start()
        return daemon

    yield start
    for daemon in started:
        await daemon.kill()


@pytest.fixture
def spec(bucket: str) -> None:
    value = a_spec(pools=[{"count": 0}], idle_after_s=1, interval_s=0.5).model_dump_json()
    client.client("ssm", REGION).put_parameter(
        Name=spec_parameter_name("toy"), Value=value, Type="String"
    )


async def until(what: Any, seconds: float = 120.0) -> Any:
    """Wait for something to become true; its value."""
    ends = time.monotonic() + seconds
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            result = what()
            if result := (await result if asyncio.iscoroutine(result) else result):
                return result
        assert time.monotonic() < ends, "it did not come about in time"
        await asyncio.sleep(0.05)


def alive(fleet: AwsFleet) -> list[Machine]:
    return [machine for machine in fleet.machines("toy") if machine.state in {"pending", "running"}]


async def leads(daemon: Daemon) -> bool:
    health = await daemon.get("/health")
    return bool(health["leading"] and health["last_pass_at"])


async def test_unmet_demand_gets_a_machine_and_an_idle_one_goes(
    cluster: Cluster, daemons: Any, spec: None, bucket: str
):
    fleet = AwsFleet(REGION)
    daemon = await daemons()
    await until(lambda: leads(daemon))
    cluster.want(2)
    machines = await until(lambda: alive(fleet))  # benchmarks.road measures how soon
    assert [machine.instance_type for machine in machines] == ["m5.large"]
    assert machines[0].tags[Tag.LAUNCH].startswith("ms-")
    cluster.want(0)
    cluster.register(machines[0])
    await until(lambda: not alive(fleet))
    assert cluster.calls == ["DEACTIVATE_AGENT", "DRAIN_AGENT"]
    ledger = S3Ledger(bucket, "toy", REGION)
    kinds = ("decision", "machine_started", "machine_stopped")
    rows = await until(
        lambda: (
            (rows := ledger.read(kinds=kinds)) and rows[-1]["kind"] == "machine_stopped" and rows
        )
    )
    story = [
        row.get("decision", row["kind"])
        for row in rows
        if row.get("decision") != "capacity_mismatch"
    ]
    assert sorted(story) == sorted(
        ["buy", "machine_started", "deactivate", "drain", "terminate", "machine_stopped"]
    )
    stopped = rows[-1]
    assert (stopped["instance_id"], stopped["usd_per_hour"], stopped["pool"]) == (
        machines[0].instance_id,
        pytest.approx(0.1059, rel=0.01),
        "default",
    )
    assert stopped["idle_s"] >= 1
    assert (stopped["managed_by"], stopped["capacity"], stopped["zone"]) == (
        "autoscaler",
        "on-demand",
        machines[0].zone,
    )
    metrics = await daemon.get("/metrics")
    assert 'mesaform_autoscaler_decisions_total{kind="buy"} 1.0' in metrics
    assert "mesaform_autoscaler_leading 1.0" in metrics


async def test_a_fence_is_obeyed_and_acknowledged(
    cluster: Cluster, daemons: Any, spec: None, bucket: str
):
    fleet, control = AwsFleet(REGION), S3Control(bucket, "toy", REGION)
    daemon = await daemons()
    await until(lambda: leads(daemon))
    control.freeze("mesaform down")
    heartbeat = await until(
        lambda: (heartbeat := control.last_heartbeat()) and heartbeat["frozen"] and heartbeat
    )
    cluster.want(5)
    passed = (await daemon.get("/health"))["last_pass_at"]
    await until(lambda: _later_pass(daemon, passed))
    assert alive(fleet) == []
    assert heartbeat["address"] == f"{HOST}:{daemon.port}"
    control.unfreeze()
    await until(lambda: alive(fleet))


async def _later_pass(daemon: Daemon, than: float) -> bool:
    return (await daemon.get("/health"))["last_pass_at"] > than + 1


async def test_it_waits_for_a_spec_that_is_not_there_yet(
    cluster: Cluster, daemons: Any, bucket: str
):
    daemon = await daemons()

    async def says_so() -> bool:
        return bool(
            (await daemon.get("/health"))["errors"] == ["the cluster's spec is not there yet"]
        )

    await until(says_so)
    assert await daemon.kill(signal.SIGTERM) == 0


async def test_a_killed_leader_is_followed_by_another_that_buys_nothing_again(
    cluster: Cluster, daemons: Any, spec: None
):
    fleet = AwsFleet(REGION)
    first = await daemons()
    await until(lambda: leads(first))
    second = await daemons()
    cluster.want(2)
    machines = await until(lambda: alive(fleet))
    await first.kill()
    await until(lambda: leads(second))
    passed = (await second.get("/health"))["last_pass_at"]
    await until(lambda: _later_pass(second, passed))
    assert [machine.instance_id for machine in alive(fleet)] == [
        machine.instance_id for machine in machines
    ]


async def test_the_next_leader_records_what_a_dead_leader_did_and_the_machine_that_ended_itself(
    cluster: Cluster,
    daemons: Any,
    spec: None,
    bucket: str,
    zookeeper_hosts: str,
    zookeeper_root: str,
):
    fleet, ledger = AwsFleet(REGION), S3Ledger(bucket, "toy", REGION)
    first = await daemons()
    await until(lambda: leads(first))
    cluster.want(2)
    (machine,) = await until(lambda: alive(fleet))
    await until(
        lambda: any(
            row["instance_id"] == machine.instance_id
            for row in ledger.read(kinds=("machine_started",))
        )
    )
    await first.kill()
    cluster.want(0)
    word = ShutdownReport(machine.instance_id, time.time(), 1800, 1801.0, 1900.0)
    zk = ZooKeeper(zookeeper_hosts)
    await zk.start()
    try:
        renewed = msgspec.json.decode(
            (await zk.get(f"{zookeeper_root}/autoscaler/lease"))[0], type=Lease
        )  # type: ignore[index]
        await zk.put(
            f"{zookeeper_root}/autoscaler/shutdown-reports/{machine.instance_id}",
            msgspec.json.encode(word),
        )
        fleet.terminate("toy", [machine.instance_id])
        second = await daemons()
        rows = await until(lambda: (rows := ledger.read(kinds=("machine_stopped",))) and rows)
        assert (rows[0]["reason"], rows[0]["at"]) == ("lease", word.at)
        shown = {row["decision"]: row for row in ledger.read(kinds=("decision",))}
        assert shown["self_terminated"]["machines"] == [machine.instance_id]
        assert f"took over from {HOST}:{first.port}" in render_row(shown["leader_changed"])
        await until(lambda: leads(second))
        again = msgspec.json.decode(
            (await zk.get(f"{zookeeper_root}/autoscaler/lease"))[0], type=Lease
        )  # type: ignore[index]
        assert (renewed.holder, again.holder) == (f"{HOST}:{first.port}", f"{HOST}:{second.port}")
        assert again.term > renewed.term
        assert await zk.children(f"{zookeeper_root}/autoscaler/shutdown-reports") == []
    finally:
        await zk.stop()


async def test_a_fenced_autoscaler_lives_and_renews_the_lease(
    cluster: Cluster,
    daemons: Any,
    spec: None,
    bucket: str,
    zookeeper_hosts: str,
    zookeeper_root: str,
):
    S3Control(bucket, "toy", REGION).freeze("mesaform down")
    daemon = await daemons()
    await until(lambda: leads(daemon))
    zk = ZooKeeper(zookeeper_hosts)
    await zk.start()

    async def renewals() -> int:
        result = await zk.get(f"{zookeeper_root}/autoscaler/lease")
        return int(msgspec.json.decode(result[0], type=Lease).renewal) if result else 0

    try:
        before = await renewals()
        assert await until(lambda: _more(renewals, before))
    finally:
        await zk.stop()


async def _more(count: Any, than: int) -> bool:
    return bool(await count() > than)
