"""Pure state machine of the process supervisor: which service to start or stop, and when.

`Supervisor.handle(event, now)` returns the effects that the shell (`mesaform.node.daemon`) carries
out; `deadline()` says when the next `Tick` is due. `now` is any monotonic time in seconds. The
module depends on `mesaform.common` and `mesaform.node.model`; it does no I/O.

Services start in order: each when the service before it is ready, has used up its start time, or
waits for a retry (a service that cannot start must not stop the others from starting). Services
stop in reverse order, one at a time. Held services are stopped, in any order, until `Release`;
the others run on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mesaform.common.backoff import Backoff
from mesaform.common.transitions import TransitionTable, UnknownTransition
from mesaform.node.model import Service

_HISTORY_LENGTH = 20
"""Transitions of a service that an error report shows."""


class State(StrEnum):
    WAITING = "waiting"  # services before it are not ready yet
    SPAWNING = "spawning"  # the shell was asked for a process
    STARTING = "starting"  # the process runs and is not ready
    RUNNING = "running"  # ready, or its time to become ready is over
    BACKOFF = "backoff"  # it ended; the next start is scheduled
    STOPPING = "stopping"  # SIGTERM sent
    KILLING = "killing"  # SIGKILL sent
    STOPPED = "stopped"  # no process, for good or while it is held


class Kind(StrEnum):
    """Events of one service, as the transition table names them."""

    START = "start"
    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn-failed"
    READY = "ready"
    EXITED = "exited"
    TIMEOUT = "timeout"
    STOP = "stop"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Begin:
    """Start every service."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop every service for good."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Stop these services and start none of them before `Release`."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Release:
    """Start the held services again."""


@dataclass(frozen=True, slots=True)
class Spawned:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Ready:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended. `ending` is text for operators: "exit code 1", "signal SIGKILL"."""

    name: str
    pid: int
    ending: str


ProcessEvent = Spawned | SpawnFailed | Ready | Exited
Event = Begin | Tick | StopAll | Hold | Release | ProcessEvent


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the service's process; report `Spawned` or `SpawnFailed` before its other events."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send SIGTERM."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Every service has stopped; the node may end."""


Effect = Spawn | Terminate | Kill | Finished


_RESTART_BACKOFF = Backoff(first_s=0.25, cap_s=30.0)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When to start a service again after it ended.

    A run of at least `healthy_after_s` seconds resets the count of failures. SIGKILL is repeated
    every `kill_again_after_s` seconds.
    """

    backoff: Backoff = _RESTART_BACKOFF
    healthy_after_s: float = 60.0
    kill_again_after_s: float = 2.0


@dataclass(slots=True)
class Entry:
    """State of one service.

    `since` is when the state began, `due_at` when `Kind.TIMEOUT` happens (None: never), `failures`
    counts failures in a row, `last_end` says how the last process ended.
    """

    service: Service
    state: State = State.WAITING
    since: float = 0.0
    due_at: float | None = None
    pid: int | None = None
    spawned_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    last_end: str = ""
    history: deque[str] = field(default_factory=lambda: deque(maxlen=_HISTORY_LENGTH))


class Supervisor:
    """The services of one machine. Entries may be read at any time; only `handle` changes them."""

    def __init__(self, services: Sequence[Service], policy: RestartPolicy | None = None) -> None:
        self.policy = policy or RestartPolicy()
        self.entries = {service.name: Entry(service) for service in services}
        self.has_begun = False
        self.held_names: frozenset[str] = frozenset()
        self.is_stopping = False
        self.is_finished = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Apply one event and return the effects that follow.

        Raises:
            UnknownTransition: the event cannot happen in the state of its service.

        """
        return self._apply(event, now) + self._advance(now)

    @property
    def is_holding(self) -> bool:
        """Whether services are to be held and all of them have stopped."""
        return bool(self.held_names) and all(
            self.entries[name].state is State.STOPPED for name in self.held_names
        )

    def deadline(self) -> float | None:
        """When the next `Tick` is due; None if no service waits for time."""
        return min(
            (entry.due_at for entry in self.entries.values() if entry.due_at is not None),
            default=None,
        )

    def _apply(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Begin():
                self.has_begun = True
            case StopAll():
                self.is_stopping = True
            case Hold(names):
                self.held_names = names
            case Release():
                self.held_names = frozenset()
            case Tick():
                return self._expire(now)
            case _:
                return self._apply_process_event(event, now)
        return []

    def _expire(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for entry in self.entries.values():
            if entry.due_at is not None and entry.due_at <= now:
                effects += self._step(entry, Kind.TIMEOUT, now)
        return effects

    def _apply_process_event(self, event: ProcessEvent, now: float) -> list[Effect]:
        entry = self.entries[event.name]
        if isinstance(event, Spawned):
            entry.pid = event.pid
            return self._step(entry, Kind.SPAWNED, now)
        if isinstance(event, SpawnFailed):
            entry.last_end = event.error
            return self._step(entry, Kind.SPAWN_FAILED, now)
        if entry.pid != event.pid:
            return []  # an event of an earlier process of this service
        if isinstance(event, Exited):
            entry.last_end = event.ending
            return self._step(entry, Kind.EXITED, now)
        return self._step(entry, Kind.READY, now)

    def _advance(self, now: float) -> list[Effect]:
        """The steps that the present states allow without a further event."""
        if self.is_stopping:
            return self._stop_without_process(now) + self._stop_in_reverse(now)
        return self._apply_hold(now) + self._start_next(now)

    def _apply_hold(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for name, entry in self.entries.items():
            is_held = name in self.held_names
            if is_held and entry.state in _STOPPABLE:
                effects += self._step(entry, Kind.STOP, now)
            elif not is_held and entry.state is State.STOPPED:
                effects += self._step(entry, Kind.RELEASE, now)
        return effects

    def _start_next(self, now: float) -> list[Effect]:
        if not self.has_begun:
            return []
        for entry in self.entries.values():
            if entry.state is State.WAITING:
                return self._step(entry, Kind.START, now)
            if entry.state in (State.SPAWNING, State.STARTING):
                return []
        return []

    def _stop_without_process(self, now: float) -> list[Effect]:
        """Stop the services that have no process first, so that none of them starts now."""
        effects: list[Effect] = []
        for entry in self.entries.values():
            if entry.state in (State.WAITING, State.BACKOFF):
                effects += self._step(entry, Kind.STOP, now)
        return effects

    def _stop_in_reverse(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for entry in reversed(self.entries.values()):
            if entry.state in (State.STARTING, State.RUNNING):
                effects += self._step(entry, Kind.STOP, now)
            if entry.state is not State.STOPPED:
                return effects
        if not self.is_finished:
            self.is_finished = True
            effects.append(Finished())
        return effects

    def _step(self, entry: Entry, kind: Kind, now: float) -> list[Effect]:
        before = entry.state
        table = TransitionTable(f"service {entry.service.name}", _NEXT_STATES)
        after = table.next_state(before, kind, entry.history)
        entry.history.append(f"{before}+{kind}")
        if after is not before:
            entry.state, entry.since, entry.due_at = after, now, None
        return TRANSITIONS[before, kind][1](entry, self.policy, now)


Action = Callable[[Entry, RestartPolicy, float], list[Effect]]


def _spawn(entry: Entry, _policy: RestartPolicy, now: float) -> list[Effect]:
    entry.spawned_at = now
    return [Spawn(entry.service.name)]


def _respawn(entry: Entry, policy: RestartPolicy, now: float) -> list[Effect]:
    entry.restarts += 1
    return _spawn(entry, policy, now)


def _await_ready(entry: Entry, _policy: RestartPolicy, now: float) -> list[Effect]:
    entry.due_at = now + (entry.service.ready_within_s if entry.service.ready else 0.0)
    return []


def _back_off(entry: Entry, policy: RestartPolicy, now: float) -> list[Effect]:
    was_healthy = entry.pid is not None and now - entry.spawned_at >= policy.healthy_after_s
    entry.failures = 1 if was_healthy else entry.failures + 1
    entry.pid = None
    pause_s = policy.backoff.delay_s(entry.failures)
    entry.due_at = now + min(pause_s, entry.service.restart_within_s)
    return []


def _terminate(entry: Entry, _policy: RestartPolicy, now: float) -> list[Effect]:
    entry.due_at = now + entry.service.stop_within_s
    return [Terminate(entry.service.name, _pid(entry))]


def _kill(entry: Entry, policy: RestartPolicy, now: float) -> list[Effect]:
    entry.due_at = now + policy.kill_again_after_s
    return [Kill(entry.service.name, _pid(entry))]


def _forget_process(entry: Entry, _policy: RestartPolicy, _now: float) -> list[Effect]:
    entry.pid = None
    return []


def _do_nothing(_entry: Entry, _policy: RestartPolicy, _now: float) -> list[Effect]:
    return []


def _pid(entry: Entry) -> int:
    if entry.pid is None:
        raise UnknownTransition(f"service {entry.service.name}: {entry.state} without a process")
    return entry.pid


_STOPPABLE = (State.WAITING, State.BACKOFF, State.STARTING, State.RUNNING)
"""States in which a service can be stopped at once."""

TRANSITIONS: dict[tuple[State, Kind], tuple[State, Action]] = {
    # the services before it are ready, or had their time
    (State.WAITING, Kind.START): (State.SPAWNING, _spawn),
    # the machine stops before the service started
    (State.WAITING, Kind.STOP): (State.STOPPED, _forget_process),
    # the process has `ready_within_s` to accept connections
    (State.SPAWNING, Kind.SPAWNED): (State.STARTING, _await_ready),
    # no process (program missing, no memory): treated as a process that ended at once
    (State.SPAWNING, Kind.SPAWN_FAILED): (State.BACKOFF, _back_off),
    # it accepts connections
    (State.STARTING, Kind.READY): (State.RUNNING, _do_nothing),
    # it is not ready in time; the next service does not wait longer
    (State.STARTING, Kind.TIMEOUT): (State.RUNNING, _do_nothing),
    # it ended while starting
    (State.STARTING, Kind.EXITED): (State.BACKOFF, _back_off),
    (State.STARTING, Kind.STOP): (State.STOPPING, _terminate),
    # a probe that was under way at the time-out
    (State.RUNNING, Kind.READY): (State.RUNNING, _do_nothing),
    # it ended, with any exit code: services run until they are stopped
    (State.RUNNING, Kind.EXITED): (State.BACKOFF, _back_off),
    (State.RUNNING, Kind.STOP): (State.STOPPING, _terminate),
    # the delay is over
    (State.BACKOFF, Kind.TIMEOUT): (State.SPAWNING, _respawn),
    # there is no process to stop
    (State.BACKOFF, Kind.STOP): (State.STOPPED, _forget_process),
    # it stopped in time
    (State.STOPPING, Kind.EXITED): (State.STOPPED, _forget_process),
    # it did not stop in time
    (State.STOPPING, Kind.TIMEOUT): (State.KILLING, _kill),
    # a probe that was under way at the stop
    (State.STOPPING, Kind.READY): (State.STOPPING, _do_nothing),
    (State.KILLING, Kind.EXITED): (State.STOPPED, _forget_process),
    # a process in uninterruptible I/O ends late; a second SIGKILL is harmless
    (State.KILLING, Kind.TIMEOUT): (State.KILLING, _kill),
    (State.KILLING, Kind.READY): (State.KILLING, _do_nothing),
    # the service was held
    (State.STOPPED, Kind.RELEASE): (State.SPAWNING, _respawn),
}

_NEXT_STATES = {edge: after for edge, (after, _) in TRANSITIONS.items()}
