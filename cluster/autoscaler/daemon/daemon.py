"""The autoscaler's daemon, one on each master: `python -m mesaform.autoscaler`.

The elected leader observes, plans and executes. It is level-triggered: a pass every `interval_s`,
and earlier when the queue of the services grows, which is read every half second. The module is
the composition root of the autoscaler and depends on all its packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import aiohttp
import msgspec
import structlog
from aiohttp import web
from pydantic import ValidationError
from yarl import URL

from mesaform.autoscaler import demand
from mesaform.autoscaler.daemon.access import access_copy
from mesaform.autoscaler.daemon.executor import PlanExecutor
from mesaform.autoscaler.daemon.expiry import ClusterExpiry
from mesaform.autoscaler.daemon.journal import Journal
from mesaform.autoscaler.daemon.launch_check import problem_with
from mesaform.autoscaler.daemon.lease import (
    Leases,
    SelfTermination,
    ShutdownReports,
    endings,
    store_report,
    succession,
)
from mesaform.autoscaler.daemon.orders import Orders
from mesaform.autoscaler.daemon.record_requests import RecordRequests
from mesaform.autoscaler.daemon.weekly_profile_store import Learner
from mesaform.autoscaler.interruption import announcements, controller
from mesaform.autoscaler.interruption.notice import ParsedNotice
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.observation.adapters.credentials import Credentials, ssm_reader
from mesaform.autoscaler.observation.adapters.readings import FrameworkReadings
from mesaform.autoscaler.observation.certificate_endpoint import CertificateEndpoint
from mesaform.autoscaler.observation.notice_endpoint import NoticeEndpoint
from mesaform.autoscaler.observation.notice_queue import Inbox
from mesaform.autoscaler.observation.observer import Observer, ServicesClient, services_urls
from mesaform.autoscaler.observation.probe_client import ProbeFramework
from mesaform.autoscaler.observation.shutdown_endpoint import ShutdownEndpoint
from mesaform.autoscaler.observation.task_events import TaskEvents
from mesaform.autoscaler.planner.containment import POOL_FAULT, plan_contained
from mesaform.autoscaler.planner.overrides import paused
from mesaform.autoscaler.planner.planner import Plan
from mesaform.autoscaler.reporting.http_server import Page, http_port
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.aws import client
from mesaform.aws.clock import CloudClock
from mesaform.aws.cluster_end import ClusterEnd
from mesaform.aws.control import S3Control
from mesaform.aws.errors import translate_errors
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ledger import S3Ledger
from mesaform.aws.notice_queue import SqsNotices
from mesaform.aws.ports import Fleet
from mesaform.aws.pricing.market import Market, aws_market
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.conditions import Condition, Resigned
from mesaform.common.errors import (
    LeadershipLost,
    MesaformError,
    NotAuthenticated,
    NotFound,
    Retryable,
)
from mesaform.common.faults import Fault, contained
from mesaform.common.leader_health import LeaderHealth
from mesaform.common.tls import trust_of
from mesaform.config.schema import ClusterSpec
from mesaform.http import HttpServer, HttpSettings, http_settings, open_session
from mesaform.http.login import file_login
from mesaform.mesos.credential import Credential, credential_from
from mesaform.mesos.operator import OperatorClient
from mesaform.topology.addresses import existing_subnet_filters
from mesaform.topology.instance_identity import InstanceVerifier, verifier_from
from mesaform.topology.names import spec_parameter_name
from mesaform.topology.ports import OPERATOR_PORTS, Port
from mesaform.topology.user_data import AUTHORITY_VARIABLE, ShutdownReport
from mesaform.zookeeper import access
from mesaform.zookeeper.candidacy import Candidacy
from mesaform.zookeeper.election import Candidate, watch_leader
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable, split_zk_url

POLL_S = 0.5
SPEC_EVERY_S = 15.0
SPEC_FIRST_S = 2.0
PRICES_EVERY_S = 10.0  # how often the age of prices is checked
AFTER_FAILURE_S = 2.0
AFTER_FAULT_S = 5.0
STOP_S = 3.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the daemon, from environment variables (docs/architecture.md)."""

    cluster: str
    zk_hosts: str
    zk_path: str
    masters: tuple[str, ...]
    host: str
    port: int
    region: str
    http: HttpSettings = field(default_factory=HttpSettings)
    zk_credentials: access.Credentials | None = None
    credential: Credential | None = None
    verifier: InstanceVerifier | None = None
    authority_file: str = ""


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the daemon's settings. The masters are the hosts of the ZooKeeper URL.

    The ensemble runs on the machines of the masters.

    Raises:
        BadInput: a URL is not one.
        KeyError: a variable is missing.

    """
    zk = access.read_zk_url(environment["MESAFORM_ZK"])
    master_hosts, _ = split_zk_url(environment["MESAFORM_MASTERS"])
    host, _, port = environment.get("MESAFORM_BIND", f"127.0.0.1:{Port.AUTOSCALER}").rpartition(":")
    http = http_settings(environment, host)
    return Settings(
        cluster=environment["MESAFORM_CLUSTER"],
        zk_hosts=zk.hosts,
        zk_path=zk.path,
        masters=tuple(
            f"{http.scheme}://{item.partition(':')[0]}:{Port.ENGINE_MASTER}"
            for item in master_hosts.split(",")
        ),
        host=host,
        port=int(port),
        region=environment["AWS_REGION"],
        http=http,
        zk_credentials=zk.credentials,
        credential=credential_from(environment, "MESAFORM_"),
        verifier=verifier_from(environment),
        authority_file=environment.get(AUTHORITY_VARIABLE, ""),
    )


class SpecSource:
    """The cluster's spec in SSM, read every 15 s. The last valid one stays in force."""

    def __init__(self, cluster: str, region: str) -> None:
        self._name = spec_parameter_name(cluster)
        self._ssm = client.client("ssm", region)
        self._spec: ClusterSpec | None = None
        self._read_at = -SPEC_EVERY_S

    async def get(self) -> ClusterSpec | None:
        """Return the spec; None until the first valid one."""
        if time.monotonic() - self._read_at >= (SPEC_EVERY_S if self._spec else SPEC_FIRST_S):
            self._read_at = time.monotonic()
            await self._refresh()
        return self._spec

    def subnet_filters(self) -> dict[str, list[str]]:
        """EC2's filters of the subnets of an existing VPC, by the last valid spec."""
        return existing_subnet_filters(self._spec) if self._spec else {}

    async def _refresh(self) -> None:
        def read() -> str:
            with translate_errors(f"ssm {self._name}"):
                return str(self._ssm.get_parameter(Name=self._name)["Parameter"]["Value"])

        try:
            self._spec = ClusterSpec.model_validate_json(await asyncio.to_thread(read))
        except NotFound:
            log.info("the spec is not there yet", parameter=self._name)
        except (MesaformError, ValidationError) as error:
            log.warning(
                "the spec cannot be read; the last one stays in force",
                parameter=self._name,
                error=str(error),
            )


@dataclass
class Term:
    """One term of leadership."""

    observer: Observer
    actor: PlanExecutor
    journal: Journal
    leases: Leases
    orders: Orders
    specs: SpecSource
    telemetry: Telemetry
    probe: ProbeFramework
    learner: Learner
    address: str
    clock: CloudClock
    inbox: Inbox
    health: LeaderHealth
    requests: RecordRequests
    reports: ShutdownReports
    planner_state: PlannerState = field(default_factory=PlannerState)
    intents: list[Intent] = field(default_factory=list)
    _waiting: int = 0
    _defect: Exception | None = None
    _has_passed: bool = False
    _plan_faults: list[Fault] = field(default_factory=list)
    _is_stored: bool = True
    """Whether `planner_state` and `intents` are what the journal holds."""

    async def run(self) -> None:
        """Run passes until deposed or cancelled.

        Raises:
            LeadershipLost: another leader wrote the journal.
            Resigned: the passes of this leader do not succeed.

        """
        self.planner_state, self.intents = await self.journal.open()
        if self.observer.readings is not None:
            self.observer.readings.restore(self.planner_state.reported)
        await self._succeed()
        while True:
            interval_s = await self.run_pass()
            try:
                self.health.conditions.check()
            except Resigned:
                await self._discard_state()
                raise
            faults: list[Fault] = []
            with contained("background", "rest between passes", faults):
                await self._rest(interval_s)
            if self.health.faults.report(faults):
                await asyncio.sleep(AFTER_FAILURE_S)

    async def run_pass(self) -> float:
        """Run a pass; return the time to the next one in seconds.

        A pass that fails may have bought machines and written part of what it did. The next one
        therefore begins with what the journal holds, as a new leader would.
        """
        try:
            if not self._is_stored:
                self.planner_state, self.intents = await self.journal.reread()
            self._is_stored = False
            interval_s = await self._pass()
            self._is_stored = True
        except LeadershipLost:
            raise
        except MesaformError as error:
            self._failed(error)
            if isinstance(error, Retryable):  # a fault of AWS: the lease is renewed
                await self._alive()
            return AFTER_FAILURE_S
        except Exception as error:  # a defect must not end scaling: it is logged and counted
            log.exception("pass failed")
            self._failed(error)
            self._defect = error
            return AFTER_FAILURE_S
        finally:
            self._report_faults()
        for condition in (Condition.CREDENTIALS, Condition.PASSES, Condition.ZOOKEEPER):
            self.health.conditions.satisfied(condition)
        self._has_passed = True
        return interval_s

    def _failed(self, error: Exception) -> None:
        """Report a failed pass, and note which condition it shows not to hold."""
        self.telemetry.failed(error)
        self.health.conditions.failed(condition_of(error), str(error).partition("\n")[0])

    async def _discard_state(self) -> None:
        """Set the planner state aside if no pass of this term succeeded, because of defects.

        The next leader would fail with it as well.
        """
        if self._has_passed or self._defect is None:
            return
        detail = f"no pass succeeded: {type(self._defect).__name__}: {self._defect}"[:300]
        with contextlib.suppress(MesaformError):
            await self.journal.set_state_aside(detail)

    async def _pass(self) -> float:
        """Run a pass and return the time to the next one in seconds."""
        await self._answer_requests()
        await self.orders.read(lambda: msgspec.to_builtins(self.planner_state))
        freeze, overrides = self.orders.freeze_reason, self.orders.overrides
        spec = await self.specs.get()
        if spec is None:
            self.telemetry.status["errors"] = ["the cluster's spec is not there yet"]
            await self.leases.renew()
            return SPEC_FIRST_S
        with self.telemetry.measures.passes.time():
            await self.learner.begin(self.clock.now())
            self.planner_state = replace(self.planner_state, findings=self.probe.findings())
            notices = self.inbox.take()
            snapshot = await self.observer.snapshot(
                spec,
                self.planner_state,
                self.intents,
                freeze,
                overrides,
                noticed=bool(notices),
            )
            snapshot = self._completed(snapshot)
            if not freeze and not paused(overrides, self.clock.now()):
                self.planner_state, self.intents = await self.actor.recover(
                    self.planner_state, await self._allowed(spec), snapshot.machines
                )
                snapshot = replace(snapshot, state=self.planner_state, intents=tuple(self.intents))
            snapshot = await self._absorb_notices(notices, snapshot)
            planned, self._plan_faults = plan_contained(snapshot, self.clock.now())
            reports = await self.reports.read()
            await self._account(planned, snapshot, reports)
            self.planner_state = await self.actor.execute(planned)
            if planned.commands:
                self.observer.machines_changed()
            await self.reports.delete(reports, planned.state.billed_machines)
        await self._learn(replace(snapshot, state=planned.state), planned.at)
        await self.leases.renew(spec, snapshot.machines)
        self.telemetry.measures.lease.set(self.clock.now())
        self.intents = await self.journal.intents()
        self._waiting = sum(
            verdict.unit.count for verdict in planned.verdicts if verdict.unit.source == "services"
        )
        self.telemetry.passed(planned, snapshot, self.observer.raw)
        self.telemetry.status["clock_offset_s"] = round(self.clock.offset_s, 1)
        return rest_s(planned.next_pass_at, spec.autoscaler.interval_s, self.clock.now())

    def _completed(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what the leader knows; the state with what frameworks report."""
        reported = dict(snapshot.framework_demand)
        self.planner_state = replace(self.planner_state, reported=reported)
        return replace(
            snapshot,
            state=self.planner_state,
            profile=self.learner.known,
            launches_lost_at=self.journal.launches_lost_at,
        )

    async def _account(
        self, planned: Plan, snapshot: Snapshot, reports: Mapping[str, ShutdownReport]
    ) -> None:
        """Write the ledger rows of machines that started or ended since the last pass."""
        before = self.planner_state
        terminations = endings(
            before.billed_machines,
            planned.state.billed_machines,
            snapshot.machines,
            reports,
            planned.at,
        )
        self._report_terminations(terminations, planned.usd_per_hour)
        reclaimed = announcements.ends(before, planned.state, snapshot, planned.at)
        self.telemetry.outbox.put_all(reclaimed, urgent=True)
        ends = {
            termination.instance_id: {"at": termination.at, "reason": termination.reason}
            for termination in terminations
        }
        ends |= {str(row["instance_id"]): {"reason": row["kind"]} for row in reclaimed}
        await self.telemetry.record_machine_changes(before, planned.state, planned.at, ends)

    async def _absorb_notices(self, notices: list[ParsedNotice], snapshot: Snapshot) -> Snapshot:
        """Journal the notices, then delete them from the queue."""
        self.planner_state = controller.absorb(
            self.planner_state, notices, snapshot.machines, self.intents, self.clock.now()
        )
        await self.journal.save_if_changed(self.planner_state)
        await self.inbox.settle()
        self.inbox.update(
            {machine.instance_id: machine.private_address for machine in snapshot.machines},
            self.planner_state.notices,
        )
        return replace(snapshot, state=self.planner_state)

    async def _learn(self, snapshot: Snapshot, now: float) -> None:
        """Update the weekly profile, and let the probe framework check suspected frameworks."""
        await self.learner.learn(snapshot, now)
        if snapshot.spec.autoscaler.probe_framework:
            await self.probe.want(demand.suspects(snapshot, now))
        else:
            await self.probe.rest()

    async def _succeed(self) -> None:
        """Report the change of leader and renew the lease."""
        with contextlib.suppress(MesaformError):
            taken_over = succession(
                await self.leases.previous(), self.leases.term, self.address, self.clock.now()
            )
            if taken_over is not None:
                self.telemetry.decided(taken_over)
            await self.leases.renew()

    async def _alive(self) -> None:
        """Renew the lease after a failed pass. What fails here is left to the next pass."""
        faults: list[Fault] = []
        with contained("lease", "renewal", faults), contextlib.suppress(MesaformError):
            await self.leases.renew()
        self.health.faults.report(faults)

    def _report_terminations(
        self, terminations: Sequence[SelfTermination], usd_per_hour: float
    ) -> None:
        """Report machines that terminated themselves, each with the cluster's price after it."""
        usd = usd_per_hour
        for termination in reversed(terminations):
            self.telemetry.decided(termination.decision(usd))
            usd += termination.machine.usd_per_hour

    def _report_faults(self) -> None:
        """Count what the observer left out, and show each thing once in `mesaform why`.

        Faults of the executor are in its decisions; they are only counted here.
        """
        self.health.faults.report(self.actor.faults)
        self.actor.faults.clear()
        for fault in self.health.faults.report(self.observer.take_faults()):
            self._report_anomaly(_left_out(fault))
        faults, self._plan_faults = self._plan_faults, []
        for fault in self.health.faults.report(faults):
            self._report_anomaly(_left_out(fault))

    def _report_anomaly(self, reason: Reason) -> None:
        self.telemetry.decided(Decision(self.clock.now(), "anomaly", (reason,)))

    async def _answer_requests(self) -> None:
        """Carry out what an operator wants done with records.

        Raises:
            LeadershipLost: a planner state was restored; the next term takes it over.

        """
        await self.journal.require_unrestored()
        try:
            await self.requests.run()
        except MesaformError as error:
            log.warning("records that were set aside cannot be listed", error=str(error))
        self.orders.set_aside = self.requests.entries

    async def _allowed(self, spec: ClusterSpec) -> list[Intent]:
        """The unresolved launches that the spec allows; a launch that it does not is set aside."""
        allowed = []
        for intent in self.intents:
            problem = problem_with(intent, spec, self.leases.term)
            if problem:
                await self.journal.refuse(intent, problem)
            else:
                allowed.append(intent)
        return allowed

    async def _rest(self, interval_s: float) -> None:
        """Wait for the next pass; less when the queue grows or an announcement arrives."""
        ends = time.monotonic() + interval_s
        while (left := ends - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_S, left)):
                    await self.inbox.woken.wait()
                    return
            if self._has_framework_news():
                return
            if left > POLL_S and await self.observer.waiting() > self._waiting:
                return

    def _has_framework_news(self) -> bool:
        """Whether a framework wants something else than in the last pass."""
        readings = self.observer.readings
        return readings is not None and readings.has_news


@dataclass
class Leader:
    """Address of the leader in ZooKeeper: `host:port`, empty without a leader."""

    address: str = ""

    async def follow(self, zk: ZooKeeper, path: str) -> None:
        """Update the address until cancelled."""
        async for payload in watch_leader(zk, path):
            self.address = (payload or b"").decode("utf-8", "replace")


def rest_s(next_pass_at: float | None, interval_s: float, now: float) -> float:
    """Return the seconds to the next pass: an interval, or less when a timer expires before."""
    return interval_s if next_pass_at is None else min(interval_s, max(POLL_S, next_pass_at - now))


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Take part in the election, and lead when elected, until `stop` is set."""
    telemetry = Telemetry()
    zk = ZooKeeper(settings.zk_hosts, credentials=settings.zk_credentials)
    leader, http = Leader(), settings.http
    hosts = [str(URL(master).host) for master in settings.masters]
    endpoint = NoticeEndpoint(settings.verifier)
    app = _application(settings, zk, telemetry, leader, endpoint)
    port = http_port(settings.port, http.access, http.standbys, http.tls)
    server = HttpServer(app, port, http.hosts)
    try:
        await server.listen(settings.host, settings.port, fix="end it, or set MESAFORM_BIND")
        await zk.start(timeout_s=300)
        login = file_login(http.access, hosts, OPERATOR_PORTS, needs_tls=http.tls is not None)
        async with (
            open_session(login, trust=trust_of(http.tls)) as session,
            asyncio.TaskGroup() as tasks,
        ):
            candidate = Candidate(
                zk, f"{settings.zk_path}/election", f"{settings.host}:{settings.port}".encode()
            )

            candidacy = Candidacy(
                lambda epoch: _lead(settings, zk, session, telemetry, endpoint, epoch),
                telemetry.health.resignations,
                time.monotonic,
                secrets.SystemRandom().random,
            )
            work = [
                tasks.create_task(candidate.run(candidacy.lead), name="candidate"),
                tasks.create_task(telemetry.write_ledger(), name="ledger"),
                tasks.create_task(leader.follow(zk, f"{settings.zk_path}/election"), name="leader"),
                tasks.create_task(_follow_access(settings), name="access"),
                tasks.create_task(
                    _follow_expiry(settings, session, telemetry, leader), name="expiry"
                ),
            ]
            await stop.wait()
            for task in work:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await telemetry.flush()
    finally:
        await zk.stop()
        await server.stop()


def _application(
    settings: Settings,
    zk: ZooKeeper,
    telemetry: Telemetry,
    leader: Leader,
    endpoint: NoticeEndpoint,
) -> web.Application:
    """The page, and the endpoints of machines."""
    hosts = [str(URL(master).host) for master in settings.masters]
    own = f"{settings.host}:{settings.port}"
    page = Page(telemetry, lambda: leader.address, hosts, own, settings.http.scheme)
    reports = ShutdownEndpoint(partial(store_report, zk, settings.zk_path), settings.verifier)
    certificates = CertificateEndpoint(settings.authority_file, settings.verifier, time.time)
    return certificates.add_to(reports.add_to(endpoint.add_to(page.application())))


async def _follow_access(settings: Settings) -> None:
    """Keep this master's copy of the access document up to date, if there is one."""
    copy = await asyncio.to_thread(access_copy, settings.cluster, settings.region)
    if copy is not None:
        await copy.follow()


async def _follow_expiry(
    settings: Settings, session: aiohttp.ClientSession, telemetry: Telemetry, leader: Leader
) -> None:
    """End the cluster when its time to live is over."""
    while True:
        try:
            expiry = await asyncio.to_thread(_expiry, settings, session, telemetry, leader)
            break
        except MesaformError as error:
            log.warning("the expiry cannot be read", error=str(error))
            await asyncio.sleep(AFTER_FAULT_S)
    await expiry.follow()


def _expiry(
    settings: Settings, session: aiohttp.ClientSession, telemetry: Telemetry, leader: Leader
) -> ClusterExpiry:
    """Compose it: its adapters are not those of a term, because standbys need them too."""
    cluster, region = settings.cluster, settings.region
    terminator, clock = ClusterEnd(region), CloudClock()
    for service in (terminator.ec2, client.client("s3", region)):
        clock.observe(service)
    fleet, bucket = AwsFleet(region), client.account_bucket(region)

    def report_left(left_s: float | None) -> None:
        telemetry.measures.time_left.set(math.inf if left_s is None else left_s)

    return ClusterExpiry(
        address=settings.host,
        control=S3Control(bucket, cluster, region),
        leaders_control=S3Control(bucket, cluster, region, telemetry.health.records),
        machines=lambda: fleet.machines(cluster),
        terminator=terminator,
        operator=OperatorClient(settings.masters, session),
        is_leading=lambda: leader.address == f"{settings.host}:{settings.port}",
        decided=telemetry.decided,
        left_s=report_left,
        clock=clock.now,
    )


async def _lead(
    settings: Settings,
    zk: ZooKeeper,
    session: aiohttp.ClientSession,
    telemetry: Telemetry,
    endpoint: NoticeEndpoint,
    epoch: int,
) -> None:
    """Build the parts of a term and run it until it is deposed.

    Raises:
        Resigned: AWS does not answer this process, or its passes do not succeed.

    """
    log.info("leading", epoch=epoch)
    telemetry.health.conditions.reset()
    clock = CloudClock()
    address = f"{settings.host}:{settings.port}"
    leases = Leases(zk, settings.zk_path, epoch, address, clock=clock.now)
    try:
        parts = await _connected(settings, leases, clock, telemetry.health, epoch)
        term = _term(settings, zk, session, telemetry, parts)
        telemetry.begin(parts.ledger)
        await _run_term(term, parts, endpoint)
    finally:
        telemetry.health.conditions.reset()


@dataclass(frozen=True, slots=True)
class _Cloud:
    """The adapters of one term."""

    leases: Leases
    clock: CloudClock
    ledger: S3Ledger
    market: Market
    fleet: Fleet
    notices: SqsNotices
    control: S3Control
    specs: SpecSource


async def _connected(
    settings: Settings, leases: Leases, clock: CloudClock, health: LeaderHealth, epoch: int
) -> _Cloud:
    """Build the adapters. The attempt is repeated, because credentials may arrive after the boot.

    Raises:
        Resigned: no attempt succeeds, and another leader may have better luck.

    """
    while True:
        try:
            cloud = await asyncio.to_thread(_adapters, settings, leases, clock, health, epoch)
        except MesaformError as error:
            log.warning("AWS does not answer who the caller is", error=str(error))
            health.conditions.failed(condition_of(error), str(error).partition("\n")[0])
            health.conditions.check()
            with contextlib.suppress(MesaformError):
                await leases.renew()
            await asyncio.sleep(AFTER_FAILURE_S)
        else:
            health.conditions.satisfied(Condition.CREDENTIALS)
            health.conditions.satisfied(Condition.PASSES)
            return cloud


def _adapters(
    settings: Settings, leases: Leases, clock: CloudClock, health: LeaderHealth, epoch: int
) -> _Cloud:
    cluster, region = settings.cluster, settings.region
    bucket = client.account_bucket(region)
    clock.observe(client.client("ec2", region))
    limiter = RateLimiter(time.monotonic)
    market = aws_market(region, bucket, cluster, limiter, clock.now, reads_list=True)
    specs = SpecSource(cluster, region)
    return _Cloud(
        leases=leases,
        clock=clock,
        ledger=S3Ledger(bucket, cluster, region, f"e{epoch}", health.records),
        market=market,
        fleet=AwsFleet(region, market, limiter, subnet_filters=specs.subnet_filters),
        notices=SqsNotices(cluster, region),
        control=S3Control(bucket, cluster, region, health.records),
        specs=specs,
    )


def _term(
    settings: Settings,
    zk: ZooKeeper,
    session: aiohttp.ClientSession,
    telemetry: Telemetry,
    cloud: _Cloud,
) -> Term:
    """Compose a term."""
    health, clock, epoch = telemetry.health, cloud.clock, cloud.leases.term
    operator = OperatorClient(settings.masters, session)
    journal = Journal(zk, settings.zk_path, epoch, settings.cluster, health.records, clock.now)
    services = ServicesClient(services_urls(settings.masters), session)
    address = f"{settings.host}:{settings.port}"
    failed = telemetry.troubled
    inbox = Inbox(cloud.notices, clock.now)
    return Term(
        observer=Observer(
            operator,
            services,
            cloud.fleet,
            failed=failed,
            prices=cloud.market.prices,
            readings=FrameworkReadings(
                frozenset({settings.host, *(str(URL(item).host) for item in settings.masters)}),
                Credentials(settings.cluster, ssm_reader(settings.region)),
                clock.now,
                telemetry.measures.read_framework,
            ),
            events=TaskEvents(operator, time.monotonic),
            has_machine_events=lambda: inbox.is_receiving,
        ),
        actor=PlanExecutor(
            settings.cluster, cloud.fleet, operator, journal, telemetry.decided, clock.now
        ),
        journal=journal,
        leases=cloud.leases,
        orders=Orders(cloud.control, health.conditions, address, failed, clock.now),
        specs=cloud.specs,
        telemetry=telemetry,
        probe=ProbeFramework(settings.masters, session, clock.now, settings.credential),
        learner=Learner(cloud.control),
        address=address,
        clock=clock,
        inbox=inbox,
        health=health,
        requests=RecordRequests(zk, settings.zk_path, cloud.control, clock.now),
        reports=ShutdownReports(zk, settings.zk_path, health.records),
    )


async def _run_term(term: Term, cloud: _Cloud, endpoint: NoticeEndpoint) -> None:
    """Run the passes of a term beside its background tasks, until it is deposed.

    Raises:
        Resigned: its passes do not succeed.

    """
    resigned: Resigned | None = None
    works: dict[str, Callable[[], Awaitable[None]]] = {
        "the ledger's past": lambda: term.telemetry.remember(cloud.ledger),
        "probe framework": term.probe.run,
        "prices": lambda: keep_prices(cloud.market, term.specs),
        "notices": term.inbox.listen,
        **({"frameworks": readings.run} if (readings := term.observer.readings) else {}),
        **({"tasks": events.run} if (events := term.observer.events) else {}),
        "schedule": term.inbox.watch_schedule,
    }
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(_kept(name, work, term.health), name=name)
            for name, work in works.items()
        ]
        endpoint.inbox = term.inbox
        try:
            resigned = await _passes(term)
        finally:
            endpoint.inbox = None
            for task in background:
                task.cancel()
            term.telemetry.end(term.clock.now())
    if resigned is not None:
        if resigned.condition is Condition.CREDENTIALS:
            client.discard_clients()
        raise resigned


async def _passes(term: Term) -> Resigned | None:
    """Run the passes of a term; its resignation, or None when it is deposed."""
    try:
        await term.run()
    except LeadershipLost as error:
        log.warning("deposed", error=str(error))
    except Resigned as error:
        return error
    except MesaformError as error:  # such as a ZooKeeper that went away just after the election
        return Resigned(condition_of(error), str(error).partition("\n")[0])
    except Exception as error:  # a defect ends the term, not the process
        log.exception("term failed")
        return Resigned(Condition.PASSES, f"{type(error).__name__}: {error}"[:300])
    return None


async def _kept(name: str, work: Callable[[], Awaitable[None]], health: LeaderHealth) -> None:
    """Do background work, again after an unexpected exception: it must not end the term."""
    while True:
        faults: list[Fault] = []
        with contained("background", name, faults):
            await work()
        if not faults:
            return
        health.faults.report(faults)
        await asyncio.sleep(AFTER_FAULT_S)


def _left_out(fault: Fault) -> Reason:
    """What the observer or the planner left out, for `mesaform why`."""
    if fault.kind == POOL_FAULT:
        return Reason.of(ReasonCode.POOL_LEFT_OUT, pool=fault.subject, error=fault.text)
    return Reason.of(
        ReasonCode.REPORT_UNREADABLE,
        kind=fault.kind,
        subject=fault.subject[:100],
        error=fault.text,
    )


def condition_of(error: Exception) -> Condition:
    """The condition that does not hold when a pass fails with an error."""
    if isinstance(error, NotAuthenticated):
        return Condition.CREDENTIALS
    return Condition.ZOOKEEPER if isinstance(error, ZooKeeperUnavailable) else Condition.PASSES


async def keep_prices(market: Market, specs: SpecSource) -> None:
    """Refresh prices in the background, so that no pass waits for them."""
    while True:
        spec = await specs.get()
        types = sorted(_types_of(spec)) if spec else []
        try:
            await asyncio.to_thread(market.refresh, types)
        except Exception:  # a defect must not end scaling: the last prices stay in use
            log.exception("prices")
        await asyncio.sleep(PRICES_EVERY_S)


def _types_of(spec: ClusterSpec) -> set[str]:
    """The instance types whose prices are read: those of masters and pools."""
    return {spec.masters.type, *(name for pool in spec.agents for name in pool.types)}


async def main() -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    await serve(settings_from(os.environ), stop)
