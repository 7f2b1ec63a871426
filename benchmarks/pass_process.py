"""Process like the daemon's that reads a large cluster over HTTP and plans.

`measure` starts the process and serves the master's answers to it.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from benchmarks.master_answers import AT, SERVICES_ANSWERS, address, master_answers

if TYPE_CHECKING:
    from mesaform.aws.ports import Ledger
    from mesaform.config.schema import ClusterSpec
    from mesaform.testing.fake_cloud import FakeFleet

AGENTS, PASSES = 1000, 6
KIB = 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """Processor seconds and resident sizes. `peak_mib` is the peak before the solver is loaded."""

    agents: int
    tasks: int
    body_mib: float
    base_mib: float
    peak_mib: float
    solver_mib: float
    first_s: float
    pass_s: float


def measure(*, consolidation: bool) -> Figures:
    """Serve, run the process, return what it found."""
    return asyncio.run(_measure(consolidation=consolidation))


def _engine_bodies() -> dict[str, bytes]:
    """Return the body of each answer of the master, by the name of the call."""
    return {
        name: json.dumps(answer, separators=(",", ":")).encode()
        for name, answer in master_answers(AGENTS).items()
    }


async def _measure(*, consolidation: bool) -> Figures:
    bodies = _engine_bodies()

    async def engine(request: web.Request) -> web.Response:
        return web.Response(
            body=bodies[(await request.json())["type"]], content_type="application/json"
        )

    async def services(request: web.Request) -> web.Response:
        return web.json_response(SERVICES_ANSWERS[request.path])

    app = web.Application()
    app.router.add_post("/api/v1", engine)
    app.router.add_get("/v2/{what}", services)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        command = [
            sys.executable,
            "-m",
            "benchmarks.pass_process",
            f"http://127.0.0.1:{runner.addresses[0][1]}",
            str(int(consolidation)),
        ]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await child.communicate()
    finally:
        await runner.cleanup()
    if child.returncode:
        raise SystemExit(f"the process ended with {child.returncode}")
    return Figures(**{**json.loads(out), "body_mib": sum(map(len, bodies.values())) / KIB / KIB})


# the process


def resident_mib(what: str = "VmRSS") -> float:
    """Return the resident size, or its peak (`VmHWM`).

    The peak of getrusage includes the parent's size before the fork.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) / KIB


class Nowhere:
    """A ledger that makes its objects and keeps none."""

    def append_many(self, records: Iterable[Mapping[str, Any]]) -> None:
        gzip.compress(b"\n".join(json.dumps(record).encode() for record in records))

    def append(self, record: Mapping[str, Any]) -> None:
        self.append_many([record])


def _aws_clients() -> list[object]:
    """Return clients of the services that the daemon uses; their memory is measured."""
    import boto3

    session: Any = boto3.session.Session("none", "none", region_name="us-east-1")
    return [session.client(name) for name in ("ec2", "s3", "ssm", "sqs", "sts")]


def _fleet() -> FakeFleet:
    """Return the fleet of `AGENTS` machines."""
    from harness.autoscaler_builders import ZONES, a_machine
    from mesaform.testing.fake_cloud import FakeFleet

    fleet = FakeFleet(lambda: AT)
    for number in range(AGENTS):
        fleet.add(
            a_machine(
                f"i-{number:05}",
                zone=ZONES[number % 3],
                private_address=address(number),
                launched_at=AT - 90_000,
                tags={"Name": "toy"},
            )
        )
    return fleet


def _spec(*, consolidation: bool) -> ClusterSpec:
    """Return the spec of a cluster with one large pool."""
    from harness.autoscaler_builders import a_spec

    types = ["m5.large", "m5.xlarge", "m5.2xlarge"]
    pool = {"count": 0, "types": types, "max": 1000}
    return a_spec(pools=[pool], consolidation={"enabled": consolidation})


async def child(base: str, *, consolidation: bool) -> None:
    """Run passes as the daemon runs them, on a fleet in memory."""
    import aiohttp

    from mesaform.autoscaler.model.planner_state import PlannerState
    from mesaform.autoscaler.observation.observer import Observer, ServicesClient
    from mesaform.autoscaler.planner.planner import plan
    from mesaform.autoscaler.reporting.telemetry import Telemetry
    from mesaform.mesos.operator import OperatorClient

    importlib.import_module("mesaform.autoscaler.daemon.daemon")  # all that the daemon loads
    clients, fleet = _aws_clients(), _fleet()
    spec = _spec(consolidation=consolidation)
    telemetry, memory, seconds = Telemetry(), PlannerState(leader_since=AT - 90_000), []
    telemetry.begin(cast("Ledger", Nowhere()))
    base_mib = resident_mib()
    async with aiohttp.ClientSession() as session:
        operator = OperatorClient([base], session)
        observer = Observer(operator, ServicesClient([base], session), fleet)

        async def one_pass(memory: PlannerState, at: float) -> tuple[PlannerState, int, int]:
            snapshot = await observer.snapshot(spec, memory, (), None)
            planned = plan(snapshot, at)
            telemetry.passed(planned, snapshot, observer.raw)
            is_idle = not any(step.actions for step in planned.commands)
            if not is_idle or snapshot.read_errors or snapshot.cluster is None:
                raise SystemExit(
                    f"there was something to do: {planned.commands[:1]} {snapshot.read_errors}"
                )
            return (
                planned.state,
                len(snapshot.cluster.agents),
                sum(agent.tasks for agent in snapshot.cluster.agents),
            )

        for number in range(2 * PASSES):
            if number == PASSES:
                peak = resident_mib("VmHWM")
                importlib.import_module("scipy.optimize")  # as the first purchase does
            started = time.process_time()
            memory, agents, tasks = await one_pass(memory, AT + 2 * number)
            seconds.append(time.process_time() - started)
            await telemetry.flush()  # what the ledger's writer does beside it
    figures = Figures(
        agents, tasks, 0.0, base_mib, peak, resident_mib("VmHWM"), seconds[0], median(seconds[1:])
    )
    del clients
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    asyncio.run(child(sys.argv[1], consolidation=sys.argv[2] == "1"))
