"""The agent lease: with simulated time and cluster, and as real processes of one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kazoo.client import KazooClient

from harness.zookeeper import available
from mesaform.node.control_channel import ChannelBroken
from mesaform.node.lease_daemon import LeaseKeeper, parse_lease
from mesaform.node.lease_monitor import (
    AgentObserved,
    LeaseMonitor,
    LeaseRead,
    LeaseUnreadable,
    PowerOff,
    State,
    Terms,
)
from mesaform.topology.user_data import Lease, LeaseTerms, ShutdownReport
from tests.integration.node.nodes import REPOSITORY, until
from tests.support.little_cluster import LittleCluster


class Simulation:
    """A cluster, a node and a clock; time passes only while the keeper sleeps."""

    def __init__(self, lease_s: float = 600.0, empty_s: float = 60.0) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.renewed_until = 0.0  # the autoscaler works until then
        self.zookeeper_outage = (0.0, 0.0)
        self.busy_until = 0.0
        self.remaining: tuple[str, ...] = ()
        self.node_answers = True
        self.renews_while_stopping = False
        self.reports: list[PowerOff] = []
        self.keeper = LeaseKeeper(
            LeaseMonitor(Terms(lease_s, empty_s), self.now),
            self,
            self,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        self.stop_at = 1e9

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.stop_at:
            raise TimeoutError

    async def read_lease(self) -> LeaseRead | LeaseUnreadable:
        if self.zookeeper_outage[0] <= self.now < self.zookeeper_outage[1]:
            return LeaseUnreadable()
        return LeaseRead(str(int(min(self.now, self.renewed_until) // 5) + 1))

    async def observe_agent(self) -> AgentObserved:
        self.calls.append("observe")
        return AgentObserved("busy" if self.now < self.busy_until else "empty")

    async def master_has_work(self) -> bool | None:
        self.calls.append("ask the master")
        return None

    async def report_shutdown(self, cause: PowerOff) -> None:
        self.calls.append("report")
        self.reports.append(cause)

    async def hold(self) -> tuple[str, ...]:
        self.calls.append("hold")
        if self.renews_while_stopping:
            self.renewed_until = self.now + 5
            self.now += 5
        if not self.node_answers:
            raise ChannelBroken("the node does not answer")
        return self.remaining

    async def release(self) -> None:
        self.calls.append("release")

    async def power_off(self) -> None:
        self.calls.append("power off")

    async def until(self, seconds: float) -> None:
        self.stop_at = seconds
        with pytest.raises(TimeoutError):
            await self.keeper.run()

    @property
    def actions(self) -> list[str]:
        return [call for call in self.calls if call != "observe"]


async def test_an_empty_machine_without_autoscaler_stops_its_agent_verifies_and_powers_off():
    simulation = Simulation()
    simulation.renewed_until = 1000.0
    await simulation.keeper.run()
    assert simulation.actions == ["hold", "ask the master", "report", "power off"]
    assert 1600 <= simulation.now <= 1600 + 2 * simulation.keeper.pause_s
    assert simulation.reports[0].silent_s >= 600


async def test_an_agent_is_not_asked_while_the_autoscaler_works():
    simulation = Simulation()
    simulation.renewed_until = 1e6
    await simulation.until(5 * 86400)
    assert simulation.calls == []


async def test_a_zookeeper_outage_shorter_than_the_lease_ends_no_machine():
    simulation = Simulation()
    simulation.renewed_until = 1e6
    simulation.zookeeper_outage = (1000, 1500)
    await simulation.until(86400)
    assert simulation.actions == []


async def test_an_empty_machine_powers_off_when_the_masters_are_gone():
    simulation = Simulation()
    simulation.renewed_until = 1e6
    simulation.zookeeper_outage = (1000, 1e9)
    await simulation.keeper.run()
    assert simulation.actions[-1] == "power off"
    assert simulation.now < 1700


async def test_a_machine_without_autoscaler_runs_until_its_work_ends():
    simulation = Simulation()
    simulation.busy_until = 86400.0
    await simulation.keeper.run()
    assert 86400 + 60 <= simulation.now <= 86400 + 120


async def test_a_remaining_process_makes_the_agent_restart():
    simulation = Simulation()
    simulation.remaining = ("sleep",)
    await simulation.until(700)
    assert simulation.actions == ["hold", "release"]


async def test_a_renewal_while_the_agent_stops_keeps_the_machine():
    simulation = Simulation()
    simulation.renews_while_stopping = True
    await simulation.until(1100)
    assert simulation.actions == ["hold", "release"]
    assert simulation.keeper.monitor.state is State.RENEWED


async def test_a_broken_channel_ends_the_keeper_only():
    simulation = Simulation()
    simulation.node_answers = False
    with pytest.raises(ChannelBroken):
        await simulation.keeper.run()
    assert simulation.actions == ["hold"]


async def test_the_keeper_observes_twenty_times_a_lease_within_bounds():
    assert Simulation(lease_s=60).keeper.pause_s == 3
    assert Simulation(lease_s=1).keeper.pause_s == 1
    assert Simulation(lease_s=86400).keeper.pause_s == 15
    assert Simulation(lease_s=0).keeper.pause_s == 15


def test_a_lease_is_parsed_with_its_terms_and_protected_machines():
    lease = Lease(3, 17, "127.0.0.1:9550", 12.5, LeaseTerms(900, 30), protected=("i-1",))
    data = msgspec.json.encode(lease)
    assert parse_lease(data, "i-1") == LeaseRead("3.17.12.5", Terms(900, 30), is_protected=True)
    assert parse_lease(data, "i-2") == LeaseRead("3.17.12.5", Terms(900, 30))
    assert (
        parse_lease(msgspec.json.encode(msgspec.structs.replace(lease, terms=None)), "i-2").terms
        is None
    )
    assert parse_lease(b"not json", "i-2").mark != parse_lease(b"nor this", "i-2").mark


# The node of an agent with a lease, with ZooKeeper on the test's port and terms of seconds.
DRIVER = """
import os, sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from mesaform.node import machine, roles
from mesaform.node.main import serve
from mesaform.node.model import Hardware, Identity
from mesaform.topology.user_data import parse_node_document
document, address, zk, master, folder = parse_node_document(sys.argv[1]), *sys.argv[2:6]
identity = Identity("i-leased", "m5.large", "us-east-1a", address, "on-demand")
desired = roles.desired(
    document, identity, Hardware(2, 4096), machine.programs(), PurePosixPath(folder)
)
overrides = {
    "MESOS_MASTER": f"{zk}/mesos",
    "MESAFORM_ZK": f"{zk}/mesaform/autoscaler",
    "MESAFORM_MASTERS": f"zk://{master}:2181/mesos",
}
services = tuple(
    replace(s, env={**s.env, **{k: v for k, v in overrides.items() if k in s.env}})
    for s in desired.services
)
sys.exit(serve(document, identity, replace(desired, services=services), Path(folder), os.environ))
"""


class Leased:
    """A machine that the autoscaler launched, in a small cluster."""

    def __init__(self, cluster: LittleCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.marker = folder / "powered-off"
        folder.mkdir()
        document = {
            "version": 1,
            "cluster": "little",
            "role": "agent",
            "region": "us-east-1",
            "engine": "embedded",
            "zookeeper": [],
            "recipe": "none",
            "pool": "default",
            "lease": {"lease_s": 4.0, "empty_s": 1.0},
        }
        zk = f"zk://{cluster.zookeeper.hosts}"
        address = f"127.{cluster.net}.100.1"
        with (folder / "console").open("wb") as console:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    DRIVER,
                    json.dumps(document),
                    address,
                    zk,
                    cluster.masters[0],
                    str(folder),
                ],
                cwd=REPOSITORY,
                env={**os.environ, "MESAFORM_POWEROFF": f"touch {self.marker}"},
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        path = self.folder / "log" / "lease.log"
        return path.read_text() if path.exists() else ""

    def agents(self) -> list[str]:
        body = json.dumps({"type": "GET_AGENTS"}).encode()
        request = urllib.request.Request(
            f"http://{self.cluster.masters[0]}:5050/api/v1",
            data=body,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [
                agent["agent_info"]["hostname"]
                for agent in json.load(answer)["get_agents"].get("agents", ())
            ]

    def is_registered(self) -> bool:
        try:
            return bool(self.agents())
        except OSError:  # no master leads yet
            return False

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleCluster]:
    with LittleCluster(tmp_path_factory.mktemp("lease")) as little_cluster:
        yield little_cluster


@pytest.fixture
def leased(cluster: LittleCluster, tmp_path: Path) -> Iterator[Leased]:
    machine = Leased(cluster, tmp_path / "machine")
    yield machine
    machine.end()


class Autoscaler:
    """A leader that renews the lease on each call."""

    def __init__(self, zk: KazooClient) -> None:
        self._zk = zk
        self._renewals = 0

    def renews(self) -> bool:
        self._renewals += 1
        self._zk.ensure_path("/mesaform/autoscaler/lease")
        self._zk.set(
            "/mesaform/autoscaler/lease",
            msgspec.json.encode(Lease(1, self._renewals, "127.0.0.1:9550", 0.0)),
        )
        return True


def services(cluster: LittleCluster, path: str, method: str, body: object = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{cluster.masters[0]}:8080{path}",
        data=data,
        method=method,
        headers={"Content-Type": "application/json"},
    )

    def accepted() -> bool:  # 503 while the services have no framework id yet
        try:
            urllib.request.urlopen(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return False
        return True

    until(f"{method} {path} is accepted", accepted, 60)


@pytest.mark.slow
@pytest.mark.zookeeper
@pytest.mark.skipif(not available(), reason="needs Debian's zookeeper and Java")
@pytest.mark.timeout(180)
def test_a_machine_without_autoscaler_runs_its_task_and_then_powers_off(
    cluster: LittleCluster, leased: Leased
):
    zk = KazooClient(cluster.zookeeper.hosts)
    zk.start(timeout=60)
    autoscaler = Autoscaler(zk)
    until("it is registered", lambda: autoscaler.renews() and leased.is_registered(), 60)
    services(
        cluster,
        "/v2/apps",
        "POST",
        {"id": "/job", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 1},
    )
    since = time.monotonic()
    until(
        "it was renewed for two leases",
        lambda: autoscaler.renews() and time.monotonic() - since > 8,
        60,
    )
    assert "the machine powers off once" not in leased.log(), "renewed, and yet out"
    until("the lease ran out", lambda: "the machine powers off once" in leased.log(), 60)
    since = time.monotonic()
    until("it was silent for two leases more", lambda: time.monotonic() - since > 8, 60)
    assert leased.process.poll() is None, "ended with a task"
    assert "stopping the engine's agent" not in leased.log()
    services(cluster, "/v2/apps/job", "DELETE")
    assert leased.process.wait(60) == 0
    assert leased.marker.exists()
    assert "powering off" in leased.log()
    assert leased.agents() == [], "the master marks the agent as gone"
    report = msgspec.json.decode(
        zk.get("/mesaform/autoscaler/shutdown-reports/i-leased")[0], type=ShutdownReport
    )
    zk.stop()
    zk.close()
    assert report.silent_s >= 4
    assert report.empty_s >= 10
    assert "i-leased" in report.instance_id


def test_the_last_state_is_final():
    monitor = LeaseMonitor(Terms(1, 0), 0, state=State.POWERING_OFF)
    assert monitor.handle(LeaseRead("1"), 100) == []
    assert monitor.state is State.POWERING_OFF
