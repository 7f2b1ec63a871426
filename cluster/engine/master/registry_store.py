"""The registry in one ZooKeeper node, protected against writes of deposed leaders.

Each write names the version that it replaces, and a new leader writes before anything else. The
writes of an earlier leader therefore fail. An agent's record that cannot be read is set aside, and
so is a registry that cannot be read as a whole; the registry goes on without it, and the agent
registers again. Depends on `zookeeper.session`, `zookeeper.set_aside` and `common.records`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from mesaform.common.errors import LeadershipLost
from mesaform.common.records import Codec, Problem, RecordRefused, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.engine.link_validation import problem_of_agent
from mesaform.engine.master.timing import Timings
from mesaform.engine.registry import Admit, AgentRecord, Change, Registry
from mesaform.zookeeper.session import VersionConflict, WriteNode, ZooKeeper
from mesaform.zookeeper.set_aside import RecordNodes

COMPRESS_ABOVE_BYTES = 256 * 1024
MAX_BYTES = 900 * 1024
"""The largest registry. A ZooKeeper node holds at most 1 MiB (jute.maxbuffer), of which the request
that writes it needs a part."""

REGISTRY_KIND = "registry"
AGENT_KIND = "registry-agents"
"""Kinds of records below `set-aside`: a whole registry, and one agent's record of it."""


class StoredRegistry(msgspec.Struct, frozen=True):
    """The registry's document: the record of each agent is decoded on its own."""

    epoch: int = 0
    agents: dict[str, msgspec.Raw] = {}


REGISTRY: Codec[StoredRegistry] = Codec(
    "engine.registry",
    StoredRegistry,
    limit_bytes=MAX_BYTES,
    compress_above_bytes=COMPRESS_ABOVE_BYTES,
)
AGENT: Codec[AgentRecord] = Codec("engine.agent", AgentRecord)


class RegistryStore:
    """The registry for one term of leadership.

    Args:
        zk: a started session.
        folder: the master's folder, such as `/mesos`. The registry is the node `registry` in it.
        log: counts records that are set aside.

    """

    def __init__(self, zk: ZooKeeper, folder: str, log: SetAsideLog | None = None) -> None:
        self._zk = zk
        self._path = f"{folder}/registry"
        self._nodes = RecordNodes(zk, folder, log or SetAsideLog())
        self._version = -1
        self.value = Registry()
        self._encoder = RegistryEncoder()
        self._size_bytes = 0
        self._fetches = Timings("registrar/state_fetch_ms")
        self._stores = Timings("registrar/state_store_ms")

    def measured(self) -> dict[str, float]:
        """Times and sizes under Mesos' metric keys."""
        size = {"registrar/registry_size_bytes": float(self._size_bytes)}
        return size | self._fetches.metrics() | self._stores.metrics()

    async def open(self, epoch: int, now: float) -> Registry:
        """Read the registry, and write it with this epoch so that earlier leaders cannot write.

        Raises:
            LeadershipLost: a later leader opened it.
            ZooKeeperUnavailable: no answer.

        """
        try:
            stored, version = await self._read()
            if stored.epoch > epoch:
                raise LeadershipLost(
                    f"epoch {stored.epoch} wrote the registry, this is epoch {epoch}",
                    where=self._path,
                )
            registry = Registry(epoch, stored.agents).pruned(now)
            if version >= 0:
                await self._put(registry, version)
            else:
                await self._zk.create(self._path, self._encoder.encode(registry))
                self._version = 0
        except VersionConflict as error:
            raise LeadershipLost(
                "another master opened the registry at the same time", where=self._path
            ) from error
        self.value = registry
        return registry

    async def _read(self) -> tuple[Registry, int]:
        """The agents that can be read, and the node's version (-1: there is no node)."""
        started_at = time.monotonic()
        stored = await self._nodes.read(REGISTRY_KIND, self._path, REGISTRY)
        self._fetches.add((time.monotonic() - started_at) * 1000)
        if stored is None or isinstance(stored, Unreadable):
            return Registry(), -1
        agents, unreadable = decode_agents(stored.value)
        version = stored.version
        remaining = dict(stored.value.agents)
        for agent_id, problem in unreadable.items():
            data = bytes(remaining.pop(agent_id))
            document = StoredRegistry(stored.value.epoch, remaining)
            rest = WriteNode(self._path, REGISTRY.encode(document), version)
            await self._nodes.set_aside_part(AGENT_KIND, agent_id, data, problem, rest)
            version += 1
        return Registry(stored.value.epoch, agents), version

    async def write(self, *changes: Change) -> list[str | None]:
        """Make the changes durable.

        Return for each change why it was not stored: the registry would outgrow its node, or the
        agent's record could not be read again. None means that it is stored.

        Raises:
            LeadershipLost: a later leader wrote; none of the changes is stored.
            ZooKeeperUnavailable: no answer. Whether the changes are stored is unknown, so the term
                must end.

        """
        value, refusals = self._fitting(changes)
        try:
            await self._put(value, self._version)
        except VersionConflict as error:
            raise LeadershipLost("another master wrote the registry", where=self._path) from error
        self.value = value
        return refusals

    def _fitting(self, changes: Sequence[Change]) -> tuple[Registry, list[str | None]]:
        """The registry with the changes that can be stored, and why each of the others cannot.

        Only an `Admit` can be refused: the other changes hardly grow the registry.
        """
        everything = self.value.apply(*changes)
        if self._refusal(everything) is None:
            return everything, [None] * len(changes)
        value = self.value
        refusals: list[str | None] = []
        for change in changes:
            changed = value.apply(change)
            refusal = self._refusal(changed) if isinstance(change, Admit) else None
            value = value if refusal else changed
            refusals.append(refusal)
        return value, refusals

    def _refusal(self, registry: Registry) -> str | None:
        try:
            self._encoder.encode(registry)
        except RecordRefused as error:
            return f"the registry cannot take this agent: {error.what}"
        return None

    async def _put(self, value: Registry, version: int) -> None:
        data, started_at = self._encoder.encode(value), time.monotonic()
        self._version = await self._zk.put(self._path, data, version)
        self._stores.add((time.monotonic() - started_at) * 1000)
        self._size_bytes = len(data)


class RegistryEncoder:
    """Encodes registries, and keeps the documents of agents that did not change."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[AgentRecord, bytes]] = {}

    def encode(self, registry: Registry) -> bytes:
        """The bytes of the registry's node.

        Raises:
            RecordRefused: it is too large, or a record in it could not be read again.

        """
        known: dict[str, tuple[AgentRecord, bytes]] = {}
        for agent_id, record in registry.agents.items():
            before = self._known.get(agent_id)
            if before is None or before[0] is not record:
                before = (record, AGENT.encode(record))
            known[agent_id] = before
        self._known = known
        agents = {agent_id: msgspec.Raw(data) for agent_id, (_, data) in known.items()}
        return REGISTRY.encode(StoredRegistry(registry.epoch, agents))


def decode_agents(
    stored: StoredRegistry,
) -> tuple[dict[str, AgentRecord], dict[str, Unreadable]]:
    """The agents' records that can be read, and why each of the others cannot."""
    agents: dict[str, AgentRecord] = {}
    unreadable: dict[str, Unreadable] = {}
    for agent_id, data in stored.agents.items():
        record = AGENT.decode(bytes(data))
        if not isinstance(record, Unreadable):
            problem = problem_of_agent(agent_id, record.info)
            if problem is None:
                agents[agent_id] = record
                continue
            record = Unreadable(AGENT.schema, Problem.UNREADABLE, problem)
        unreadable[agent_id] = record
    return agents, unreadable
