"""Both engines in one run: failover, latency, launches, memory and disk of a local cluster.

`python -m benchmarks.engines` raises a cluster with each engine in turn, and prints a table.
Without `MESAFORM_TEST_MESOS` only the embedded engine is measured.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks.road import MIB, failover, resident_mib
from harness.cluster_harness import CLUSTER, ClusterHarness, until
from harness.mesos_prefix import mesos_prefix
from mesaform.topology.user_data import Engine

SINGLE_APPS = 5
LAUNCHES = 40
POLL_S = 0.02
BLOCK_BYTES = 512
"""Unit of `st_blocks` (stat(2))."""

ROLES = ("masters", "agents")
FIGURES = (
    "idle memory of a master, MiB",
    "idle memory of an agent, MiB",
    "disk of a master beyond the image, MiB",
    "disk of an agent beyond the image, MiB",
    "POST of one instance to running, median of 5, s",
    "launches on two agents, tasks a second (40 x 0.05 cpus)",
    "leader killed to next offers, s",
    "burst of 40 x 0.5 cpus to all running, s",
)
"""In the order in which they are measured."""


def measure(folder: Path, engine: Engine) -> dict[str, float]:
    """The figures of one engine, on a cluster of three masters and two agents."""
    road = ClusterHarness(
        folder,
        name=f"bench-{engine}",
        cidr="127.79.0.0/16",
        template=f"{CLUSTER}engine: {engine}\n",
        mesos=mesos_prefix() if engine == "mesos" else None,
    )
    figures: dict[str, float] = {}

    def keep(value: float) -> None:
        figure = FIGURES[len(figures)]
        figures[figure] = value
        print(f"{engine}: {figure}: {value:.2f}", file=sys.stderr, flush=True)

    try:
        road.start_local()
        road.mesaform("up", "--yes", timeout_s=900)
        for role in ROLES:
            keep(idle_memory(road, role))
        for role in ROLES:
            keep(disk_use(road, role))
        keep(statistics.median(app_latency(road, f"single-{n}") for n in range(SINGLE_APPS)))
        keep(LAUNCHES / app_latency(road, "launches", instances=LAUNCHES, cpus=0.05))
        keep(asyncio.run(failover(road)).measured)
        keep(app_latency(road, "burst", instances=LAUNCHES, cpus=0.5))
    finally:
        road.end()
    return figures


def app_latency(road: ClusterHarness, name: str, *, instances: int = 1, cpus: float = 0.1) -> float:
    """Seconds from the POST of an app until the master says that all its instances run."""
    body = {"id": f"/{name}", "cmd": "sleep 1000", "cpus": cpus, "mem": 32, "instances": instances}
    started = time.monotonic()
    road.services("/v2/apps", method="POST", body=body)
    until(
        f"{instances} of {name} run",
        lambda: len(road.running_tasks(f"{name}.")) == instances,
        600,
        poll_s=POLL_S,
    )
    taken_s = time.monotonic() - started
    road.services(f"/v2/apps/{name}?force=true", method="DELETE")
    until(f"{name} ends", lambda: not road.running_tasks(f"{name}."), 300)
    until("its machines end", lambda: not road.bought("pending", "running"), 300)
    return taken_s


def idle_memory(road: ClusterHarness, role: str) -> float:
    """The largest resident size of the role's engine processes, in MiB."""
    part: Literal["master", "agent"] = "master" if role == "masters" else "agent"
    pids = [road.engine_pid(machine["address"], part) for machine in road.status()[role]]
    return max(resident_mib(pid) for pid in pids if pid is not None)


def disk_use(road: ClusterHarness, role: str) -> float:
    """The largest size of what the role's machines wrote, data volumes included, in MiB."""
    local = road.folder / ".mesaform" / "local" / "machines"
    ids = [machine["instance_id"] for machine in road.status()[role]]
    return max(sum(sizes(local / name)) / MIB for name in ids)


def sizes(folder: Path) -> Iterator[int]:
    """Allocated bytes of the files below a folder; links to volumes are followed."""
    seen: set[tuple[int, int]] = set()
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            try:
                facts = Path(parent, name).stat()
            except OSError:
                continue  # ended meanwhile
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                yield facts.st_blocks * BLOCK_BYTES


def main() -> None:
    """Measure the engines that are there, and print the table."""
    engines: list[Engine] = ["embedded"]
    if mesos_prefix():
        engines.append("mesos")
    columns: dict[Engine, dict[str, float]] = {}
    for engine in engines:
        with tempfile.TemporaryDirectory(prefix="mesaform-engines-") as folder:
            columns[engine] = measure(Path(folder), engine)
    table = Table(title="Engines on a local cluster")
    table.add_column("figure")
    for engine in engines:
        table.add_column(engine, justify="right")
    for figure in FIGURES:
        table.add_row(figure, *(f"{columns[engine][figure]:.2f}" for engine in engines))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
