"""The registry: the durable set of agents, and the changes of it. Pure values.

It has which agents are admitted, unreachable, gone, deactivated or draining, and it survives every
master. `engine.master.registry_store` keeps it in ZooKeeper. Tasks are not in it: agents report
them when they register.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mesaform.mesos.messages import AgentInfo

MAX_AGE_S = 14 * 86400.0
"""Seconds after which unreachable and gone agents are removed: the default of Mesos' flag
`--registry_max_agent_age`, two weeks."""


class DrainRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """`state` is DRAINING or DRAINED; `started_at` in seconds since the epoch."""

    state: Literal["DRAINING", "DRAINED"]
    started_at: float
    max_grace_s: float | None = None
    mark_gone: bool = False


class AgentRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One agent. `since` is when `state` began, in seconds since the epoch.

    `instance_id` is the instance that proved to be this agent; empty if none did.
    """

    info: AgentInfo
    state: Literal["admitted", "unreachable", "gone"] = "admitted"
    since: float = 0.0
    deactivated: bool = False
    drain: DrainRecord | None = None
    instance_id: str = ""

    @property
    def is_draining(self) -> bool:
        """Whether a drain is in progress."""
        return self.state != "gone" and self.drain is not None and self.drain.state == "DRAINING"


class Change(msgspec.Struct, frozen=True):
    """The base of all changes. Each is idempotent."""

    agent_id: str


class Admit(Change, frozen=True):
    """Admit a new agent, or one that returns. Its deactivation and drain stay."""

    info: AgentInfo
    at: float
    instance_id: str = ""


class MarkUnreachable(Change, frozen=True):
    """The agent did not answer pings. It may return."""

    at: float


class MarkGone(Change, frozen=True):
    """An operator declared the agent gone. It may never return."""

    at: float


class Remove(Change, frozen=True):
    """Remove the agent: it shut down, or another agent registered at its address."""


class SetDeactivated(Change, frozen=True):
    """Deactivate the agent, or reactivate it, which also ends its drain."""

    deactivated: bool


class StartDrain(Change, frozen=True):
    """Deactivate the agent and kill its tasks."""

    at: float
    max_grace_s: float | None = None
    mark_gone: bool = False


class MarkDrained(Change, frozen=True):
    """All tasks of the agent have ended and are acknowledged."""


class Registry(msgspec.Struct, frozen=True):
    """The durable set of agents. `epoch` is that of the leader that wrote it last."""

    epoch: int = 0
    agents: dict[str, AgentRecord] = {}

    def apply(self, *changes: Change) -> Registry:
        """The registry after these changes, in order."""
        agents = dict(self.agents)
        for change in changes:
            _apply(agents, change)
        return Registry(self.epoch, agents)

    def pruned(self, now: float) -> Registry:
        """The registry without agents that are unreachable or gone for more than `MAX_AGE_S`."""
        recent = {
            agent_id: record
            for agent_id, record in self.agents.items()
            if record.state == "admitted" or record.since > now - MAX_AGE_S
        }
        return Registry(self.epoch, recent)


def _apply(agents: dict[str, AgentRecord], change: Change) -> None:
    record = agents.get(change.agent_id)
    if isinstance(change, Remove):
        agents.pop(change.agent_id, None)
    elif isinstance(change, Admit):
        previous = record or AgentRecord(change.info)
        agents[change.agent_id] = AgentRecord(
            change.info,
            "admitted",
            change.at,
            previous.deactivated,
            previous.drain,
            change.instance_id or previous.instance_id,
        )
    elif record is not None:
        agents[change.agent_id] = _with_change(record, change)


def _with_change(record: AgentRecord, change: Change) -> AgentRecord:
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
