"""The dead man's lease as a machine judges it: when an agent that nobody looks after any more may end itself. A pure state machine.

`Watch.handle(event, now)` returns effects for the shell. `now` is this machine's monotonic time and no other clock is known here.
Time counts only from look to look: while the machine stood still nobody listened, so that was no silence, and nobody saw that it
was empty. Never with work on it, never while the lease is renewed. That only bought machines have a lease at all is said by
their node document, not here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

COUNTS_AT_MOST_S = 60.0
"""What one look may add to a span; looks are seconds apart, and a longer pause was none."""

EMPTY_AT_LEAST_S = 10.0
"""However short the terms are, an agent that was seen empty once is not empty yet."""

PATIENCE_MOST = 256
"""After each attempt in vain the machine must have been empty for twice as long, up to this many times."""


class State(StrEnum):
    KEPT = "kept"  # the lease is renewed, has not run out yet, or is off
    SILENT = "silent"  # it ran out; the machine has work, or was not empty for long enough
    HOLDING = "holding"  # the node was asked to stop the engine's agent and to tell what is left
    LOOKING = "looking"  # the agent is stopped and nothing is left; the lease and the master are asked once more
    RESUMING = "resuming"  # the agent starts again
    LEAVING = "leaving"  # the machine goes off


class Kind(StrEnum):
    """What can happen to the machine's lease."""

    RAN_OUT = "ran-out"
    RENEWED = "renewed"
    EMPTY = "empty"
    HELD = "held"
    LANDED = "landed"
    CLEAR = "clear"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True)
class Terms:
    """How long silence may last (0: for ever), and how long the machine must have been empty."""

    lease_s: float
    empty_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The lease as ZooKeeper has it. `mark` is another one after each renewal, empty where there is no lease; `terms` None: as before.

    `spared`: an operator protects this machine.
    """

    mark: str
    terms: Terms | None = None
    spared: bool = False


@dataclass(frozen=True, slots=True)
class Unseen:
    """ZooKeeper did not answer."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What the machine's own engine agent says of itself; `silent`: it does not answer."""

    found: Literal["empty", "busy", "silent"]


@dataclass(frozen=True, slots=True)
class Held:
    """The engine's agent is stopped; `left` are processes of the machine that are nobody's service. None: the node did not do it."""

    left: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Asked:
    """Whether the leading master knows of work on this agent; None: no master leads, or it does not know the agent."""

    has_work: bool | None


@dataclass(frozen=True, slots=True)
class Released:
    """The engine's agent starts again."""


Event = Seen | Unseen | Looked | Held | Asked | Released


@dataclass(frozen=True, slots=True)
class Hold:
    """Have the engine's agent stopped; answer with `Held`."""


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Read the lease (`Seen` or `Unseen`); unless that led elsewhere, ask the master (`Asked`)."""


@dataclass(frozen=True, slots=True)
class Release:
    """Have the agent started again; answer with `Released`."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Say farewell and power the machine off."""

    lease_s: float
    silent_s: float
    empty_s: float


Effect = Hold | LookAgain | Release | Leave


class UnknownTransition(RuntimeError):
    """An event met a state that has no edge for it: a bug, reported with what went before."""


@dataclass(slots=True)
class LeaseMonitor:
    """See the module. Fields may be read at any time and are changed by `handle` only."""

    terms: Terms
    started_at: float
    state: State = State.KEPT
    silent_s: float = 0.0
    empty_s: float = 0.0
    unanswered_s: float = 0.0
    spared: bool = False
    attempts: int = 0
    history: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    _mark: str | None = None
    _listened_at: float | None = None
    _looked_at: float | None = None
    _found: str = ""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Absorb an event, then see what it leads to.

        Raises:
            UnknownTransition: an answer came that nobody asked for.

        """
        if isinstance(event, Seen | Unseen):
            self._listen(event, now)
        elif isinstance(event, Looked):
            self._look(event, now)
        kind = self._kind(event)
        if kind is None:
            return []
        edge = TRANSITIONS.get((self.state, kind))
        if edge is None:
            raise UnknownTransition(
                f"{kind} while {self.state}; before that: {', '.join(self.history)}"
            )
        self.history.append(f"{self.state}+{kind}")
        self.state, action = edge
        return action(self)

    @property
    def is_out(self) -> bool:
        """Whether the lease has run out."""
        return self.terms.lease_s > 0 and not self.spared and self.silent_s >= self.terms.lease_s

    @property
    def wants_look(self) -> bool:
        """Whether it is time to know if the agent is empty: from half of the lease on."""
        return (
            self.state in (State.KEPT, State.SILENT)
            and self.terms.lease_s > 0
            and self.silent_s >= self.terms.lease_s / 2
        )

    @property
    def needed_s(self) -> float:
        """How long the agent must have been empty, or not have answered at all."""
        patience = min(1 << self.attempts, PATIENCE_MOST)
        return max(self.terms.empty_s, EMPTY_AT_LEAST_S) * patience

    def _listen(self, event: Seen | Unseen, now: float) -> None:
        before = self.started_at if self._listened_at is None else self._listened_at
        self._listened_at = now
        self.silent_s += min(max(0.0, now - before), COUNTS_AT_MOST_S)
        if isinstance(event, Unseen):
            return
        if event.mark and self._mark is not None and event.mark != self._mark:
            self.silent_s, self.attempts = 0.0, 0
            self._forget_looks()
        self._mark = event.mark or self._mark or ""
        self.terms = event.terms or self.terms
        self.spared = event.spared

    def _look(self, event: Looked, now: float) -> None:
        same = event.found == self._found and self._looked_at is not None
        elapsed_s = now - self._looked_at if same and self._looked_at is not None else 0.0
        if (
            elapsed_s > COUNTS_AT_MOST_S
        ):  # nobody looked in between: what was seen before proves nothing
            same, elapsed_s = False, 0.0
        self.empty_s = (
            (self.empty_s if same else 0.0) + elapsed_s if event.found == "empty" else 0.0
        )
        self.unanswered_s = (
            (self.unanswered_s if same else 0.0) + elapsed_s if event.found == "silent" else 0.0
        )
        self._looked_at, self._found = now, event.found

    def _forget_looks(self) -> None:
        self.empty_s = self.unanswered_s = 0.0
        self._looked_at, self._found = None, ""

    def _is_empty(self) -> bool:
        """An agent that has not answered for a whole lease serves nobody; what is left of it the node will see."""
        return self.empty_s >= self.needed_s or self.unanswered_s >= max(
            self.terms.lease_s, self.needed_s
        )

    def _kind(self, event: Event) -> Kind | None:
        match event:
            case Held(left):
                return Kind.HELD if left == () else Kind.LANDED
            case Asked(has_work):
                return Kind.LANDED if has_work else Kind.CLEAR
            case Released():
                return Kind.RESUMED
        if not self.is_out:
            return Kind.RENEWED if self.state in (State.SILENT, State.LOOKING) else None
        if self.state is State.KEPT:
            return Kind.RAN_OUT
        return Kind.EMPTY if self.state is State.SILENT and self._is_empty() else None


Action = Callable[[LeaseMonitor], list[Effect]]


def _nothing(_watch: LeaseMonitor) -> list[Effect]:
    return []


def _hold(_watch: LeaseMonitor) -> list[Effect]:
    return [Hold()]


def _look_again(_watch: LeaseMonitor) -> list[Effect]:
    return [LookAgain()]


def _release(watch: LeaseMonitor) -> list[Effect]:
    watch.attempts += 1
    watch._forget_looks()  # noqa: SLF001 - one module
    return [Release()]


def _leave(watch: LeaseMonitor) -> list[Effect]:
    return [Leave(watch.terms.lease_s, watch.silent_s, max(watch.empty_s, watch.unanswered_s))]


TRANSITIONS: dict[tuple[State, Kind], tuple[State, Action]] = {
    # nobody renewed it for so long
    (State.KEPT, Kind.RAN_OUT): (State.SILENT, _nothing),
    # somebody did, or the lease became longer, or was taken off
    (State.SILENT, Kind.RENEWED): (State.KEPT, _nothing),
    # empty for all the time that the terms ask for: no offer may be taken from now on
    (State.SILENT, Kind.EMPTY): (State.HOLDING, _hold),
    # the agent is stopped, and no process of a task or an executor is there
    (State.HOLDING, Kind.HELD): (State.LOOKING, _look_again),
    # one landed between the look and the stop, or the agent does not stop
    (State.HOLDING, Kind.LANDED): (State.RESUMING, _release),
    # nothing landed, nobody renewed
    (State.LOOKING, Kind.CLEAR): (State.LEAVING, _leave),
    # the master has sent a task that had not begun here
    (State.LOOKING, Kind.LANDED): (State.RESUMING, _release),
    # the autoscaler came back at the last moment
    (State.LOOKING, Kind.RENEWED): (State.RESUMING, _release),
    # the agent runs again; whether silence lasts is seen at the next look
    (State.RESUMING, Kind.RESUMED): (State.SILENT, _nothing),
}
