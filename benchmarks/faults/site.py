"""The cluster under test: its processes, its leaders, its steady load, and what must not change."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.cluster_harness import ClusterHarness, until
from mesaform.common import proc

STEADY = "steady"
STEADY_TASKS = 10
BURST = "burst"
BURST_TASKS = 24
LARGEST_CPUS = 8
CPUS = {"m5.large": 2, "m5.xlarge": 4, "m5.2xlarge": 8}
RECOVERY_S = 240.0
"""Seconds after which a fault counts as not recovered."""

SERVICES = ("-m", "mesaform.services")
AUTOSCALER = ("-m", "mesaform.autoscaler")


@dataclass(slots=True)
class Site:
    """A cluster with a steady load of ten tasks on two agents."""

    road: ClusterHarness
    random: random.Random
    steady: set[str] = field(default_factory=set)

    # processes

    def process(self, address: str, *command: str) -> int:
        """The process of a machine whose command ends so."""
        return until(
            f"{' '.join(command)} runs at {address}",
            lambda: self.road.pid_on(address, *command),
            60,
        )

    def engine(self, address: str, part: Literal["master", "agent"]) -> int:
        """The process of the engine's master or agent at an address."""
        return self.process(address, *self.road.engine_command(part))

    def machine_processes(self, address: str) -> list[int]:
        """All processes of the machine at an address."""
        node = self.process(address, "-m", "mesaform.node")
        entries = proc.environment_of(node)
        instance = next(item for item in entries if item.startswith(b"MESAFORM_INSTANCE_ID="))
        return proc.pids_with_environment(instance.decode())

    def zookeeper(self, address: str) -> int:
        """ZooKeeper's process at an address."""
        node = self.process(address, "-m", "mesaform.node")
        children = proc.descendants(node, proc.running_processes())
        return next(
            child.pid
            for child in children
            if any("zookeeper" in word for word in proc.command_of(child.pid))
            and Path(proc.command_of(child.pid)[0]).name == "java"
        )

    def cloud_process(self, role: str) -> int:
        """The process of the local cloud with this role: supervise, endpoint or hypervisor."""
        root = str(self.road.folder / ".mesaform" / "local")
        return until(f"the local cloud's {role} runs", lambda: _cloud_pid(role, root), 60)

    def agents(self) -> list[str]:
        """Addresses of Terraform's agents."""
        reservations = self.road.boto("ec2").describe_instances(
            Filters=[
                {"Name": "tag:mesaform:cluster", "Values": [self.road.name]},
                {"Name": "tag:mesaform:role", "Values": ["agent"]},
                {"Name": "tag:mesaform:managed-by", "Values": ["terraform"]},
                {"Name": "instance-state-name", "Values": ["running"]},
            ]
        )["Reservations"]
        return sorted(
            item["PrivateIpAddress"] for group in reservations for item in group["Instances"]
        )

    # leaders

    def leader(self, port: int, path: str, among: Sequence[str] | None = None) -> str | None:
        """The address of the one master that answers itself; None if none or several do."""
        answering = [
            address
            for address in (among or self.road.masters())
            if self.road.http(f"http://{address}:{port}{path}", timeout_s=2)[0] == 200
        ]
        return answering[0] if len(answering) == 1 else None

    def engine_leader(self) -> str | None:
        return self.leader(5050, "/state")

    def services_leader(self) -> str | None:
        return self.leader(8080, "/v2/apps")

    def autoscaler_leader(self) -> str | None:
        """The master whose autoscaler reports the latest heartbeat."""
        text = self.road.mesaform("status", "--json", timeout_s=60)
        address = json.loads(text).get("autoscaler", {}).get("address")
        return str(address).partition(":")[0] if address else None

    # load

    def start_steady_load(self) -> None:
        """Run the tasks that no fault may end."""
        self.post(STEADY, STEADY_TASKS, 0.1)
        until("the steady tasks run", lambda: len(self.running(STEADY)) == STEADY_TASKS, 120)
        self.steady = self.running(STEADY)

    def post(self, name: str, count: int, cpus: float, host: str = "") -> None:
        """Post an app of sleeping tasks; with a host name, all of them on that agent."""
        self.road.services(
            "/v2/apps",
            method="POST",
            body={
                "id": f"/{name}",
                "cmd": "sleep 100000",
                "cpus": cpus,
                "mem": 32,
                "instances": count,
                "constraints": [["hostname", "CLUSTER", host]] if host else [],
            },
        )

    def delete(self, name: str) -> None:
        self.road.services(f"/v2/apps/{name}?force=true", method="DELETE")

    def failure(self, name: str) -> str:
        """The reason why the last task of an app failed; empty if none has."""
        app = self.road.services(f"/v2/apps/{name}")["app"]
        return str((app.get("lastTaskFailure") or {}).get("message", ""))

    def running(self, name: str) -> set[str]:
        return self.road.running_tasks(name)

    def is_serving(self) -> bool:
        """Whether one engine master leads and every steady task runs."""
        return self.engine_leader() is not None and self.running(STEADY) >= self.steady

    def lost(self) -> int:
        """Steady tasks that ended. The load is renewed, so that the next fault begins whole."""
        missing = self.steady - self.running(STEADY)
        if missing:
            until("steady tasks", lambda: len(self.running(STEADY)) == STEADY_TASKS, 120)
            self.steady = self.running(STEADY)
        return len(missing)

    # measures

    def recovery(self, what: str, condition: Callable[[], object]) -> float:
        """Seconds until the condition holds.

        Raises:
            AssertionError: it does not within `RECOVERY_S`.

        """
        began = time.monotonic()
        until(what, condition, RECOVERY_S)
        return time.monotonic() - began

    def excess_machines(self, needed_cpus: float) -> int:
        """Machines of the autoscaler beyond the demand, in units of the largest type."""
        alive = self.road.bought("pending", "running").values()
        bought = sum(CPUS.get(item["InstanceType"], 0) for item in alive)
        return max(0, int((bought - needed_cpus) // LARGEST_CPUS))

    def end_burst(self) -> int:
        """Remove the burst; returns how many machines of it do not go."""
        self.road.services(f"/v2/apps/{BURST}", method="DELETE")
        try:
            until(
                "the burst's machines are removed",
                lambda: not self.road.bought("pending", "running", "shutting-down"),
                RECOVERY_S,
            )
        except AssertionError:
            return len(self.road.bought("pending", "running", "shutting-down"))
        return 0


def _cloud_pid(role: str, root: str) -> int | None:
    for pid in proc.pids():
        words = proc.command_of(pid)
        if words[1:4] == ["-m", "mesaform.localcloud", role] and root in words:
            return pid
    return None


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes (SIGSTOP) for the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def last_for(seconds: float) -> None:
    """Let a fault last. This is the fault's own duration, and no wait for a condition."""
    time.sleep(seconds)
