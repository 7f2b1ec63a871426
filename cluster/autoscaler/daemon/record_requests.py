"""The leader's part of `mesaform records`: what is set aside in ZooKeeper, and operators' requests.

The trees are those of the engine, of services and of the autoscaler. The list goes out with the
heartbeat. A request is looked for only while records are set aside. It is carried out once at most,
also over a change of leader: its id is stored before, since a name may be that of another record
afterwards. Depends on `zookeeper` and the port `Control`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from mesaform.aws.ports import Control
from mesaform.aws.record_requests import (
    ANSWER,
    ANSWER_NAME,
    REQUEST,
    REQUEST_NAME,
    RecordAnswer,
    RecordRequest,
)
from mesaform.common.errors import MesaformError
from mesaform.common.records import Codec
from mesaform.common.set_aside import SetAside
from mesaform.topology.zookeeper import ZK_ENGINE_PATH, ZK_SERVICES_PATH
from mesaform.zookeeper.session import ZooKeeper
from mesaform.zookeeper.set_aside import SetAsideNodes

VALID_S = 300.0
"""Age up to which a request is carried out."""

BEGUN_NODE = "record-request"
"""Node below the autoscaler's folder with the last request that a leader began to carry out."""

MAX_LISTED = 200
"""Records in the heartbeat; the rest is listed once these are gone."""

log = structlog.get_logger()


class BegunRequest(msgspec.Struct, frozen=True):
    """The last request that a leader began to carry out."""

    id: str


BEGUN = Codec("autoscaler.record-request", BegunRequest)


class RecordRequests:
    """Lists records and carries requests out during one term.

    Args:
        zk: a started session.
        path: the autoscaler's folder.
        control: where requests and answers are.
        clock: seconds since the epoch.

    """

    def __init__(
        self, zk: ZooKeeper, path: str, control: Control, clock: Callable[[], float]
    ) -> None:
        roots = (ZK_ENGINE_PATH, ZK_SERVICES_PATH, path.rstrip("/"))
        self._trees = {root: SetAsideNodes(zk, root) for root in roots}
        self._zk = zk
        self._begun_path = f"{path.rstrip('/')}/{BEGUN_NODE}"
        self._control = control
        self._clock = clock
        self._done = ""
        self.entries: list[SetAside] = []

    async def run(self) -> None:
        """List the records, and carry out a request that is waiting.

        Raises:
            MesaformError: ZooKeeper or S3 does not answer.

        """
        await self._list()
        if not self.entries:
            return
        request = await asyncio.to_thread(self._control.read_record, REQUEST_NAME, REQUEST)
        if not isinstance(request, RecordRequest) or request.id == self._done:
            return
        if self._clock() - request.at > VALID_S:
            self._done = request.id
            return
        answer = await self._answer(request)
        if answer is not None:
            await asyncio.to_thread(self._control.write_record, ANSWER_NAME, ANSWER, answer)
        self._done = request.id
        await self._list()

    async def _answer(self, request: RecordRequest) -> RecordAnswer | None:
        """Carry a request out, unless a leader began to; None: that leader answered."""
        node = await self._zk.get(self._begun_path)
        begun = None if node is None else BEGUN.decode(node[0])
        if not isinstance(begun, BegunRequest) or begun.id != request.id:
            await self._zk.put(self._begun_path, BEGUN.encode(BegunRequest(request.id)))
            return await self._carried_out(request)
        known = await asyncio.to_thread(self._control.read_record, ANSWER_NAME, ANSWER)
        if isinstance(known, RecordAnswer) and known.id == request.id:
            return None
        return RecordAnswer(
            id=request.id,
            error="the leader ended while it carried the request out; list the records again",
        )

    async def _list(self) -> None:
        lists = await asyncio.gather(*(nodes.all() for nodes in self._trees.values()))
        self.entries = [
            msgspec.structs.replace(entry, tree=root)
            for root, entries in zip(self._trees, lists, strict=True)
            for entry in entries
        ][:MAX_LISTED]

    async def _carried_out(self, request: RecordRequest) -> RecordAnswer:
        log.warning(
            "an operator's request about a record that was set aside",
            action=request.action,
            record=f"{request.kind}/{request.name}"[:300],
            tree=request.tree[:100],
            by=request.by[:100],
        )
        nodes = self._trees.get(request.tree)
        if nodes is None:
            return RecordAnswer(id=request.id, error=f"there is no tree {request.tree[:100]!r}")
        try:
            return RecordAnswer(id=request.id, content=await _do(nodes, request))
        except MesaformError as error:
            return RecordAnswer(id=request.id, error=str(error))


async def _do(nodes: SetAsideNodes, request: RecordRequest) -> bytes:
    """Carry a request out; the content of the record if it was asked for."""
    kind, name = request.kind, request.name
    match request.action:
        case "show":
            return await nodes.content(kind, name)
        case "remove":
            await nodes.remove(kind, name)
        case _:
            await nodes.restore(kind, name, replace=request.action == "replace")
    return b""
