"""Process like the daemon's that reads a large cluster over HTTP and plans.

`measure` starts the process and serves the master's answers to it. The JSON has the fields of
Apache Mesos, unknown ones included: about 1.3 KiB per task.
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

from mesaform.topology.capacity import TASK_PORTS

if TYPE_CHECKING:
    from mesaform.aws.ports import Ledger
    from mesaform.config.schema import ClusterSpec
    from mesaform.testing.fake_cloud import FakeFleet

AGENTS, TASKS_EACH, APPS, PASSES = 1000, 30, 10, 6
AT = 1_800_000_000.0
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
    answers = {
        "GET_AGENTS": {
            "agents": [agent_json(number) for number in range(AGENTS)],
            "recovered_agents": [],
        },
        "GET_TASKS": {
            "tasks": [task_json(a, n) for a in range(AGENTS) for n in range(TASKS_EACH)],
            "completed_tasks": [],
        },
        "GET_FRAMEWORKS": {"frameworks": [framework_json()], "completed_frameworks": []},
        "GET_METRICS": {
            "metrics": [{"name": f"master/some/metric/{n}", "value": float(n)} for n in range(2000)]
        },
        "GET_QUOTA": {"status": {"configs": []}},
        "GET_MASTER": {"elected_time": AT - 90_000},
    }
    return {
        name: json.dumps({"type": name, name.lower(): body}, separators=(",", ":")).encode()
        for name, body in answers.items()
    }


async def _measure(*, consolidation: bool) -> Figures:
    bodies = _engine_bodies()

    async def engine(request: web.Request) -> web.Response:
        return web.Response(
            body=bodies[(await request.json())["type"]], content_type="application/json"
        )

    async def services(request: web.Request) -> web.Response:
        answers: dict[str, Any] = {
            "/v2/queue": {"queue": []},
            "/v2/info": {"frameworkId": "F-1"},
            "/v2/apps": {"apps": [{"id": f"/app{app}", "constraints": []} for app in range(APPS)]},
        }
        return web.json_response(answers[request.path])

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


def address(number: int) -> str:
    return f"127.42.{number // 250}.{number % 250 + 1}"


def resources_json(
    cpus: float, mem: float, ports: tuple[int, int], disk: float = 0.0
) -> list[dict[str, Any]]:
    role = {"allocation_info": {"role": "*"}, "role": "*"}
    return [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}, **role},
        {"name": "mem", "type": "SCALAR", "scalar": {"value": mem}, **role},
        {"name": "disk", "type": "SCALAR", "scalar": {"value": disk}, **role},
        {
            "name": "ports",
            "type": "RANGES",
            "ranges": {"range": [{"begin": ports[0], "end": ports[1]}]},
            **role,
        },
    ]


def agent_json(number: int) -> dict[str, Any]:
    attributes = {
        "instance_id": f"i-{number:05}",
        "instance_type": "m5.large",
        "zone": f"us-east-1{'abc'[number % 3]}",
        "pool": "default",
        "lifecycle": "on-demand",
    }
    info = {
        "id": {"value": f"0f8fad5b-d9cb-469f-a165-70867728950e-S{number}"},
        "hostname": address(number),
        "port": 5051,
        "attributes": [
            {"name": name, "type": "TEXT", "text": {"value": value}}
            for name, value in attributes.items()
        ],
        "resources": resources_json(2.0, 7680.0, TASK_PORTS, 35 * 1024.0),
    }
    return {
        "agent_info": info,
        "active": True,
        "deactivated": False,
        "version": "1.11.0",
        "pid": f"slave(1)@{address(number)}:5051",
        "registered_time": {"nanoseconds": int((AT - 90_000) * 1e9)},
        "total_resources": resources_json(2.0, 7680.0, TASK_PORTS, 35 * 1024.0),
        "allocated_resources": resources_json(1.98, 7680.0, (31000, 31029)),
        "offered_resources": [],
        "capabilities": [
            {"type": name}
            for name in (
                "MULTI_ROLE",
                "HIERARCHICAL_ROLE",
                "RESERVATION_REFINEMENT",
                "AGENT_DRAINING",
            )
        ],
    }


def task_json(agent: int, number: int) -> dict[str, Any]:
    app, agent_id = (
        f"app{number % APPS}",
        {"value": f"0f8fad5b-d9cb-469f-a165-70867728950e-S{agent}"},
    )
    task_id = {
        "value": f"{app}.instance-7c9e6679-7425-40de-944b-e07fc1f{agent:05}{number:03}._app.1"
    }
    network = {"ip_addresses": [{"protocol": "IPv4", "ip_address": address(agent)}]}
    status = {
        "task_id": task_id,
        "state": "TASK_RUNNING",
        "source": "SOURCE_EXECUTOR",
        "agent_id": agent_id,
        "executor_id": task_id,
        "timestamp": AT - 80_000 - number,
        "uuid": "dGhpcyBpcyBhIHV1aWQ=",
        "container_status": {
            "container_id": {"value": f"c-{agent}-{number}"},
            "executor_pid": 4711,
            "network_infos": [network],
        },
    }
    return {
        "name": app,
        "task_id": task_id,
        "framework_id": {"value": "F-1"},
        "agent_id": agent_id,
        "state": "TASK_RUNNING",
        "resources": resources_json(0.066, 256.0, (31000 + number, 31000 + number)),
        "statuses": [{**status, "state": "TASK_STARTING"}, status],
        "status_update_state": "TASK_RUNNING",
        "status_update_uuid": "dGhpcyBpcyBhIHV1aWQ=",
        "labels": {"labels": [{"key": "team", "value": "search"}]},
        "discovery": {
            "visibility": "FRAMEWORK",
            "name": app,
            "ports": {"ports": [{"number": 31000 + number, "name": "http"}]},
        },
        "user": "root",
    }


def framework_json() -> dict[str, Any]:
    info = {
        "id": {"value": "F-1"},
        "name": "marathon",
        "user": "root",
        "roles": ["*"],
        "failover_timeout": 604800.0,
    }
    return {"framework_info": info, "active": True, "connected": True, "recovered": False}


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
