"""Composition root of services: ZooKeeper sessions, election, HTTP server of one process.

Each master runs one such server; the elected one leads.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import structlog
from aiohttp import web

from mesaform.common.errors import ClusterUnreachable
from mesaform.common.tls import trust_of
from mesaform.http import HttpPort, HttpServer, open_session
from mesaform.http.login import file_login
from mesaform.services import api_apps, api_cluster
from mesaform.services.api import Leadership, build, http_port
from mesaform.services.api_agents import AgentProxy
from mesaform.services.backups import Backups, BackupSettings, Stores
from mesaform.services.outputs import Outputs
from mesaform.services.scheduler import FrameworkSettings, Scheduler
from mesaform.services.settings import BackupAccount, Settings
from mesaform.services.store import StateStore
from mesaform.topology.ports import OPERATOR_PORTS
from mesaform.webui.assets import peers_of
from mesaform.zookeeper.access import Credentials
from mesaform.zookeeper.candidacy import Candidacy
from mesaform.zookeeper.election import Candidate, watch_leader
from mesaform.zookeeper.session import ZooKeeper, split_zk_url

MEMBER_PREFIX = "member_"
log = structlog.get_logger("services")


class _MasterAddress(msgspec.Struct):
    port: int
    ip: str = ""
    hostname: str = ""


class _MasterInfo(msgspec.Struct):
    address: _MasterAddress


@dataclass(slots=True)
class EngineLeader:
    """The engine's leading master, as last read from ZooKeeper."""

    url: str | None = None
    scheme: str = "http"

    async def watch(self, zk: ZooKeeper, path: str) -> None:
        """Keep `url` up to date until cancelled."""
        async for payload in watch_leader(zk, path):
            self.url = _url_of(payload, self.scheme)
            log.info("leading master changed", url=self.url)

    async def __call__(self) -> str:
        """The leader's base URL.

        Raises:
            ClusterUnreachable: no master leads.

        """
        if self.url is None:
            raise ClusterUnreachable("no leading master is known")
        return self.url


def _url_of(payload: bytes | None, scheme: str) -> str | None:
    if payload is None:
        return None
    try:
        address = msgspec.json.decode(payload, type=_MasterInfo).address
    except msgspec.DecodeError as error:
        log.warning("the leading master's entry cannot be decoded", error=str(error))
        return None
    return f"{scheme}://{address.ip or address.hostname}:{address.port}"


@asynccontextmanager
async def _session(hosts: str, credentials: Credentials | None = None) -> AsyncIterator[ZooKeeper]:
    zk = ZooKeeper(hosts, credentials=credentials)
    await zk.start()
    try:
        yield zk
    finally:
        await zk.stop()


async def serve(settings: Settings) -> None:
    """Run until cancelled.

    Raises:
        Busy: another program listens on the address.
        ZooKeeperUnavailable: the ensemble does not answer.
        ExceptionGroup: the engine refuses the framework.

    """
    engine_hosts, engine_path = split_zk_url(settings.master)
    hosts, root = split_zk_url(settings.zk)
    leader = EngineLeader(scheme=settings.http.scheme)
    masters = {host.rpartition(":")[0] for host in engine_hosts.split(",")}
    login = file_login(
        settings.http.access, masters, OPERATOR_PORTS, needs_tls=settings.http.tls is not None
    )
    async with (
        open_session(login, trust=trust_of(settings.http.tls)) as session,
        _session(hosts, settings.zk_credentials) as zk,
        _session(engine_hosts) as engine_zk,
    ):
        outputs = Outputs(time.monotonic)
        store = StateStore(zk, root, outputs.records, outputs.report_refusal)
        framework = _framework(settings)
        backups = _backups(zk, root, settings, outputs)
        scheduler = Scheduler(store, leader, session, framework, outputs, backups)
        leadership = Leadership(settings.url)
        server = HttpServer(
            _application(scheduler, leadership, settings, AgentProxy(leader, session)),
            _http_port(settings),
            settings.http.hosts,
        )
        try:
            await _listen(server, settings)
            candidate = Candidate(zk, f"{root}/leader", settings.url.encode(), MEMBER_PREFIX)
            async with asyncio.TaskGroup() as group:
                group.create_task(leader.watch(engine_zk, engine_path), name="engine leader")
                group.create_task(
                    _watch_leadership(leadership, zk, f"{root}/leader"), name="own leader"
                )
                candidacy = Candidacy(
                    scheduler.lead,
                    outputs.resignations,
                    time.monotonic,
                    secrets.SystemRandom().random,
                )
                group.create_task(candidate.run(candidacy.lead), name="election")
        finally:
            await server.stop()


def _http_port(settings: Settings) -> HttpPort:
    http = settings.http
    return http_port(settings.http_port, http.access, http.standbys, http.tls)


def _backups(zk: ZooKeeper, root: str, settings: Settings, outputs: Outputs) -> Backups | None:
    account = settings.backup
    if account is None:
        return None
    own = BackupSettings(account.cluster, account.deployment, root)
    return Backups(zk, own, lambda: _open_stores(account), outputs.warnings)


def _open_stores(account: BackupAccount) -> Stores:
    """Open S3. Only a leader needs it, so standbys do not load botocore."""
    from mesaform.aws.client import account_bucket
    from mesaform.aws.control import S3Control
    from mesaform.aws.snapshots import SnapshotObjects
    from mesaform.aws.stored_retention import read_retention

    bucket = account_bucket(account.region)
    return Stores(
        SnapshotObjects(bucket, account.cluster, account.region),
        S3Control(bucket, account.cluster, account.region),
        lambda: read_retention(account.cluster, account.region),
    )


def _application(
    scheduler: Scheduler, leadership: Leadership, settings: Settings, proxy: AgentProxy
) -> web.Application:
    endpoints = [*api_apps.routes(), *api_cluster.routes(), *proxy.routes()]
    peers = peers_of(settings.zk, settings.http_port, settings.http.scheme)
    app = build(scheduler, leadership, endpoints, peers)
    app[api_cluster.SETTINGS] = settings
    return app


def _framework(settings: Settings) -> FrameworkSettings:
    return FrameworkSettings(
        settings.url, settings.credential, settings.task_user, settings.placement
    )


async def _listen(server: HttpServer, settings: Settings) -> None:
    fix = "stop the program that listens there, or set MARATHON_HTTP_PORT"
    await server.listen(settings.http_address, settings.http_port, fix=fix)
    log.info(
        "listening",
        address=settings.http_address,
        port=settings.http_port,
        url=settings.url,
    )


async def _watch_leadership(leadership: Leadership, zk: ZooKeeper, path: str) -> None:
    async for payload in watch_leader(zk, path, MEMBER_PREFIX):
        leadership.leader_url = payload.decode() if payload else None
