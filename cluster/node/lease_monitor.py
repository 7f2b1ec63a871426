"""Pure state machine of the agent lease: when an agent without an autoscaler terminates itself.

The leading autoscaler renews the lease in ZooKeeper. When no renewal arrives for `lease_s` and the
machine has had no task for `empty_s`, the machine powers off; never with a task on it and never
while the lease is renewed. Only machines that the autoscaler launched have a lease (their node
document says so; docs/adr/0013).

`LeaseMonitor.handle(event, now)` returns effects for the shell (`mesaform.node.lease_daemon`).
`now` is this machine's monotonic time in seconds; no other clock is used. Time counts only from one
observation to the next: while the machine was suspended no renewal could arrive and nothing showed
that it was empty. The module depends on `mesaform.common` only and does no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from mesaform.common.transitions import TransitionTable

LONGEST_INTERVAL_S = 60.0
"""Most seconds that one observation adds to a duration. Observations are seconds apart; a longer
pause means that the machine was suspended."""

SHORTEST_EMPTY_S = 10.0
"""Least seconds that an agent must be empty, whatever the terms say."""

MAX_PATIENCE = 256
"""Each failed attempt doubles the time that the machine must be empty, up to this factor."""

_HISTORY_LENGTH = 20


class State(StrEnum):
    RENEWED = "renewed"  # the lease is valid or switched off
    EXPIRED = "expired"  # the machine has tasks or was not empty for long enough
    STOPPING_AGENT = "stopping-agent"  # the node stops the engine's agent and lists processes
    VERIFYING = "verifying"  # the agent is stopped; lease and master are read again
    RESTARTING_AGENT = "restarting-agent"
    POWERING_OFF = "powering-off"


class Kind(StrEnum):
    """Events as the transition table names them."""

    EXPIRED = "expired"
    RENEWED = "renewed"
    EMPTY = "empty"
    STOPPED = "stopped"
    OCCUPIED = "occupied"
    VERIFIED = "verified"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class Terms:
    """`lease_s`: longest time without renewal (0: unlimited). `empty_s`: time without tasks."""

    lease_s: float
    empty_s: float


@dataclass(frozen=True, slots=True)
class LeaseRead:
    """The lease in ZooKeeper.

    `mark` differs after each renewal and is empty where there is no lease. `terms` None: unchanged.
    `is_protected`: an operator protects this machine.
    """

    mark: str
    terms: Terms | None = None
    is_protected: bool = False


@dataclass(frozen=True, slots=True)
class LeaseUnreadable:
    """ZooKeeper did not answer."""


Activity = Literal["empty", "busy", "silent"]


@dataclass(frozen=True, slots=True)
class AgentObserved:
    """What the machine's engine agent reports; `silent`: it does not answer."""

    activity: Activity


@dataclass(frozen=True, slots=True)
class AgentStopped:
    """The answer to `StopAgent`: processes that belong to no service. None: it did not stop."""

    remaining: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class MasterAnswered:
    """Whether the leading master assigns work to this agent; None: unknown."""

    has_work: bool | None


@dataclass(frozen=True, slots=True)
class AgentRestarted:
    """The answer to `RestartAgent`."""


Event = LeaseRead | LeaseUnreadable | AgentObserved | AgentStopped | MasterAnswered | AgentRestarted


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Stop the engine's agent; answer with `AgentStopped`."""


@dataclass(frozen=True, slots=True)
class Verify:
    """Read the lease (`LeaseRead` or `LeaseUnreadable`); if the state remains, ask the master."""


@dataclass(frozen=True, slots=True)
class RestartAgent:
    """Start the engine's agent again; answer with `AgentRestarted`."""


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Write the shutdown report and power the machine off."""

    lease_s: float
    silent_s: float
    empty_s: float


Effect = StopAgent | Verify | RestartAgent | PowerOff


@dataclass(slots=True)
class Observations:
    """For how long the engine's agent was seen `empty` or `silent` without interruption."""

    empty_s: float = 0.0
    silent_s: float = 0.0
    activity: Activity | None = None
    observed_at: float = 0.0

    def add(self, activity: Activity, now: float) -> None:
        """Record one observation at `now`."""
        elapsed_s = now - self.observed_at
        if activity != self.activity or elapsed_s > LONGEST_INTERVAL_S:
            self.empty_s = self.silent_s = elapsed_s = 0.0
        if activity == "empty":
            self.empty_s += elapsed_s
        elif activity == "silent":
            self.silent_s += elapsed_s
        self.activity, self.observed_at = activity, now


@dataclass(slots=True)
class LeaseMonitor:
    """The lease of one machine. Fields may be read at any time; only `handle` changes them.

    `silent_s` is the time since the last renewal, `attempts` counts attempts to power off that were
    given up since then.
    """

    terms: Terms
    started_at: float
    state: State = State.RENEWED
    silent_s: float = 0.0
    is_protected: bool = False
    attempts: int = 0
    agent: Observations = field(default_factory=Observations)
    history: deque[str] = field(default_factory=lambda: deque(maxlen=_HISTORY_LENGTH))
    _mark: str | None = None
    _read_at: float | None = None

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Apply one event and return the effects that follow.

        Raises:
            UnknownTransition: an answer arrived that no effect asked for.

        """
        if isinstance(event, LeaseRead | LeaseUnreadable):
            self._apply_lease(event, now)
        elif isinstance(event, AgentObserved):
            self.agent.add(event.activity, now)
        kind = self._kind(event)
        return [] if kind is None else self._step(kind)

    def begin_restart(self) -> None:
        """Count a failed attempt: the agent must be empty anew, for twice as long."""
        self.attempts += 1
        self.agent = Observations()

    @property
    def has_expired(self) -> bool:
        """Whether the lease is on and was not renewed in time."""
        is_on = self.terms.lease_s > 0 and not self.is_protected
        return is_on and self.silent_s >= self.terms.lease_s

    @property
    def needs_observation(self) -> bool:
        """Whether the agent's activity matters: from half of the lease on."""
        return (
            self.state in (State.RENEWED, State.EXPIRED)
            and self.terms.lease_s > 0
            and self.silent_s >= self.terms.lease_s / 2
        )

    @property
    def required_empty_s(self) -> float:
        """How long the agent must be empty, or must not answer, before an attempt."""
        patience = min(1 << self.attempts, MAX_PATIENCE)
        return max(self.terms.empty_s, SHORTEST_EMPTY_S) * patience

    def _apply_lease(self, event: LeaseRead | LeaseUnreadable, now: float) -> None:
        before = self.started_at if self._read_at is None else self._read_at
        self._read_at = now
        self.silent_s += min(max(0.0, now - before), LONGEST_INTERVAL_S)
        if isinstance(event, LeaseUnreadable):
            return
        if event.mark:
            if self._mark is not None and event.mark != self._mark:
                self.silent_s, self.attempts, self.agent = 0.0, 0, Observations()
            self._mark = event.mark
        elif self._mark is None:
            self._mark = ""  # a lease that appears later is a renewal
        self.terms = event.terms or self.terms
        self.is_protected = event.is_protected

    @property
    def _is_empty(self) -> bool:
        """An agent that does not answer for a whole lease counts: the node lists what it left."""
        silent_limit_s = max(self.terms.lease_s, self.required_empty_s)
        is_unresponsive = self.agent.silent_s >= silent_limit_s
        return self.agent.empty_s >= self.required_empty_s or is_unresponsive

    def _kind(self, event: Event) -> Kind | None:
        """The transition's event, or None if nothing changes."""
        match event:
            case AgentStopped(remaining):
                return Kind.STOPPED if remaining == () else Kind.OCCUPIED
            case MasterAnswered(has_work):
                return Kind.OCCUPIED if has_work else Kind.VERIFIED
            case AgentRestarted():
                return Kind.RESTARTED
            case _:
                return self._kind_of_observation()

    def _kind_of_observation(self) -> Kind | None:
        if not self.has_expired:
            return Kind.RENEWED if self.state in (State.EXPIRED, State.VERIFYING) else None
        if self.state is State.RENEWED:
            return Kind.EXPIRED
        return Kind.EMPTY if self.state is State.EXPIRED and self._is_empty else None

    def _step(self, kind: Kind) -> list[Effect]:
        before = self.state
        self.state = _TABLE.next_state(before, kind, self.history)
        self.history.append(f"{before}+{kind}")
        return TRANSITIONS[before, kind][1](self)


Action = Callable[[LeaseMonitor], list[Effect]]


def _do_nothing(_monitor: LeaseMonitor) -> list[Effect]:
    return []


def _stop_agent(_monitor: LeaseMonitor) -> list[Effect]:
    return [StopAgent()]


def _verify(_monitor: LeaseMonitor) -> list[Effect]:
    return [Verify()]


def _restart_agent(monitor: LeaseMonitor) -> list[Effect]:
    monitor.begin_restart()
    return [RestartAgent()]


def _power_off(monitor: LeaseMonitor) -> list[Effect]:
    empty_s = max(monitor.agent.empty_s, monitor.agent.silent_s)
    return [PowerOff(monitor.terms.lease_s, monitor.silent_s, empty_s)]


TRANSITIONS: dict[tuple[State, Kind], tuple[State, Action]] = {
    # no renewal for `lease_s`
    (State.RENEWED, Kind.EXPIRED): (State.EXPIRED, _do_nothing),
    # renewed, prolonged or switched off
    (State.EXPIRED, Kind.RENEWED): (State.RENEWED, _do_nothing),
    # empty for as long as required: the agent must accept no task from here on
    (State.EXPIRED, Kind.EMPTY): (State.STOPPING_AGENT, _stop_agent),
    # the agent is stopped; no process of a task or an executor remains
    (State.STOPPING_AGENT, Kind.STOPPED): (State.VERIFYING, _verify),
    # a task started between observation and stop, or the agent did not stop
    (State.STOPPING_AGENT, Kind.OCCUPIED): (State.RESTARTING_AGENT, _restart_agent),
    # no work and no renewal
    (State.VERIFYING, Kind.VERIFIED): (State.POWERING_OFF, _power_off),
    # the master has sent a task that did not start here yet
    (State.VERIFYING, Kind.OCCUPIED): (State.RESTARTING_AGENT, _restart_agent),
    # an autoscaler renewed the lease during the attempt
    (State.VERIFYING, Kind.RENEWED): (State.RESTARTING_AGENT, _restart_agent),
    # the agent runs again; the next observation shows whether the lease is still expired
    (State.RESTARTING_AGENT, Kind.RESTARTED): (State.EXPIRED, _do_nothing),
}

_TABLE = TransitionTable("lease", {edge: after for edge, (after, _) in TRANSITIONS.items()})
