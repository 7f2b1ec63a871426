"""What goes into the master's core (events) and what comes out (effects). Both are plain values.

The shell turns HTTP calls, link messages and the clock into events, and carries effects out in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesaform.engine import link
from mesaform.engine.registry import Change
from mesaform.mesos.messages import FrameworkInfo
from mesaform.mesos.scheduler_api import Call

# --- events


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A scheduler opened a stream. `framework_id` is None for a new framework."""

    stream_id: str
    info: FrameworkInfo
    framework_id: str | None = None
    suppressed_roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A scheduler's stream broke, or was cut because it was too slow."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class SchedulerCall:
    """Any call but SUBSCRIBE, of a framework that is known and connected."""

    framework_id: str
    call: Call


@dataclass(frozen=True, slots=True)
class AgentRegistering:
    """An agent's first message on a new link. `is_new` is set by the core, when it gives the agent its first id."""

    link_id: str
    register: link.Register
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class AgentUpdate:
    link_id: str
    update: link.Update


@dataclass(frozen=True, slots=True)
class AgentPong:
    link_id: str


@dataclass(frozen=True, slots=True)
class AgentLeaving:
    """The agent ends for good; its tasks are dead."""

    link_id: str


@dataclass(frozen=True, slots=True)
class LinkClosed:
    link_id: str


@dataclass(frozen=True, slots=True)
class Operator:
    """A call of the operator API that changes something; answered by a `Reply` with the same token."""

    token: int
    type: str
    id: str
    max_grace_s: float | None = None
    mark_gone: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """The registry holds the change now; `origin` is the event that asked for it."""

    change: Change
    origin: AgentRegistering | Operator | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Once an allocation interval: offers, pings, heartbeats, time-outs."""


OfAgent = AgentRegistering | AgentUpdate | AgentPong | AgentLeaving | LinkClosed
Event = Subscribe | StreamClosed | SchedulerCall | OfAgent | Operator | Stored | Tick

# --- effects


@dataclass(frozen=True, slots=True)
class SendEvent:
    """One record on a scheduler's stream."""

    stream_id: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End a scheduler's stream after what was sent."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class SendAgent:
    link_id: str
    message: link.FromMaster


@dataclass(frozen=True, slots=True)
class CloseLink:
    link_id: str


@dataclass(frozen=True, slots=True)
class Store:
    """Write the change to the registry, then hand `Stored` in. Nobody is told anything that rests on it before."""

    change: Change
    origin: AgentRegistering | Operator | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to an `Operator` event."""

    token: int
    status: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Publish:
    """One record on every operator event stream."""

    event: dict[str, Any]


Effect = SendEvent | CloseStream | SendAgent | CloseLink | Store | Reply | Publish
