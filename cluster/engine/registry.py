"""What must survive every master: which agents were admitted, which are gone, which are deactivated or draining.

The pure value and its changes; `engine.master.registry_store` keeps it in ZooKeeper. Tasks are not here: agents know them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mesaform.mesos.messages import AgentInfo

MAX_AGE_S = 14 * 86400.0
"""Unreachable and gone agents are forgotten after two weeks, as by `--registry_max_agent_age`."""


class DrainRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """`state` is DRAINING or DRAINED; `started_at` in seconds since the epoch."""

    state: Literal["DRAINING", "DRAINED"]
    started_at: float
    max_grace_s: float | None = None
    mark_gone: bool = False


class AgentRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    info: AgentInfo
    state: Literal["admitted", "unreachable", "gone"] = "admitted"
    since: float = 0.0
    deactivated: bool = False
    drain: DrainRecord | None = None


class Change(msgspec.Struct, frozen=True):
    """The base of all changes; each is idempotent."""

    agent_id: str


class Admit(Change, frozen=True):
    """A new agent, or one that comes back; its deactivation and drain stay."""

    info: AgentInfo
    at: float


class MarkUnreachable(Change, frozen=True):
    at: float


class MarkGone(Change, frozen=True):
    at: float


class Remove(Change, frozen=True):
    """Forget the agent: another one took its address."""


class SetDeactivated(Change, frozen=True):
    """`deactivated=False` also ends a drain."""

    deactivated: bool


class StartDrain(Change, frozen=True):
    at: float
    max_grace_s: float | None = None
    mark_gone: bool = False


class MarkDrained(Change, frozen=True):
    """All the agent's tasks ended and were acknowledged."""


class Registry(msgspec.Struct, frozen=True):
    """The durable set. `epoch` is the leader's that wrote it last."""

    epoch: int = 0
    agents: dict[str, AgentRecord] = {}

    def apply(self, *changes: Change) -> Registry:
        """The registry after these changes, in order."""
        agents = dict(self.agents)
        for change in changes:
            _apply(agents, change)
        return Registry(self.epoch, agents)

    def pruned(self, now: float) -> Registry:
        """Without agents that have been unreachable or gone for two weeks."""
        kept = {
            agent_id: record
            for agent_id, record in self.agents.items()
            if record.state == "admitted" or record.since > now - MAX_AGE_S
        }
        return Registry(self.epoch, kept)


def _apply(agents: dict[str, AgentRecord], change: Change) -> None:
    record = agents.get(change.agent_id)
    if isinstance(change, Remove):
        agents.pop(change.agent_id, None)
    elif isinstance(change, Admit):
        kept = record or AgentRecord(change.info)
        agents[change.agent_id] = AgentRecord(
            change.info, "admitted", change.at, kept.deactivated, kept.drain
        )
    elif record is not None:
        agents[change.agent_id] = _changed(record, change)


def _changed(record: AgentRecord, change: Change) -> AgentRecord:
    replace = msgspec.structs.replace
    match change:
        case MarkUnreachable():
            return replace(record, state="unreachable", since=change.at)
        case MarkGone():
            return replace(record, state="gone", since=change.at)
        case SetDeactivated():
            return replace(
                record,
                deactivated=change.deactivated,
                drain=record.drain if change.deactivated else None,
            )
        case StartDrain():
            return replace(
                record,
                deactivated=True,
                drain=DrainRecord("DRAINING", change.at, change.max_grace_s, change.mark_gone),
            )
        case MarkDrained() if record.drain is not None:
            return replace(record, drain=replace(record.drain, state="DRAINED"))
    return record
