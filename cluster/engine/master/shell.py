"""The master as a process: election, the HTTP port and the agents' link port.

This is the composition root of the package. It is the only module that reads the machine's load.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping

import msgspec
import structlog

from mesaform.common.conditions import Condition, Conditions, Limit, Resignations, Resigned
from mesaform.common.errors import LeadershipLost, MesaformError
from mesaform.common.json_types import JsonObject
from mesaform.common.logs import configure_logging
from mesaform.common.set_aside import SetAside, SetAsideLog
from mesaform.engine.allocator import Allocator
from mesaform.engine.documents import Document
from mesaform.engine.master.config import CAPABILITIES, Settings, flags, master_info, read_settings
from mesaform.engine.master.core import Master
from mesaform.engine.master.http_routes import HttpApi, http_port
from mesaform.engine.master.link_server import LinkServer
from mesaform.engine.master.metrics import metrics
from mesaform.engine.master.registry_store import RegistryStore
from mesaform.engine.master.render import VERSION
from mesaform.engine.master.state import Ids
from mesaform.engine.master.term import Term
from mesaform.http import UNHANDLED, HttpServer, PortAccess
from mesaform.zookeeper.election import Candidate, remove_contenders, watch_leader
from mesaform.zookeeper.session import ZooKeeper
from mesaform.zookeeper.set_aside import SetAsideNodes

log = structlog.get_logger("mesaform.master")

START_ZOOKEEPER_S = 60.0
REGISTRY_RETRY_S = 0.5
NEEDED = (Condition.ZOOKEEPER, Condition.PASSES)
PASSES_LIMIT = Limit(failures=5, seconds=4.0)
"""A pass is a tick, one a second: without it nothing is offered and no agent is watched."""
WORKED_S = 60.0
"""Seconds of leadership after which an earlier resignation no longer counts."""
LIST_SET_ASIDE_S = 15.0
CLOSE_TIMEOUT_S = 4.0
"""Seconds for an orderly end. systemd kills the process later than that."""


class MasterProcess:
    """One master. Every master serves HTTP; the elected one also has a `term`.

    Args:
        settings: from the environment.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = str(uuid.uuid4())
        self.info: JsonObject = master_info(settings, self.id, VERSION)
        self.own_address = (settings.ip, settings.port)
        self.term: Term | None = None
        self.leader: JsonObject | None = None
        self.started_at = time.time()
        self.elected_at: float | None = None
        self._started_monotonic = time.monotonic()
        self.conditions = Conditions(NEEDED, time.monotonic, {Condition.PASSES: PASSES_LIMIT})
        self.resignations = Resignations()
        self.records = SetAsideLog()
        self.set_aside: list[SetAside] = []
        self.faults: Counter[str] = Counter()
        self._ids = Ids(self.id)
        self.authenticator = settings.authenticator
        self.verifier = settings.verifier
        self.tls = settings.http.tls
        api = HttpApi(self)
        self._http = HttpServer(
            api.app(),
            http_port(
                settings.port,
                allows_jsonp=settings.http.allows_jsonp,
                access=PortAccess(settings.http.access, api.is_open),
                standbys=settings.http.standbys,
                tls=settings.http.tls,
            ),
            settings.http.hosts,
            shutdown_s=0.5,
        )
        self._links = LinkServer(
            lambda: self.term, verifier=settings.verifier, tls=settings.http.tls
        )

    def clock(self) -> float:
        """Seconds since the epoch, never decreasing."""
        return self.started_at + time.monotonic() - self._started_monotonic

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            Busy: a port is taken.
            ZooKeeperUnavailable: no server of the ensemble answered at the start.

        """
        zk = ZooKeeper(
            self.settings.zk_hosts,
            session_timeout_s=self.settings.zk_session_timeout_s,
            credentials=self.settings.zk_credentials,
        )
        try:
            await self._listen()
            await zk.start(START_ZOOKEEPER_S)
            await self._remove_predecessor(zk)
            candidate = Candidate(zk, self.settings.zk_path, msgspec.json.encode(self.info))

            async def lead(epoch: int) -> float | None:
                return await self._lead(zk, epoch)

            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(zk), name="leader")
                group.create_task(candidate.run(lead), name="candidate")
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await asyncio.shield(self._close(zk))

    async def _listen(self) -> None:
        fix = "end the program that listens there, or set MESOS_PORT"
        await self._http.listen(self.settings.ip, self.settings.port, fix=fix)
        await self._links.start(f"{self.settings.ip}:{self.settings.link_port}")

    async def _close(self, zk: ZooKeeper) -> None:
        await zk.stop()
        await self._links.stop()
        await self._http.stop()

    async def _remove_predecessor(self, zk: ZooKeeper) -> None:
        """End the candidacy of the process that had this address before.

        It has ended, because its port was free. Another master leads at once instead of after the
        end of its session.
        """
        try:
            count = await remove_contenders(zk, self.settings.zk_path, self._is_predecessor)
        except MesaformError as error:
            log.warning("predecessor_not_removed", error=str(error))
        else:
            if count:
                log.info("predecessor_removed", count=count)

    def _is_predecessor(self, payload: bytes) -> bool:
        try:
            info = msgspec.json.decode(payload, type=dict[str, object])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        return info.get("pid") == self.info["pid"] and info.get("id") != self.id

    async def _watch(self, zk: ZooKeeper) -> None:
        async for payload in watch_leader(zk, self.settings.zk_path):
            self.leader = leader_of(payload)
            log.info("leader_changed", leader=self.leader["pid"] if self.leader else None)

    async def _lead(self, zk: ZooKeeper, epoch: int) -> float | None:
        """Lead for one term. Return the pause before this master is a candidate again.

        A master that resigned is no candidate for a while, so that another one leads.
        """
        self.conditions.reset()
        try:
            await self._serve_term(zk, epoch)
        except Resigned as resigned:
            log.warning("resigned", epoch=epoch, condition=resigned.condition, reason=resigned.what)
            self.resignations.add(resigned, self.clock(), random.random())  # noqa: S311
            return self.resignations.pause_s(self.clock())
        finally:
            self.conditions.reset()
        return None

    async def _serve_term(self, zk: ZooKeeper, epoch: int) -> None:
        """Open the registry and lead until the leadership is lost.

        Raises:
            Resigned: this master cannot do a leader's work.

        """
        store = RegistryStore(zk, self.settings.zk_path, self.records)
        try:
            registry = await store.open(epoch, self.clock())
        except LeadershipLost as error:
            log.warning("registry_not_opened", epoch=epoch, error=str(error))
            await asyncio.sleep(REGISTRY_RETRY_S)
            return
        except MesaformError as error:
            raise Resigned(Condition.ZOOKEEPER, f"the registry was not opened: {error}") from error
        allocator = Allocator(
            interval_s=self.settings.core.allocation_interval_s, shuffle=random.shuffle
        )
        self.elected_at = self.clock()
        info: Document = {**self.info}
        core = Master(info, self._ids, registry, allocator, self.settings.core, now=self.elected_at)
        self.term = Term(core, store, self.clock, self.conditions)
        log.info("elected", epoch=epoch, agents_to_recover=len(core.state.recovered))
        entries = asyncio.create_task(self._list_set_aside(zk), name="records set aside")
        try:
            await self.term.run()
            if self.clock() - self.elected_at > WORKED_S:
                self.resignations.worked()
        finally:
            entries.cancel()
            self.faults.update(self.term.faults)
            self.term = None
            self.elected_at = None
            log.info("leadership_ended", epoch=epoch)

    async def _list_set_aside(self, zk: ZooKeeper) -> None:
        """Keep the list of the records that were set aside, for /state."""
        nodes = SetAsideNodes(zk, self.settings.zk_path)
        while True:
            with contextlib.suppress(MesaformError):
                self.set_aside = await nodes.all()
            await asyncio.sleep(LIST_SET_ASIDE_S)

    # --- facts for the API

    def version(self) -> Document:
        """VersionInfo."""
        return {
            "version": VERSION,
            "build_date": "",
            "build_time": 0.0,
            "build_user": "",
            "git_sha": "",
            "git_branch": "mesaform",
        }

    def flags(self) -> dict[str, str]:
        """The flags of Mesos that have a meaning here."""
        return flags(self.settings)

    def metrics(self) -> dict[str, float]:
        """Every metric by its key."""
        uptime_s = time.monotonic() - self._started_monotonic
        measured = machine_metrics() | UNHANDLED.snapshot() | self._own_metrics()
        if self.term is None:
            return metrics(None, uptime_s=uptime_s, measured=measured)
        return metrics(
            self.term.core.state,
            uptime_s=uptime_s,
            subscribers=len(self.term.subscribers),
            measured=self.term.measured() | measured,
        )

    def _own_metrics(self) -> dict[str, float]:
        """Metrics that Apache Mesos does not have."""
        faults = self.faults + (self.term.faults if self.term is not None else Counter())
        values = {
            "mesaform/links_rejected": float(self._links.rejected),
            "mesaform/agents_refused": float(self._links.refusals),
            "mesaform/faults": float(faults.total()),
        }
        for condition, holds in self.conditions.gauge().items():
            values[f"mesaform/leader_condition/{_key(condition)}"] = float(holds)
        for condition, count in self.resignations.counts.items():
            values[f"mesaform/leader_resignations/{_key(condition)}"] = float(count)
        for kind, count in self.records.counts.items():
            values[f"mesaform/records_set_aside/{_key(kind)}"] = float(count)
        return values

    def _own_state(self) -> Document:
        """What `mesaform status` shows of this master beside Mesos' own state."""
        return {
            "conditions": self.conditions.reasons(),
            "last_resignation": self.resignations.last,
            "records_set_aside": [
                {
                    "id": entry.id,
                    "place": entry.place,
                    "problem": entry.problem,
                    "detail": entry.detail,
                }
                for entry in self.set_aside
            ],
            "faults": dict(self.faults + (self.term.faults if self.term else Counter())),
        }

    def master(self) -> Document:
        """The body of GET_MASTER."""
        return {
            "master_info": self.info,
            "start_time": self.started_at,
            "elected_time": self.elected_at or 0.0,
        }

    def process(self) -> Document:
        """The facts of /state that the core does not know."""
        return self.version() | {
            "start_time": self.started_at,
            "elected_time": self.elected_at or 0.0,
            "id": self.id,
            "pid": self.info["pid"],
            "hostname": self.settings.hostname,
            "cluster": self.settings.cluster,
            "capabilities": list(CAPABILITIES),
            "leader": self.info["pid"],
            "leader_info": {name: self.info[name] for name in ("id", "pid", "port", "hostname")},
            "flags": self.flags(),
            "mesaform": self._own_state(),
        }


def leader_of(payload: bytes | None) -> JsonObject | None:
    """The MasterInfo of a leader's node; None without one, and for one that cannot be read."""
    if not payload:
        return None
    try:
        info: JsonObject = msgspec.json.decode(payload, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.warning("master_info_unreadable", error=str(error))
        return None
    if not isinstance(info.get("pid"), str) or not isinstance(info.get("address"), dict):
        log.warning("master_info_unreadable", error="it has no pid or no address")
        return None
    return info


def _key(name: str) -> str:
    """A name as part of a metric's key."""
    return name.lower().replace(" ", "_").replace("-", "_")


def machine_metrics() -> dict[str, float]:
    """The load and memory of the machine, under Mesos' keys."""
    load_1min, load_5min, load_15min = os.getloadavg()
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return {
        "system/cpus_total": os.cpu_count() or 0,
        "system/load_1min": load_1min,
        "system/load_5min": load_5min,
        "system/load_15min": load_15min,
        "system/mem_total_bytes": os.sysconf("SC_PHYS_PAGES") * page_bytes,
        "system/mem_free_bytes": os.sysconf("SC_AVPHYS_PAGES") * page_bytes,
    }


async def serve(env: Mapping[str, str]) -> None:
    """Run a master until SIGTERM or SIGINT."""
    process = MasterProcess(read_settings(env))
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(process.run())
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def main() -> int:
    """`python -m mesaform.engine master`: 0 after a signal, otherwise the error's exit code."""
    configure_logging()
    try:
        asyncio.run(serve(os.environ))
    except MesaformError as error:
        sys.stderr.write(f"engine master: {error}\n")
        return int(error.exit_code)
    return 0
