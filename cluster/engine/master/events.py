"""Events and effects of the master's core: plain values.

The shell turns HTTP calls, link messages and the clock into events, and carries out the effects in
order. docs/engine.md has a table of the events with their handlers and effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mesaform.engine import link
from mesaform.engine.documents import Document
from mesaform.engine.registry import Change
from mesaform.mesos.messages import FrameworkInfo
from mesaform.mesos.scheduler_api import Call, OfferConstraints

# --- events


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A scheduler opened a stream. `framework_id` is None for a new framework."""

    stream_id: str
    info: FrameworkInfo
    framework_id: str | None = None
    suppressed_roles: tuple[str, ...] = ()
    offer_constraints: OfferConstraints | None = None


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A scheduler's stream broke, or was closed because it was too slow."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class SchedulerCall:
    """A call other than SUBSCRIBE, from a framework that is known and connected."""

    framework_id: str
    call: Call


@dataclass(frozen=True, slots=True)
class AgentRegistering:
    """The first message on a new link. The core sets `is_new` when it gives the agent an id.

    `instance_id` is the instance that the agent proved to be; empty where none is asked for.
    """

    link_id: str
    register: link.Register
    is_new: bool = False
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class AgentUpdate:
    """An agent sent a status update."""

    link_id: str
    update: link.Update


@dataclass(frozen=True, slots=True)
class AgentPong:
    """An agent answered a ping."""

    link_id: str


@dataclass(frozen=True, slots=True)
class AgentLeaving:
    """An agent shuts down and does not return. Its tasks have ended."""

    link_id: str


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """An agent's link broke."""

    link_id: str


@dataclass(frozen=True, slots=True)
class Operator:
    """A call of the operator API that changes something.

    A `Reply` with the same token answers it. `id` is the agent's or the framework's.
    """

    token: int
    type: str
    id: str
    max_grace_s: float | None = None
    mark_gone: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """The registry has stored the change. `origin` is the event that caused it."""

    change: Change
    origin: AgentRegistering | Operator | None = None


@dataclass(frozen=True, slots=True)
class NotStored:
    """The registry cannot take the change. `why` is for whom `origin` came from."""

    change: Change
    origin: AgentRegistering | Operator | None
    why: str


@dataclass(frozen=True, slots=True)
class Tick:
    """An allocation interval has passed: offers, pings, heartbeats and time-outs."""


AgentEvent: TypeAlias = AgentRegistering | AgentUpdate | AgentPong | AgentLeaving | LinkClosed
Event: TypeAlias = (
    Subscribe | StreamClosed | SchedulerCall | AgentEvent | Operator | Stored | NotStored | Tick
)

# --- effects


@dataclass(frozen=True, slots=True)
class SendEvent:
    """Send one record on a scheduler's stream."""

    stream_id: str
    event: Document


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End a scheduler's stream after what was sent."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class SendAgent:
    """Send a message on an agent's link."""

    link_id: str
    message: link.FromMaster


@dataclass(frozen=True, slots=True)
class CloseLink:
    """End an agent's link after what was sent. `why` is given to an agent that is rejected."""

    link_id: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """Write the change to the registry, then feed `Stored`.

    Effects that depend on the change follow `Stored`, never this.
    """

    change: Change
    origin: AgentRegistering | Operator | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer an `Operator` event with an HTTP status."""

    token: int
    status: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Publish:
    """Send one record on every operator event stream."""

    event: Document


Effect: TypeAlias = SendEvent | CloseStream | SendAgent | CloseLink | Store | Reply | Publish
