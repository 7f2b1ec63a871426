"""A small cluster of real processes, each on its own loopback address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from harness.networks import claim_net
from harness.zookeeper import ZooKeeperServer

CHECKOUT = Path(__file__).resolve().parents[2]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other."""

    def redirect_request(self, *_: Any) -> None:
        return None


class LittleCluster:
    """Masters have the addresses of a cluster file with `cidr: 127.<net>.0.0/16`.

    The network is claimed while the cluster runs.
    """

    def __init__(self, folder: Path, *, masters: int = 1) -> None:
        self._network = claim_net()
        net = self._network.net
        self.folder, self.net = folder, net
        self.masters = [f"127.{net}.{32 * index}.10" for index in range(masters)]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.zookeeper = ZooKeeperServer(folder / "zookeeper", address=f"127.{net}.250.1")
        self.cluster_file = folder / "cluster.yaml"

    def __enter__(self) -> Self:
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_all(self) -> None:
        self.zookeeper.start()
        self.cluster_file.write_text(
            f"name: little\nnetwork: {{cidr: 127.{self.net}.0.0/16}}\n"
            "agents: [{name: default, count: 0, types: [m5.large]}]\n"
        )
        for address in self.masters:
            self.start_master(address)
            self.start_services(address)
        self.until(
            lambda: any(
                self.answers(f"http://{address}:8080/v2/info") == 200 for address in self.masters
            )
        )

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.zookeeper.kill()
        self._network.release()

    def zk(self, path: str) -> str:
        return f"zk://{self.zookeeper.hosts}{path}"

    def start_master(self, address: str) -> None:
        env = {
            "MESOS_IP": address,
            "MESOS_PORT": "5050",
            "MESOS_ZK": self.zk("/mesos"),
            "MESOS_QUORUM": "1",
            "MESOS_HOSTNAME": address,
        }
        env |= {
            "MESOS_CLUSTER": "little",
            "MESOS_WORK_DIR": str(self.folder / f"master-{address}"),
            "MESAFORM_LINK_PORT": "5052",
        }
        self._start(f"master-{address}", ["mesaform.engine", "master"], env)

    def start_services(self, address: str) -> None:
        env = {
            "MARATHON_MASTER": self.zk("/mesos"),
            "MARATHON_ZK": self.zk("/marathon"),
            "MARATHON_HOSTNAME": address,
        }
        env |= {"MARATHON_HTTP_ADDRESS": address, "MARATHON_HTTP_PORT": "8080"}
        self._start(f"services-{address}", ["mesaform.services"], env)

    def start_agent(
        self, number: int, resources: str = "cpus:4;mem:2048;disk:4096;ports:[31000-31999]"
    ) -> str:
        address = f"127.{self.net}.100.{number}"
        env = {
            "MESOS_MASTER": self.zk("/mesos"),
            "MESOS_IP": address,
            "MESOS_PORT": "5051",
            "MESOS_HOSTNAME": address,
        }
        env |= {
            "MESOS_WORK_DIR": str(self.folder / f"agent-{number}"),
            "MESOS_RESOURCES": resources,
        }
        env |= {"MESOS_ATTRIBUTES": f"rack:r{number}", "MESAFORM_LINK_PORT": "5052"}
        self._start(f"agent-{number}", ["mesaform.engine", "agent"], env)
        return address

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def answers(self, url: str) -> int:
        """The status of a GET, without following redirects to leaders; 0 when nobody answers."""
        try:
            with urllib.request.build_opener(NoRedirect).open(url, timeout=20) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def until(self, holds: Callable[[], Any], timeout_s: float = 120.0) -> Any:
        end = time.monotonic() + timeout_s
        while not (result := holds()):
            if time.monotonic() > end:
                raise TimeoutError(f"not in {timeout_s:g} s; logs are in {self.folder}")
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended: {self.log(name)[-2000:]}"
            time.sleep(0.1)
        return result

    def _start(self, name: str, module: list[str], env: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *module],
                env={**os.environ, **env},
                cwd=CHECKOUT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
