"""The operator's side of snapshots: choose one, validate it, and ask the leader to restore it.

ZooKeeper is reached through the leader of services, which answers requests in S3
(docs/adr/0033). Depends on `mesaform.aws` and `services.snapshot_content`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import msgspec

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
from mesaform.cli.override_client import who
from mesaform.common.errors import Busy, MesaformError, NotFound
from mesaform.common.records import Unreadable
from mesaform.common.snapshots import NO_DEPLOYMENT, Snapshot, SnapshotName, choose
from mesaform.services.snapshot_content import read_restoration
from mesaform.topology.zookeeper import ZK_SERVICES_PATH

if TYPE_CHECKING:
    from mesaform.status.view import Status

OpenSession: TypeAlias = "Callable[[], aiohttp.ClientSession]"

ANSWER_TIMEOUT_S = 180.0
ANSWER_POLL_S = 0.5
APPS_MARK = f"{ZK_SERVICES_PATH}/apps/"


class _Apps(msgspec.Struct):
    apps: list[msgspec.Raw] = []


class _Tasks(msgspec.Struct):
    tasks: list[msgspec.Raw] = []


@dataclass(frozen=True, slots=True)
class Listed:
    """A snapshot, and whether it is of this folder's deployment."""

    name: SnapshotName
    is_own: bool


@dataclass(frozen=True, slots=True)
class SnapshotClient:
    """Snapshots of one cluster. Calls block. `deployment` is this folder's; empty: none.

    `root` is the folder of services in ZooKeeper.
    """

    snapshots: SnapshotStore
    control: Control
    cluster: str
    deployment: str
    root: str = ZK_SERVICES_PATH
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def list(self) -> list[Listed]:
        """All snapshots, newest first."""
        own = self.deployment or NO_DEPLOYMENT
        return [Listed(name, name.deployment == own) for name in reversed(self.snapshots.names())]

    def choose(self, when: str, *, any_deployment: bool) -> SnapshotName:
        """The newest snapshot whose name begins with `when`.

        Raises:
            NotFound: there is none.

        """
        names = self.snapshots.names()
        own = self.deployment or NO_DEPLOYMENT
        chosen = choose(names, when, "" if any_deployment else own)
        if chosen is not None:
            return chosen
        others = any(name.deployment != own for name in names)
        raise NotFound(
            f"no snapshot of {when}" if when else "no snapshot",
            where=self.cluster,
            fix="list them: mesaform restore --list"
            + ("; those of an earlier deployment need --any-deployment" if others else ""),
        )

    def validate(self, name: SnapshotName, *, any_deployment: bool) -> dict[str, int]:
        """What the snapshot holds, by kind.

        Raises:
            BadInput: it cannot be restored into this cluster.

        """
        restoration = read_restoration(
            self.snapshots.read(name),
            cluster=self.cluster,
            deployment=self.deployment,
            root=self.root,
            any_deployment=any_deployment,
        )
        return dict(restoration.counts)

    def restore(self, name: SnapshotName, *, any_deployment: bool) -> dict[str, int]:
        """Ask the leader to restore a snapshot, and wait for its answer.

        Raises:
            MesaformError: the leader refused.
            Busy: no leader answered in time; it may still carry the request out.

        """
        request = RestoreRequest(
            id=uuid.uuid4().hex,
            snapshot=str(name),
            at=self.clock(),
            by=who(),
            any_deployment=any_deployment,
        )
        self.control.write_record(RESTORE_REQUEST_NAME, RESTORE_REQUEST, request)
        ends = self.clock() + ANSWER_TIMEOUT_S
        while self.clock() < ends:
            answer = self.control.read_record(RESTORE_ANSWER_NAME, RESTORE_ANSWER)
            if isinstance(answer, RestoreAnswer) and answer.id == request.id:
                if answer.error:
                    raise MesaformError(answer.error, where=str(name))
                return answer.restored
            self.sleep(ANSWER_POLL_S)
        raise Busy(
            f"the leader of services did not answer within {ANSWER_TIMEOUT_S:.0f} s",
            where=str(name),
            fix="it may still carry the request out; see mesaform status, then run it again",
        )


async def restore_hint(
    picture: Status,
    snapshots: SnapshotStore,
    deployment: str,
    open_session: OpenSession = aiohttp.ClientSession,
) -> str:
    """What to say of a cluster that has no state although there are snapshots; else empty."""
    import asyncio

    try:
        names = await asyncio.to_thread(snapshots.names)
        newest = max(names, default=None)
        if newest is None or await read_present_state(picture, open_session) != {}:
            return ""
        stored = await asyncio.to_thread(snapshots.read, newest)
    except MesaformError as error:
        return f"It is not known whether there are snapshots of the state: {error}"
    if _is_without_apps(stored):
        return ""
    is_own = newest.deployment == (deployment or NO_DEPLOYMENT)
    option = "" if is_own else " --any-deployment"
    return (
        f"The ensemble is empty, and there are {len(names)} snapshots of its state, the newest"
        f" {newest}. Restore it: mesaform restore{option}"
    )


def _is_without_apps(stored: Snapshot | Unreadable) -> bool:
    return isinstance(stored, Snapshot) and not any(APPS_MARK in path for path in stored.nodes)


async def read_present_state(
    picture: Status, open_session: OpenSession = aiohttp.ClientSession
) -> dict[str, int] | None:
    """How many apps and tasks the services know; None if no leader of them answers.

    An empty mapping means that there is no state.
    """
    url = picture.urls.get("services")
    if url is None:
        return None
    timeout = aiohttp.ClientTimeout(total=10.0)
    try:
        async with (
            open_session() as session,
            session.get(f"{url}/v2/apps", timeout=timeout, raise_for_status=True) as apps_answer,
            session.get(f"{url}/v2/tasks", timeout=timeout, raise_for_status=True) as tasks_answer,
        ):
            apps = msgspec.json.decode(await apps_answer.read(), type=_Apps).apps
            tasks = msgspec.json.decode(await tasks_answer.read(), type=_Tasks).tasks
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
        return None
    counts = {"apps": len(apps), "instances": len(tasks)}
    return {kind: count for kind, count in counts.items() if count}
