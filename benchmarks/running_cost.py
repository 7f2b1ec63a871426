"""What watching a cluster costs: `python -m benchmarks.running_cost`.

Processor time, calls and bytes. A separate process reads a cluster as the daemon does: the
master's answers over HTTP, compressed as between machines, its event stream, and EC2's answers as
XML through botocore. A minute of passes at 2 s runs on a clock of its own, while tasks start and
end. The server counts calls and bytes; AWS's
prices make dollars of a month of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast

from aiohttp import web

from benchmarks.master_answers import (
    AT,
    SERVICES_ANSWERS,
    TASKS_EACH,
    address,
    master_answers,
    task_json,
)
from benchmarks.pass_process import Nowhere
from benchmarks.table import Result, show
from mesaform.mesos.recordio import encode

if TYPE_CHECKING:
    import aiohttp

    from mesaform.autoscaler.model.snapshot import Snapshot
    from mesaform.autoscaler.observation.observer import Observer
    from mesaform.autoscaler.observation.task_events import TaskEvents
    from mesaform.autoscaler.planner.planner import Plan

PASSES, INTERVAL_S = 30, 2.0
STARTS_PER_TASK_AND_HOUR = 1.0
"""Tasks run for an hour on average."""

HOURS = 730.0
MIB, GIB = 1024.0**2, 1024.0**3
ZONE_USD_PER_GIB = 0.02
AWAY_SHARE = 2 / 3
"""Between zones, both directions, and how often the leaders are in different ones of three."""

NAT_USD_PER_GIB = 0.045
"""EC2's answers in a private network with NAT gateways, which cost 33 USD a month themselves.

Elsewhere they are free, so that they are not in the sum.
"""

GET_USD, PUT_USD, QUEUE_USD = 0.4e-6, 5e-6, 0.4e-6
GETS_PER_PASS, PUTS_PER_HOUR = 2.2, 550.0
"""As `aws.pricing.cluster_cost` counts them."""

POLLS_PER_HOUR = 180.0
TARGETS: Mapping[int, float] = {1000: 50.0, 100: 5.0}
PASS_TARGET_S = 0.3

INSTANCE = (
    "<item><reservationId>r-{n:017x}</reservationId><ownerId>123456789012</ownerId><groupSet/>"
    "<instancesSet><item><instanceId>i-{n:05}</instanceId><imageId>ami-0abcdef1234567890</imageId>"
    "<instanceState><code>16</code><name>running</name></instanceState>"
    "<privateDnsName>ip-10-0-0-1.ec2.internal</privateDnsName><dnsName/><reason/>"
    "<amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>m5.large</instanceType>"
    "<launchTime>2027-01-14T08:00:00.000Z</launchTime><placement>"
    "<availabilityZone>us-east-1{zone}</availabilityZone><groupName/><tenancy>default</tenancy>"
    "</placement><monitoring><state>disabled</state></monitoring>"
    "<subnetId>subnet-0123456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId>"
    "<privateIpAddress>{address}</privateIpAddress><sourceDestCheck>true</sourceDestCheck>"
    "<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>agents</groupName></item>"
    "</groupSet><architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType>"
    "<rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping><item>"
    "<deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-{n:017x}</volumeId>"
    "<status>attached</status><attachTime>2027-01-14T08:00:01.000Z</attachTime>"
    "<deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>"
    "<virtualizationType>hvm</virtualizationType><clientToken>fleet-{n:032x}</clientToken>"
    "<tagSet>{tags}</tagSet><hypervisor>xen</hypervisor><networkInterfaceSet><item>"
    "<networkInterfaceId>eni-{n:017x}</networkInterfaceId><subnetId>subnet-0123456789abcdef0"
    "</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><description/><ownerId>123456789012</ownerId>"
    "<status>in-use</status><macAddress>0e:00:00:00:00:01</macAddress>"
    "<privateIpAddress>{address}</privateIpAddress><sourceDestCheck>true</sourceDestCheck>"
    "<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>agents</groupName></item>"
    "</groupSet><attachment><attachmentId>eni-attach-{n:017x}</attachmentId>"
    "<deviceIndex>0</deviceIndex><status>attached</status>"
    "<attachTime>2027-01-14T08:00:00.000Z</attachTime><deleteOnTermination>true"
    "</deleteOnTermination><networkCardIndex>0</networkCardIndex></attachment>"
    "<privateIpAddressesSet><item><privateIpAddress>{address}</privateIpAddress>"
    "<primary>true</primary></item></privateIpAddressesSet><ipv6AddressesSet/>"
    "<interfaceType>interface</interfaceType></item></networkInterfaceSet>"
    "<iamInstanceProfile><arn>arn:aws:iam::123456789012:instance-profile/mesaform-toy-agent</arn>"
    "<id>AIPAABCDEFGHIJKLMNOPQ</id></iamInstanceProfile><ebsOptimized>false</ebsOptimized>"
    "<cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>"
    "<capacityReservationSpecification><capacityReservationPreference>open"
    "</capacityReservationPreference></capacityReservationSpecification><hibernationOptions>"
    "<configured>false</configured></hibernationOptions><enclaveOptions><enabled>false</enabled>"
    "</enclaveOptions><metadataOptions><state>applied</state><httpTokens>required</httpTokens>"
    "<httpPutResponseHopLimit>1</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>"
    "</metadataOptions></item></instancesSet></item>"
)
"""An entry of DescribeInstances with the fields that EC2 answers for an agent (3.7 KiB)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the process measured: processor seconds of the first pass and of the mean later one."""

    tasks: int
    first_s: float
    pass_s: float


@dataclass(slots=True)
class Site:
    """The servers of one cluster: bodies, and the calls and bytes that were asked for."""

    agents: int
    bodies: dict[str, bytes] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    streams: list[web.StreamResponse] = field(default_factory=list)
    started: int = 0
    counts: bool = False

    def count(self, name: str, size: int) -> None:
        if self.counts:
            self.calls[name] += 1
            self.sent[name] += size

    async def engine(self, request: web.Request) -> web.StreamResponse:
        kind = (await request.json())["type"]
        if kind == "SUBSCRIBE":
            return await self._subscribe(request)
        body = self.bodies[kind]
        self.count(kind, len(body))
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=body, headers=headers)

    async def _subscribe(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(encode(b'{"type":"SUBSCRIBED"}'))
        self.streams.append(response)
        await asyncio.Event().wait()
        return response

    async def tick(self, _: web.Request) -> web.Response:
        """What happens to tasks between two passes; the answer is how many events that is."""
        tasks = self.agents * TASKS_EACH
        starts = round(tasks * STARTS_PER_TASK_AND_HOUR * INTERVAL_S / 3600)
        events = []
        for _start in range(starts):
            self.started += 1
            events += self._events_of(self.started)
        self.counts = True
        data = b"".join(map(encode, events))
        for stream in self.streams:
            self.count("events", len(data))
            await stream.write(data)
        return web.json_response({"events": len(events)})

    def _events_of(self, number: int) -> list[bytes]:
        """A task that starts, and another one that ends."""
        task = task_json(number % self.agents, 900_000 + number)
        ended = task_json(number % self.agents, number % TASKS_EACH)
        updates = [(task, "TASK_STARTING"), (task, "TASK_RUNNING"), (ended, "TASK_FINISHED")]
        added = {"type": "TASK_ADDED", "task_added": {"task": {**task, "statuses": []}}}
        updated = [
            {
                "type": "TASK_UPDATED",
                "task_updated": {
                    "framework_id": item["framework_id"],
                    "status": {**item["statuses"][-1], "state": state},
                    "state": state,
                },
            }
            for item, state in updates
        ]
        return [json.dumps(event).encode() for event in (added, *updated)]

    async def services(self, request: web.Request) -> web.Response:
        body = json.dumps(SERVICES_ANSWERS[request.path]).encode()
        self.count(request.path, len(body))
        return web.Response(body=body, content_type="application/json")

    async def ec2(self, _: web.Request) -> web.Response:
        body = self.bodies["DescribeInstances"]
        self.count("DescribeInstances", len(body))
        return web.Response(body=body, content_type="text/xml")


def site_of(agents: int) -> Site:
    """The servers of a cluster of so many agents with `TASKS_EACH` tasks each."""
    bodies = {name: compressed(answer) for name, answer in master_answers(agents).items()}
    return Site(agents, {**bodies, "DescribeInstances": instances_xml(agents)})


def compressed(document: object) -> bytes:
    """A body as masters send it to other machines (gzip, level 1)."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    body = json.dumps(document, separators=(",", ":")).encode()
    return packer.compress(body) + packer.flush()


def instances_xml(agents: int) -> bytes:
    """The answer of DescribeInstances."""
    own = {
        "mesaform:cluster": "toy",
        "mesaform:role": "agent",
        "mesaform:pool": "default",
        "mesaform:managed-by": "autoscaler",
        "mesaform:deployment": "0123456789abcdef",
        "mesaform:launch": "ms-0123456789abcdef01234567",
        "aws:ec2launchtemplate:id": "lt-0123456789abcdef0",
        "aws:ec2launchtemplate:version": "1",
        "aws:ec2:fleet-id": "fleet-01234567-89ab-cdef-0123-456789abcdef",
        "Name": "mesaform-toy-default",
    }
    tags = "".join(f"<item><key>{k}</key><value>{v}</value></item>" for k, v in own.items())
    items = (
        INSTANCE.format(n=n, zone="abc"[n % 3], address=address(n), tags=tags)
        for n in range(agents)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>1</requestId><reservationSet>{''.join(items)}</reservationSet>"
        "</DescribeInstancesResponse>"
    ).encode()


async def measure(agents: int) -> tuple[Figures, Site]:
    """Serve a cluster to the process; what it measured, and what the server counted."""
    site, app = site_of(agents), web.Application()
    app.router.add_post("/api/v1", site.engine)
    app.router.add_get("/v2/{what}", site.services)
    app.router.add_get("/tick", site.tick)
    app.router.add_post("/", site.ec2)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": base,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }
    command = [sys.executable, "-m", "benchmarks.running_cost", base]
    try:
        child = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, env=environment
        )
        out, _ = await child.communicate()
    finally:
        await runner.cleanup()
    if child.returncode:
        raise SystemExit(f"the process ended with {child.returncode}")
    return Figures(**json.loads(out)), site


def usd_per_month(site: Site) -> dict[str, float]:
    """The month of a cluster by kind, from what was counted in `PASSES` passes."""
    passes_per_hour = 3600 / INTERVAL_S
    months = HOURS * passes_per_hour / PASSES
    engine_bytes = site.sent.total() - site.sent["DescribeInstances"]
    return {
        "traffic between zones": engine_bytes * months / GIB * ZONE_USD_PER_GIB * AWAY_SHARE,
        "S3 reads": GETS_PER_PASS * passes_per_hour * HOURS * GET_USD,
        "S3 writes": PUTS_PER_HOUR * HOURS * PUT_USD,
        "SQS": POLLS_PER_HOUR * HOURS * QUEUE_USD,
    }


def results_of(agents: int) -> list[Result]:
    figures, site = asyncio.run(measure(agents))
    dollars = usd_per_month(site)
    hours = 3600 / INTERVAL_S / PASSES
    calls = ", ".join(
        f"{name} {count * hours:,.0f} ({site.sent[name] * hours / MIB:,.1f} MiB)"
        for name, count in sorted(site.calls.items(), key=lambda item: -site.sent[item[0]])
    )
    parts = ", ".join(f"{name} {usd:.2f}" for name, usd in dollars.items())
    nat_usd = site.sent["DescribeInstances"] * hours * HOURS / GIB * NAT_USD_PER_GIB
    parts += f"; EC2's answers through NAT gateways {nat_usd:.2f} more"
    size = f"{agents:,} agents, {figures.tasks:,} tasks"
    return [
        Result(
            f"a pass with EC2's answers: {size}",
            figures.pass_s,
            PASS_TARGET_S,
            "s",
            f"processor, mean of {PASSES} passes; the first {figures.first_s:.2f} s",
        ),
        Result(f"a month of watching {size}", sum(dollars.values()), TARGETS[agents], "USD", parts),
        Result(f"calls an hour: {size}", site.calls.total() * hours, 1e6, "calls", calls),
    ]


async def child(base: str) -> Figures:
    """Run passes as the daemon does."""
    import aiohttp

    from harness.autoscaler_builders import a_spec
    from mesaform.autoscaler.model.planner_state import PlannerState
    from mesaform.autoscaler.planner.planner import plan
    from mesaform.autoscaler.reporting.telemetry import Telemetry
    from mesaform.aws.ports import Ledger

    pool = {"count": 0, "types": ["m5.large", "m5.xlarge", "m5.2xlarge"], "max": 1000}
    spec = a_spec(pools=[pool], consolidation={"enabled": True})
    memory, clock = PlannerState(leader_since=AT - 90_000), Clock()
    telemetry, seconds = Telemetry(), list[float]()
    telemetry.begin(cast("Ledger", Nowhere()))
    async with aiohttp.ClientSession() as session:
        observer = observer_of(base, session, clock)
        events = observer.events
        if events is None:
            raise SystemExit("the observer follows no events")
        stream = asyncio.create_task(events.run())
        while not events.is_connected:  # noqa: ASYNC110 - it wakes nobody
            await asyncio.sleep(0.01)
        for _ in range(PASSES + 1):
            started = time.process_time()
            snapshot = await observer.snapshot(spec, memory, (), None)
            planned = plan(snapshot, AT + clock.now)
            telemetry.passed(planned, snapshot, observer.raw)
            require_idle(planned, snapshot)
            memory = planned.state
            await let_tasks_change(session, base, events)
            for _ in range(3):  # the daemon's polls between passes
                await observer.waiting()
            seconds.append(time.process_time() - started)
            await telemetry.flush()
            clock.now += INTERVAL_S
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
    running = len(observer.raw[0].running) if observer.raw else 0
    return Figures(running, seconds[0], sum(seconds[1:]) / PASSES)


def require_idle(planned: Plan, snapshot: Snapshot) -> None:
    """End the run if a pass found something to do, or could not read something."""
    if any(step.actions for step in planned.commands) or snapshot.read_errors:
        raise SystemExit(f"{planned.commands[:1]} {snapshot.read_errors}")


@dataclass(slots=True)
class Clock:
    """Time of the passes in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def observer_of(base: str, session: aiohttp.ClientSession, clock: Clock) -> Observer:
    """The daemon's observer: machines from EC2, prices in memory."""
    from mesaform.autoscaler.observation.observer import Observer, ServicesClient
    from mesaform.autoscaler.observation.task_events import TaskEvents
    from mesaform.aws.fleet import AwsFleet
    from mesaform.aws.ports import Machine
    from mesaform.mesos.operator import OperatorClient
    from mesaform.testing.fake_cloud import FakeFleet

    real = AwsFleet("us-east-1")

    class Fleet(FakeFleet):
        """Offerings in memory, machines from EC2."""

        def machines(self, cluster: str) -> list[Machine]:
            return real.machines(cluster)

    operator = OperatorClient([base], session)
    observer = Observer(
        operator,
        ServicesClient([base], session),
        Fleet(lambda: AT),
        events=TaskEvents(operator, clock),
        has_machine_events=lambda: True,
    )
    observer.machines.clock = clock
    return observer


async def let_tasks_change(session: aiohttp.ClientSession, base: str, events: TaskEvents) -> None:
    """Have tasks start and end, and wait for the events of it."""
    async with session.get(f"{base}/tick") as answer:
        expected = (await answer.json())["events"]
    while events.pending < expected:  # noqa: ASYNC110 - they wake nobody
        await asyncio.sleep(0.005)


def main() -> None:
    """Measure, print the table, fail where a limit is passed."""
    results = [result for agents in TARGETS for result in results_of(agents)]
    show(results)
    sys.exit(0 if all(result.holds for result in results) else 1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asdict(asyncio.run(child(sys.argv[1])))))
    else:
        main()
