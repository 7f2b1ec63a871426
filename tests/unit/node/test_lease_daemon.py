"""The lease at work: on virtual time with a made-up world, and as real processes on a machine of their own."""

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

from mesaform.node.control_channel import LineBroken
from mesaform.node.lease_daemon import Keeper, seen
from mesaform.node.lease_monitor import LeaseMonitor, Leave, Looked, Seen, State, Terms, Unseen
from mesaform.topology.user_data import Lease, LeaseTerms, ShutdownReport
from tests.integration.node.nodes import REPOSITORY, until
from tests.support.little_cluster import LittleCluster
from tests.support.zookeeper import available


class Story:
    """A world, a node and a clock: time passes only while the keeper sleeps."""

    def __init__(self, lease_s: float = 600.0, empty_s: float = 60.0) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.renewed_until = 0.0  # the autoscaler works until then
        self.zookeeper_away = (0.0, 0.0)
        self.busy_until = 0.0
        self.left: tuple[str, ...] = ()
        self.answers = True
        self.back_while_it_stops = False
        self.farewells: list[Leave] = []
        self.keeper = Keeper(
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

    async def lease(self) -> Seen | Unseen:
        if self.zookeeper_away[0] <= self.now < self.zookeeper_away[1]:
            return Unseen()
        return Seen(str(int(min(self.now, self.renewed_until) // 5) + 1))

    async def agent(self) -> Looked:
        self.told.append("look")
        return Looked("busy" if self.now < self.busy_until else "empty")

    async def master_has_work(self) -> bool | None:
        self.told.append("ask the master")
        return None

    async def farewell(self, leave: Leave) -> None:
        self.told.append("farewell")
        self.farewells.append(leave)

    async def hold(self) -> tuple[str, ...]:
        self.told.append("hold")
        if self.back_while_it_stops:
            self.renewed_until = self.now + 5
            self.now += 5
        if not self.answers:
            raise LineBroken("the node does not answer")
        return self.left

    async def release(self) -> None:
        self.told.append("release")

    async def power_off(self) -> None:
        self.told.append("power off")

    async def until(self, seconds: float) -> None:
        self.stop_at = seconds
        with pytest.raises(TimeoutError):
            await self.keeper.run()

    @property
    def deeds(self) -> list[str]:
        return [word for word in self.told if word != "look"]


async def test_a_machine_of_an_autoscaler_that_died_looks_stops_its_agent_looks_again_and_leaves():
    story = Story()
    story.renewed_until = 1000.0
    await story.keeper.run()
    assert story.deeds == ["hold", "ask the master", "farewell", "power off"]
    assert 1600 <= story.now <= 1600 + 2 * story.keeper.pause_s
    assert story.farewells[0].silent_s >= 600


async def test_an_autoscaler_that_works_is_not_bothered_and_its_agents_are_not_asked():
    story = Story()
    story.renewed_until = 1e6
    await story.until(5 * 86400)
    assert story.told == []


async def test_an_ensemble_that_is_away_for_less_than_the_lease_costs_nobody_a_machine():
    story = Story()
    story.renewed_until = 1e6
    story.zookeeper_away = (1000, 1500)
    await story.until(86400)
    assert story.deeds == []


async def test_masters_that_are_gone_for_good_cost_the_empty_machine():
    story = Story()
    story.renewed_until = 1e6
    story.zookeeper_away = (1000, 1e9)
    await story.keeper.run()
    assert story.deeds[-1] == "power off"
    assert story.now < 1700


async def test_a_machine_with_work_waits_for_its_end_however_long_nobody_leads():
    story = Story()
    story.busy_until = 86400.0
    await story.keeper.run()
    assert 86400 + 60 <= story.now <= 86400 + 120


async def test_a_process_left_behind_makes_the_agent_start_again():
    story = Story()
    story.left = ("sleep",)
    await story.until(700)
    assert story.deeds == ["hold", "release"]


async def test_an_autoscaler_that_is_back_while_the_agent_stops_keeps_the_machine_and_the_master_is_not_asked():
    story = Story()
    story.back_while_it_stops = True
    await story.until(1100)
    assert story.deeds == ["hold", "release"]
    assert story.keeper.watch.state is State.KEPT


async def test_a_node_that_does_not_answer_ends_the_keeper_and_nothing_else():
    story = Story()
    story.answers = False
    with pytest.raises(LineBroken):
        await story.keeper.run()
    assert story.deeds == ["hold"]


async def test_it_looks_twenty_times_a_lease_within_bounds():
    assert Story(lease_s=60).keeper.pause_s == 3
    assert Story(lease_s=1).keeper.pause_s == 1
    assert Story(lease_s=86400).keeper.pause_s == 15
    assert Story(lease_s=0).keeper.pause_s == 15


def test_a_lease_is_read_with_its_terms_and_who_is_spared():
    lease = Lease(3, 17, "127.0.0.1:9550", 12.5, LeaseTerms(900, 30), protected=("i-1",))
    data = msgspec.json.encode(lease)
    assert seen(data, "i-1") == Seen("3.17.12.5", Terms(900, 30), spared=True)
    assert seen(data, "i-2") == Seen("3.17.12.5", Terms(900, 30))
    assert (
        seen(msgspec.json.encode(msgspec.structs.replace(lease, terms=None)), "i-2").terms is None
    )
    assert seen(b"not json", "i-2").mark != seen(b"nor this", "i-2").mark


# An agent of the autoscaler's as its node runs it, with ZooKeeper on the test's port and terms of seconds.
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
desired = roles.desired(document, identity, Hardware(2, 4096), machine.programs(), PurePosixPath(folder))
elsewhere = {"MESOS_MASTER": f"{zk}/mesos", "MESAFORM_ZK": f"{zk}/mesaform/autoscaler", "MESAFORM_MASTERS": f"zk://{master}:2181/mesos"}
services = tuple(replace(s, env={**s.env, **{k: v for k, v in elsewhere.items() if k in s.env}}) for s in desired.services)
sys.exit(serve(document, identity, replace(desired, services=services), Path(folder), os.environ))
"""


class Leased:
    """A bought machine in a little cluster."""

    def __init__(self, cluster: LittleCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.witness = folder / "powered-off"
        folder.mkdir()
        document = {
            "version": 1, "cluster": "little", "role": "agent", "region": "us-east-1", "engine": "embedded", "zookeeper": [],
            "recipe": "none", "pool": "default", "lease": {"lease_s": 4.0, "empty_s": 1.0},
        }  # fmt: skip
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
                env={**os.environ, "MESAFORM_POWEROFF": f"touch {self.witness}"},
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
        with urllib.request.urlopen(request, timeout=5) as answer:
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
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleCluster]:
    with LittleCluster(tmp_path_factory.mktemp("lease"), 163) as made:
        yield made


@pytest.fixture
def leased(cluster: LittleCluster, tmp_path: Path) -> Iterator[Leased]:
    made = Leased(cluster, tmp_path / "machine")
    yield made
    made.end()


class Autoscaler:
    """One that lives as long as it is asked to renew."""

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
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return False
        return True

    until(f"{method} {path} is accepted", accepted, 30)


@pytest.mark.slow
@pytest.mark.zookeeper
@pytest.mark.skipif(not available(), reason="needs Debian's zookeeper and Java")
@pytest.mark.timeout(180)
def test_a_machine_whose_autoscaler_falls_silent_keeps_its_task_and_ends_itself_after_it(
    cluster: LittleCluster, leased: Leased
):
    zk = KazooClient(cluster.zookeeper.hosts)
    zk.start(timeout=10)
    autoscaler = Autoscaler(zk)
    until("it is registered", lambda: autoscaler.renews() and leased.is_registered(), 40)
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
        20,
    )
    assert "this machine ends itself once" not in leased.log(), "renewed, and yet out"
    until("the lease ran out", lambda: "this machine ends itself once" in leased.log(), 40)
    since = time.monotonic()
    until("it was silent for two leases more", lambda: time.monotonic() - since > 8, 20)
    assert leased.process.poll() is None, "ended with a task"
    assert "is stopped, to look again" not in leased.log()
    services(cluster, "/v2/apps/job", "DELETE")
    assert leased.process.wait(60) == 0
    assert leased.witness.exists()
    assert "powering off" in leased.log()
    assert leased.agents() == [], "the master was told"
    word = msgspec.json.decode(
        zk.get("/mesaform/autoscaler/shutdown-reports/i-leased")[0], type=ShutdownReport
    )
    zk.stop()
    zk.close()
    assert word.silent_s >= 4
    assert word.empty_s >= 10
    assert "i-leased" in word.instance_id


def test_the_last_state_is_final():
    watch = LeaseMonitor(Terms(1, 0), 0, state=State.LEAVING)
    assert watch.handle(Seen("1"), 100) == []
    assert watch.state is State.LEAVING
