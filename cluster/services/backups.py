"""Snapshots of the state to S3 each hour, and their restoration into an empty ensemble.

The leader writes them from its memory, which is consistent, and prunes old ones. What fails is a
warning and never the end of a term. A restoration is announced by a node in ZooKeeper before the
first record is written; a leader that finds the node completes the restoration before it serves, so
that no reader sees half of a state (docs/adr/0033).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from mesaform.aws.ports import Control
from mesaform.aws.ports.snapshots import (
    RESTORE_ANSWER,
    RESTORE_ANSWER_NAME,
    RESTORE_REQUEST,
    RESTORE_REQUEST_NAME,
    RestoreAnswer,
    RestoreRequest,
    SnapshotStore,
)
from mesaform.common.errors import BadInput, CloudError, MesaformError, NotFound
from mesaform.common.records import Unreadable
from mesaform.common.snapshots import (
    DEFAULT_RETENTION,
    NO_DEPLOYMENT,
    Retention,
    Snapshot,
    SnapshotName,
    parse_name,
    surplus,
)
from mesaform.services.snapshot_content import (
    Restoration,
    StateContent,
    content_nodes,
    read_restoration,
)
from mesaform.topology.zookeeper import ZK_AUTOSCALER_STATE
from mesaform.zookeeper.session import CreateNode, ZooKeeper

VALID_S = 300.0
"""Age up to which a request is carried out."""

RETRY_S = 300.0
"""After a snapshot that failed."""

POLL_EMPTY_S, POLL_S = 5.0, 30.0
"""Between two looks for a request, while the state is empty and otherwise."""

RESUME_PAUSE_S = 2.0
PATIENCE_S = 600.0
"""How long a restoration that was announced waits for S3."""
CHUNK = 200
"""Records that are written at the same time."""

WARNING = "snapshots"
log = structlog.get_logger("services")


@dataclass(frozen=True, slots=True)
class Stores:
    """Where snapshots, and requests to restore them, are.

    `retention` reads what the cluster file says; it blocks.
    """

    snapshots: SnapshotStore
    control: Control
    retention: Callable[[], Retention] = Retention


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """Whose state is saved. `root` is the folder of services in ZooKeeper."""

    cluster: str
    deployment: str
    root: str


class Backups:
    """Snapshots and restorations of one process.

    Args:
        zk: a started session.
        settings: whose state it is.
        open_stores: opens the stores; called in a thread when they are first needed.
        warnings: by subject, what does not work at present; the caller shows them.
        clock: epoch seconds.

    """

    def __init__(
        self,
        zk: ZooKeeper,
        settings: BackupSettings,
        open_stores: Callable[[], Stores],
        warnings: dict[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._zk = zk
        self._settings = settings
        self._open_stores = open_stores
        self._stores: Stores | None = None
        self._warnings = warnings
        self._clock = clock
        self._retention = DEFAULT_RETENTION
        self._due_at: float | None = None
        self._had_state = False
        self._polled_at = float("-inf")
        self._done = ""

    def begin_term(self) -> None:
        """Forget what an earlier term knew."""
        self._due_at, self._had_state, self._done = None, False, ""
        self._warnings.pop(WARNING, None)

    async def save_if_due(self, content: StateContent) -> None:
        """Write a snapshot if one is due, and prune. Raises nothing of S3's.

        A term that has seen no state writes none: an empty ensemble must not displace the
        snapshots of what was lost.
        """
        self._had_state = self._had_state or not content.is_empty
        if not self._had_state:
            return
        try:
            if self._due_at is None:
                self._due_at = await asyncio.to_thread(self._next_due)
            if self._clock() >= self._due_at:
                self._due_at = self._clock() + RETRY_S
                await self._save(content)
                self._due_at = self._clock() + self._retention.interval_s
            self._warnings.pop(WARNING, None)
        except MesaformError as error:
            self._due_at = self._due_at or self._clock() + RETRY_S
            self._warnings[WARNING] = f"no snapshot could be written: {error}"
            log.warning("no snapshot could be written", error=str(error))

    async def _save(self, content: StateContent) -> None:
        stored = await self._zk.get(ZK_AUTOSCALER_STATE)
        autoscaler = stored[0] if stored else b""
        name = await asyncio.to_thread(self._write, content, autoscaler)
        log.info("snapshot written", name=str(name), apps=len(content.apps))

    def _write(self, content: StateContent, autoscaler: bytes) -> SnapshotName:
        own, now = self._settings, self._clock()
        complete = StateContent(
            content.apps,
            content.instances,
            content.deployments,
            content.framework_id,
            autoscaler,
        )
        nodes = content_nodes(complete, own.root)
        snapshots = self._opened().snapshots
        name = snapshots.write(
            Snapshot(cluster=own.cluster, deployment=own.deployment, at=now, nodes=nodes)
        )
        self._retention = self._opened().retention()
        for old in surplus(snapshots.names(), own.deployment, now, self._retention):
            snapshots.remove(old)
        return name

    def _next_due(self) -> float:
        deployment = self._settings.deployment or NO_DEPLOYMENT
        own = [
            name.at for name in self._opened().snapshots.names() if name.deployment == deployment
        ]
        self._retention = self._opened().retention()
        return max(own, default=0.0) + self._retention.interval_s

    def _opened(self) -> Stores:
        if self._stores is None:
            self._stores = self._open_stores()
        return self._stores

    async def next_request(self, *, is_empty: bool) -> RestoreRequest | None:
        """A request that waits, if it is time to look for one. Raises nothing of S3's."""
        now = self._clock()
        if now - self._polled_at < (POLL_EMPTY_S if is_empty else POLL_S):
            return None
        self._polled_at = now
        try:
            request = await asyncio.to_thread(self._read_request)
        except MesaformError as error:
            log.warning("requests to restore cannot be read", error=str(error))
            return None
        if request is None or request.id == self._done or now - request.at > VALID_S:
            return None
        self._done = request.id
        return request

    def _read_request(self) -> RestoreRequest | None:
        control = self._opened().control
        request = control.read_record(RESTORE_REQUEST_NAME, RESTORE_REQUEST)
        answer = control.read_record(RESTORE_ANSWER_NAME, RESTORE_ANSWER)
        if not isinstance(request, RestoreRequest):
            return None
        if isinstance(answer, RestoreAnswer) and answer.id == request.id:
            return None
        return request

    async def refuse(self, request: RestoreRequest, error: str) -> None:
        """Answer that a request is not carried out."""
        await self._answer(RestoreAnswer(id=request.id, error=error))

    async def announce(self, request: RestoreRequest) -> None:
        """Validate the snapshot and announce its restoration in ZooKeeper.

        Raises:
            BadInput: the snapshot cannot be restored here; nothing was written.
            MesaformError: S3 or ZooKeeper does not answer, or a restoration is announced already.

        """
        await asyncio.to_thread(self._read, request)
        await self._zk.ensure(self._settings.root)
        await self._zk.transact([CreateNode(self._marker, RESTORE_REQUEST.encode(request))])

    async def complete(self) -> None:
        """Carry out an announced restoration, if there is one; return once all is written.

        Waits for S3 for `PATIENCE_S`: half of a state must not be served. Then, and when the
        snapshot was removed meanwhile, it gives up and deletes what was written.

        Raises:
            ZooKeeperUnavailable: no answer; the next leader goes on.

        """
        marker = await self._zk.get(self._marker)
        if marker is None:
            return
        request = RESTORE_REQUEST.decode(marker[0])
        if isinstance(request, Unreadable):
            await self._give_up("", f"the announced restoration cannot be read: {request}")
            return
        try:
            restoration = await self._read_patiently(request)
        except MesaformError as error:
            await self._give_up(request.id, str(error))
            return
        for chunk in _chunks(restoration.nodes):
            await asyncio.gather(*(self._zk.put(path, data) for path, data in chunk.items()))
        await self._zk.delete(self._marker)
        log.warning("restored", snapshot=request.snapshot, by=request.by, **restoration.counts)
        await self._answer(RestoreAnswer(id=request.id, restored=dict(restoration.counts)))

    async def _read_patiently(self, request: RestoreRequest) -> Restoration:
        give_up_at = self._clock() + PATIENCE_S
        while True:
            try:
                return await asyncio.to_thread(self._read, request)
            except (BadInput, NotFound):
                raise
            except CloudError as error:
                if self._clock() > give_up_at:
                    raise
                self._warnings[WARNING] = f"the restoration waits for S3: {error}"
                log.warning("the restoration waits for S3", error=str(error))
                await asyncio.sleep(RESUME_PAUSE_S)

    def _read(self, request: RestoreRequest) -> Restoration:
        name = parse_name(request.snapshot)
        if name is None:
            raise BadInput(f"{request.snapshot[:100]!r} is no name of a snapshot")
        return read_restoration(
            self._opened().snapshots.read(name),
            cluster=self._settings.cluster,
            deployment=self._settings.deployment,
            root=self._settings.root,
            any_deployment=request.any_deployment,
        )

    async def _give_up(self, request_id: str, error: str) -> None:
        """Delete what was written, which was nothing before, and the announcement."""
        for kind in ("apps", "instances", "deployments"):
            folder = f"{self._settings.root}/{kind}"
            for name in await self._zk.children(folder):
                await self._zk.delete(f"{folder}/{name}")
        await self._zk.delete(self._marker)
        log.error("the restoration was given up", error=error)
        await self._answer(RestoreAnswer(id=request_id, error=error))

    async def _answer(self, answer: RestoreAnswer) -> None:
        try:
            await asyncio.to_thread(
                lambda: self._opened().control.write_record(
                    RESTORE_ANSWER_NAME, RESTORE_ANSWER, answer
                )
            )
        except MesaformError as error:
            log.warning("the answer to a request cannot be written", error=str(error))

    @property
    def _marker(self) -> str:
        return f"{self._settings.root}/restoration"


def _chunks(nodes: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    items = list(nodes.items())
    for start in range(0, len(items), CHUNK):
        yield dict(items[start : start + CHUNK])
