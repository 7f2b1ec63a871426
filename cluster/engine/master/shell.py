"""The master as a process: election, the HTTP port, the agents' link port. The composition root of this package."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from mesaform.common.errors import Busy, LeadershipLost, MesaformError
from mesaform.engine.allocator import Allocator
from mesaform.engine.master.config import Settings, flags, master_info, read_settings
from mesaform.engine.master.core import Master
from mesaform.engine.master.http_routes import HttpApi
from mesaform.engine.master.link_server import LinkServer
from mesaform.engine.master.metrics import metrics
from mesaform.engine.master.registry_store import RegistryStore
from mesaform.engine.master.render import VERSION
from mesaform.engine.master.state import Ids
from mesaform.engine.master.term import Term
from mesaform.zookeeper.election import Candidate, watch_leader
from mesaform.zookeeper.session import ZooKeeper, ZooKeeperUnavailable

log = logging.getLogger("mesaform.master")

START_ZOOKEEPER_S = 60.0
MAX_BODY_BYTES = 64 * 1024 * 1024


class MasterProcess:
    """One master. Every master serves HTTP; the elected one also has a `term`.

    Args:
        settings: from the environment.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = str(uuid.uuid4())
        self.info: dict[str, Any] = master_info(settings, self.id, VERSION)
        self.term: Term | None = None
        self.leader: dict[str, Any] | None = None
        self.started_at = time.time()
        self.elected_at: float | None = None
        self._started = time.monotonic()
        self._ids = Ids(self.id)
        self._front = HttpApi(self)
        self._links = LinkServer(lambda: self.term)
        self._runner: web.AppRunner | None = None

    def clock(self) -> float:
        """Seconds since the epoch that never go back."""
        return self.started_at + time.monotonic() - self._started

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            Busy: a port is taken.
            ZooKeeperUnavailable: no server of the ensemble answered at the start.

        """
        zk = ZooKeeper(self.settings.zk_hosts, session_timeout_s=self.settings.zk_session_timeout_s)
        try:
            await self._listen()
            await zk.start(START_ZOOKEEPER_S)
            candidate = Candidate(zk, self.settings.zk_path, msgspec.json.encode(self.info))

            async def lead(epoch: int) -> None:
                await self._lead(zk, epoch)

            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(zk), name="leader")
                group.create_task(candidate.run(lead), name="candidate")
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(4.0):
                    await asyncio.shield(self._close(zk))

    async def _listen(self) -> None:
        self._runner = web.AppRunner(
            self._front.app(MAX_BODY_BYTES),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=0.5,
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.settings.ip, self.settings.port).start()
        except OSError as error:
            where = f"{self.settings.ip}:{self.settings.port}"
            raise Busy(
                f"cannot listen: {error.strerror}",
                where=where,
                fix="end the program that listens there, or set MESOS_PORT",
            ) from error
        await self._links.start(f"{self.settings.ip}:{self.settings.link_port}")

    async def _close(self, zk: ZooKeeper) -> None:
        await zk.stop()
        await self._links.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _watch(self, zk: ZooKeeper) -> None:
        async for payload in watch_leader(zk, self.settings.zk_path):
            self.leader = msgspec.json.decode(payload) if payload else None
            log.info("leader: %s", self.leader["pid"] if self.leader else "none")

    async def _lead(self, zk: ZooKeeper, epoch: int) -> None:
        store = RegistryStore(zk, f"{self.settings.zk_path}/registry")
        try:
            registry = await store.open(epoch, self.clock())
        except (LeadershipLost, ZooKeeperUnavailable) as error:
            log.warning("elected, but the registry cannot be opened: %s", error)
            await asyncio.sleep(0.5)
            return
        allocator = Allocator(
            interval_s=self.settings.core.allocation_interval_s, shuffle=random.shuffle
        )
        self.elected_at = self.clock()
        core = Master(
            self.info, self._ids, registry, allocator, self.settings.core, now=self.elected_at
        )
        self.term = Term(core, store, self.clock)
        log.info("elected with epoch %d, %d agents to recover", epoch, len(core.state.recovered))
        try:
            await self.term.run()
        finally:
            self.term = None
            self.elected_at = None
            log.info("no longer leading")

    # --- facts for the API

    def version(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "build_date": "",
            "build_time": 0.0,
            "build_user": "",
            "git_sha": "",
            "git_branch": "mesaform",
        }

    def flags(self) -> dict[str, str]:
        return flags(self.settings)

    def metrics(self) -> dict[str, float]:
        uptime_s = time.monotonic() - self._started
        if self.term is None:
            return metrics(None, uptime_s=uptime_s)
        return metrics(
            self.term.core.state,
            uptime_s=uptime_s,
            subscribers=len(self.term.subscribers),
            measured=self.term.measured(),
        )

    def master(self) -> dict[str, Any]:
        return {
            "master_info": self.info,
            "start_time": self.started_at,
            "elected_time": self.elected_at or 0.0,
        }

    def process(self) -> dict[str, Any]:
        """What /state tells beside the core's own."""
        return self.version() | {
            "start_time": self.started_at,
            "elected_time": self.elected_at or 0.0,
            "id": self.id,
            "pid": self.info["pid"],
            "hostname": self.settings.hostname,
            "cluster": self.settings.cluster,
            "capabilities": [one["type"] for one in self.info["capabilities"]],
            "leader": self.info["pid"],
            "leader_info": {name: self.info[name] for name in ("id", "pid", "port", "hostname")},
            "flags": self.flags(),
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
    """`python -m mesaform.engine master`: 0 after a signal, else the error's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(serve(os.environ))
    except MesaformError as error:
        log.error("%s", error)  # noqa: TRY400 - it says what to do; where in the code does not help
        return int(error.exit_code)
    return 0
