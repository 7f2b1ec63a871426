"""The cluster under test: every port of the product, in real processes on loopback addresses.

ZooKeeper, an engine master, services, an agent, the local cloud with a machine that has an instance
metadata service, and an autoscaler that buys nothing because its limit of cost is too low.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from harness.autoscaler_builders import a_spec
from harness.networks import claim_net
from mesaform.common import proc
from mesaform.localcloud import daemon
from mesaform.localcloud.layout import METADATA_PORT
from mesaform.topology.names import (
    Tag,
    bucket_name,
    launch_template_name,
    spec_parameter_name,
)
from tests.fuzz.local_files_target import LocalFiles
from tests.fuzz.scheduler import LiveScheduler
from tests.integration.localcloud.conftest import Cloud, operator_key
from tests.support.little_cluster import LittleCluster

REGION = "us-east-1"
CLUSTER = "toy"
ACCOUNT = "123456789012"
SOLVER = "scipy/optimize"
"""Part of the path of the solver's modules."""
GROWTH_MIB = 50
"""How much more memory a process may have after fuzzing than before."""
UNHANDLED = re.compile(rb"unhandled_error|Traceback \(most recent call last\)")
SHOWN_LOG_BYTES = 3000


class Subject:
    """The cluster. Use it as a context manager.

    Attributes:
        addresses: `(host, port)` of each port by its name.
        scheduler: a live framework, whose offers and tasks fuzzed calls may name.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = LittleCluster(folder)
        net = self.cluster.net
        self._machines = claim_net()
        self.master = self.cluster.masters[0]
        self.agent = f"127.{net}.100.1"
        self.autoscaler = f"127.{net}.0.10"
        self.scheduler = LiveScheduler(self.master, agent_host=self.agent)
        self.addresses = {
            "5050": (self.master, 5050),
            "5051": (self.agent, 5051),
            "5052": (self.master, 5052),
            "8080": (self.master, 8080),
            "9550": (self.autoscaler, 9550),
        }
        self.cloud: Cloud
        self.agent_id = self.instance_id = self.bucket = ""
        self._cleanup = contextlib.ExitStack()
        self.files = LocalFiles(folder / "files")
        self._cleanup.callback(self._machines.release)
        self._cleanup.callback(self.files.close)
        self._log_sizes: dict[Path, int] = {}
        self._baseline: dict[str, int] = {}
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.scheduler.close()
        self._cleanup.close()

    def _start(self) -> None:
        self._cleanup.enter_context(self.cluster)
        self.cluster.start_agent(1)
        self._start_cloud()
        self._start_autoscaler()
        self.scheduler.subscribe()
        self.scheduler.run_task("first")
        self._load_solver()
        self.agent_id = self.agent_ids()[0]
        self._pids = self.pids()

    def _start_cloud(self) -> None:
        root = self.folder / "cloud"
        root.mkdir()
        self._cleanup.callback(daemon.stop, root)
        running = daemon.start(root, port=0)
        self.cloud = Cloud(root, running.url, running.pid, self._machines.cidr)
        host, port = running.url.removeprefix("http://").split(":")
        self.addresses["aws"] = (host, int(port))
        machine = self.cloud.launch(self.cloud.image())
        address = self.cloud.wait_state(machine, "running")["PrivateIpAddress"]
        self.addresses["imds"] = (address, METADATA_PORT)
        self.instance_id = machine
        self.bucket = "fuzz-bucket"
        self.cloud.client("s3").create_bucket(Bucket=self.bucket)

    def _start_autoscaler(self) -> None:
        self.cloud.client("s3").create_bucket(Bucket=bucket_name(ACCOUNT, REGION))
        spec = a_spec(pools=[{"count": 0, "max": 1}], usd=0.001, interval_s=1)
        self.cloud.client("ssm").put_parameter(
            Name=spec_parameter_name(CLUSTER), Value=spec.model_dump_json(), Type="String"
        )
        self._make_template(spec.agents[0].name)
        self._run_autoscaler()
        self.cluster.until(self._autoscaler_leads)

    def _make_template(self, pool: str) -> None:
        """Make the launch template of a pool; without one nothing is planned for the pool."""
        tags = [{"Key": Tag.CLUSTER, "Value": CLUSTER}, {"Key": Tag.POOL, "Value": pool}]
        self.cloud.ec2.create_launch_template(
            LaunchTemplateName=launch_template_name(CLUSTER, pool),
            LaunchTemplateData={"ImageId": self.cloud.base_image, "InstanceType": "m5.large"},
            TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
        )

    def _run_autoscaler(self) -> None:
        host, port = self.addresses["9550"]
        environment = {
            "MESAFORM_CLUSTER": CLUSTER,
            "MESAFORM_ZK": self.cluster.zk("/mesaform/autoscaler"),
            "MESAFORM_MASTERS": f"zk://{self.master}:2181/mesos",
            "MESAFORM_BIND": f"{host}:{port}",
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.cloud.url,
            "AWS_ACCESS_KEY_ID": operator_key(self.cloud.root)["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": operator_key(self.cloud.root)["aws_secret_access_key"],
        }
        self.cluster._start("autoscaler", ["mesaform.autoscaler"], environment)

    def _autoscaler_leads(self) -> bool:
        host, port = self.addresses["9550"]
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/health", timeout=5) as response:
                health = json.load(response)
        except (OSError, ValueError):
            return False
        return bool(health["leading"] and health["last_pass_at"])

    def _load_solver(self) -> None:
        """Have the autoscaler plan a purchase. Its solver, 48 MiB, is loaded by the first one.

        Raises:
            TimeoutError: it does not load it.

        """
        base = f"http://{self.master}:8080/v2/apps"
        self._post(
            base, {"id": "/demand", "cmd": "sleep 999", "cpus": 2, "mem": 64, "instances": 9}
        )
        maps = Path(f"/proc/{self.cluster.processes['autoscaler'].pid}/maps")
        self.cluster.until(lambda: SOLVER in maps.read_text())
        self._delete_apps()

    def restart_all(self) -> None:
        """Kill master, services, agent and autoscaler, and start them again on what they stored.

        Raises:
            TimeoutError: they do not serve again in time.

        """
        for process in self.cluster.processes.values():
            process.kill()
            process.wait()
        self.cluster.start_master(self.master)
        self.cluster.start_services(self.master)
        self.cluster.start_agent(1)
        self._run_autoscaler()
        info = f"http://{self.master}:8080/v2/info"
        self.cluster.until(lambda: self.cluster.answers(info) == 200)
        self.cluster.until(self._autoscaler_leads)
        self._pids = self.pids()

    # --- what fuzzed calls may name

    def agent_ids(self) -> list[str]:
        """The ids of the registered agents."""
        with urllib.request.urlopen(f"http://{self.master}:5050/slaves", timeout=10) as response:
            return [agent["id"] for agent in json.load(response)["slaves"]]

    # --- conditions

    def pids(self) -> dict[str, int]:
        """The pid of each process by name; a restarted one has another."""
        pids = {name: process.pid for name, process in self.cluster.processes.items()}
        pids["zookeeper"] = self.cluster.zookeeper.pid
        pids["local cloud"] = self.cloud.pid
        pids["endpoint"] = self.cloud.child("endpoint")
        pids["hypervisor"] = self.cloud.child("hypervisor")
        return pids

    def memory_mib(self) -> dict[str, int]:
        """The resident memory of each process."""
        processes = {name: proc.read_process(pid) for name, pid in self.pids().items()}
        return {
            name: process.rss_bytes >> 20
            for name, process in processes.items()
            if process is not None and name != "zookeeper"  # a JVM's heap has a limit of its own
        }

    def ended(self) -> list[str]:
        """The processes that ended or were restarted since the beginning."""
        now = self.pids()
        return [
            name
            for name, pid in self._pids.items()
            if now[name] != pid or (process := proc.read_process(pid)) is None or process.has_ended
        ]

    def begin_measurement(self) -> None:
        """Take the present memory and logs as the baseline, after a warm-up."""
        self._baseline = self.memory_mib()
        self._log_sizes = {path: path.stat().st_size for path in self._logs()}

    def check(self) -> list[str]:
        """Everything that is wrong now: ended processes, memory, unhandled errors, no service.

        It cleans up first what fuzzed calls have left: apps, drained agents.
        """
        wrong = [f"{name} ended: {self._log_tail(name)}" for name in self.ended()]
        wrong += self.grown()
        wrong += [f"{path.name}: {text}" for path, text in self.unhandled()]
        if not wrong:
            try:
                self.recover()
            except (AssertionError, OSError, TimeoutError) as error:
                wrong.append(f"a fresh framework runs no task: {error}")
        return wrong

    def grown(self) -> list[str]:
        """The processes with too much memory."""
        now = self.memory_mib()
        return [
            f"{name}: memory grew from {before} to {now[name]} MiB"
            for name, before in self._baseline.items()
            if now.get(name, 0) > before + GROWTH_MIB
        ]

    def unhandled(self) -> Iterator[tuple[Path, str]]:
        """The log entries of unhandled errors since `begin_measurement`."""
        for path in self._logs():
            data = path.read_bytes()[self._log_sizes.get(path, 0) :]
            if (match := UNHANDLED.search(data)) is not None:
                start = max(0, match.start() - 200)
                yield path, data[start : match.end() + SHOWN_LOG_BYTES].decode(errors="replace")

    def recover(self) -> None:
        """Remove what fuzzed calls left, and have a fresh framework run a task.

        Raises:
            AssertionError: it gets no offer, or its task does not run.

        """
        self._delete_apps()
        self.cloud.clear_faults()
        for agent_id in self.agent_ids():
            body = {
                "type": "REACTIVATE_AGENT",
                "reactivate_agent": {"agent_id": {"value": agent_id}},
            }
            self._post(f"http://{self.master}:5050/api/v1", body)
        self.scheduler.subscribe()
        self.scheduler.run_task(f"fresh-{time.monotonic_ns()}", 60)
        self.agent_id = self.agent_ids()[0]

    def run_app(self) -> None:
        """Have the services run an app, so that both have records of it.

        The live framework ends first: it may hold the agent's only offer.

        Raises:
            TimeoutError: it does not run in time.

        """
        self.scheduler.close()
        base = f"http://{self.master}:8080/v2/apps"
        self._post(base, {"id": "/stored", "cmd": "sleep 600", "cpus": 0.1, "mem": 32})
        self.cluster.until(lambda: self._is_running(f"{base}//stored"))

    @staticmethod
    def _is_running(url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return bool(json.load(response)["app"]["tasksRunning"])
        except OSError:
            return False

    def _delete_apps(self) -> None:
        base = f"http://{self.master}:8080/v2/apps"
        with urllib.request.urlopen(base, timeout=20) as response:
            apps = [app["id"] for app in json.load(response)["apps"]]
        for app in apps:
            request = urllib.request.Request(f"{base}{app}?force=true", method="DELETE")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=20).close()

    @staticmethod
    def _post(url: str, body: Any) -> None:
        data = json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=20).close()

    def _logs(self) -> list[Path]:
        return [*self.folder.glob("*.log"), *(self.folder / "cloud" / "log").glob("*.log")]

    def _log_tail(self, name: str) -> str:
        for path in self._logs():
            if path.stem == name:
                return path.read_bytes()[-SHOWN_LOG_BYTES:].decode(errors="replace")
        return "no log"


@contextlib.contextmanager
def own_environment() -> Iterator[None]:
    """Without AWS variables: clients of this process talk to the local cloud only."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    try:
        yield
    finally:
        os.environ.update(kept)
