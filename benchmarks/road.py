"""Benchmarks on a local cluster (scale-up, failover, idle memory) and of the stacks' synthesis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from benchmarks.table import Result, show
from harness.cluster_harness import REPOSITORY, ClusterHarness, until
from mesaform.cli.context import local_environment
from mesaform.localcloud.layout import Layout
from mesaform.mesos.messages import Capability, FrameworkInfo
from mesaform.mesos.scheduler import SchedulerClient
from mesaform.mesos.scheduler_api import Event

MIB = 1024 * 1024


def seconds(command: list[str], environment: dict[str, str], folder: Path) -> float:
    started = time.monotonic()
    subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - started


def synth(road: ClusterHarness) -> Result:
    """Compare the synthesis of all stacks with the import of the provider.

    The better of two runs.
    """
    local = {
        "MESAFORM_CLUSTER_FILE": str(road.folder / "cluster.yaml"),
        "CDKTF_OUTDIR": str(road.folder / "bench.out"),
    }
    layout = Layout(road.folder / ".mesaform" / "local")
    local |= local_environment(layout, f"http://127.0.0.1:{road.port}", "us-east-1")
    environment = {
        **road.environment,
        **local,
        "AWS_REGION": "us-east-1",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
    }
    ours = min(
        seconds([sys.executable, "-m", "mesaform_stacks"], environment, REPOSITORY)
        for _ in range(2)
    )
    plain = min(
        seconds([sys.executable, "-c", "import cdktf_cdktf_provider_aws"], environment, REPOSITORY)
        for _ in range(2)
    )
    return Result(
        "synth of all stacks",
        ours,
        plain / 3,
        "s",
        f"limit is a third of the plain import, {plain:.1f} s",
    )


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def idle_memory(road: ClusterHarness) -> list[Result]:
    """The largest resident size among idle embedded masters and agents."""
    sizes: dict[str, list[float]] = {"master": [], "agent": []}
    for pid in road.processes():
        command = command_of(pid)
        if command[-3:-1] == ["-m", "mesaform.engine"]:
            sizes[command[-1]].append(resident_mib(pid))
    return [
        Result(
            f"idle memory of one {role}",
            max(sizes[role]),
            limit,
            "MiB",
            "resident size, no tasks, largest of all",
        )
        for role, limit in (("master", 120.0), ("agent", 80.0))
    ]


def offers_dry(road: ClusterHarness) -> Result:
    """Measure from the POST of an app that does not fit to the recorded launch."""
    started = time.time()
    road.services(
        "/v2/apps",
        method="POST",
        body={"id": "/dry", "cmd": "sleep 600", "cpus": 1, "mem": 64, "instances": 20},
    )

    def launched() -> float | None:
        rows = json.loads(road.mesaform("why", "--json"))["decisions"]
        at = [row["at"] for row in rows if row["at"] >= started and row["decision"] == "buy"]
        return min(at) if at else None

    at = until("a launch is on record", launched, 60)
    until("all run", lambda: len(road.running_tasks("dry")) == 20, 240)
    road.services("/v2/apps/dry", method="DELETE")
    return Result(
        "offers dry to CreateFleet",
        at - started,
        3.0,
        "s",
        "20 x 1 cpu posted to 8080; time of the recorded launch",
    )


def master_at(road: ClusterHarness, address: str) -> int:
    """The process of the engine master at an address."""
    pid = road.engine_pid(address, "master")
    if pid is None:
        raise LookupError(f"no engine master at {address}")
    return pid


async def failover(road: ClusterHarness) -> Result:
    """Measure from SIGKILL of the leading master to the next master's offer to a framework."""
    offered: asyncio.Queue[float] = asyncio.Queue()

    async def leader() -> str:
        while True:
            for address in road.masters():
                code, _, text = await asyncio.to_thread(road.http, f"http://{address}:5050/state")
                if code == 200:
                    pid: str = json.loads(text)["leader_info"]["hostname"]
                    return f"http://{pid}:5050"
            await asyncio.sleep(0.1)

    async def handle(event: Event) -> None:
        if event.type == "OFFERS":
            await offered.put(time.monotonic())

    info = FrameworkInfo(
        user="root",
        name="bench-failover",
        roles=["*"],
        failover_timeout=60.0,
        capabilities=[Capability(type="MULTI_ROLE")],
    )
    async with aiohttp.ClientSession() as session:
        client = SchedulerClient(leader, info, session)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(client.run(handle))
            await offered.get()
            address = (await leader()).removeprefix("http://").removesuffix(":5050")
            os.kill(master_at(road, address), signal.SIGKILL)
            started = time.monotonic()
            while (at := await offered.get()) < started:
                pass
            running.cancel()
    return Result(
        "leader killed to next offers",
        at - started,
        10.0,
        "s",
        "kill -9; Apache Mesos with 500 ms ticks: 10.4 s",
    )


def main() -> None:
    """Raise a cluster in a folder of its own, measure, take it down, print the table."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="mesaform-bench-") as folder:
        road = ClusterHarness(Path(folder), name="bench", cidr="127.79.0.0/16")
        try:
            road.start_local()
            started = time.monotonic()
            road.mesaform("up", "--yes")
            results.append(
                Result(
                    "mesaform up, warm",
                    time.monotonic() - started,
                    120.0,
                    "s",
                    "dependencies installed, image baked on the way",
                )
            )
            results += idle_memory(road)
            results.append(synth(road))
            results.append(asyncio.run(failover(road)))
            results.append(offers_dry(road))
            started = time.monotonic()
            road.mesaform("down", "--yes", "--keep-local")
            print(
                f"mesaform down took {time.monotonic() - started:.1f} s;"
                f" left in EC2: {road.left_in_ec2() or 'nothing'}"
            )
        finally:
            road.end()
    show(results)
    sys.exit(0 if all(result.holds for result in results) else 1)


if __name__ == "__main__":
    main()
