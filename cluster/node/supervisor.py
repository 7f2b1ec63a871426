"""The supervisor's mind: which process to start, to wait for, to stop and when, as a pure state machine.

`Supervisor.handle(event, now)` returns effects for the shell to carry out; `deadline()` says when the next `Tick` is due.
No process, clock or file is touched here. `now` is any monotonic time in seconds.

Some may be held: stopped for a while, with the others running on, until they are released.

Services start in order: each when the one before it is ready, has been given its time, or has failed and waits for another
try (a service that cannot start must not keep the rest of the machine down). They stop in reverse order, one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mesaform.node.model import Service


class State(StrEnum):
    WAITING = "waiting"  # its turn has not come
    SPAWNING = "spawning"  # the shell was asked for a process
    STARTING = "starting"  # the process runs and is not ready
    RUNNING = "running"  # ready, or given all the time it may take to be
    BACKOFF = "backoff"  # it ended; the next try has a time
    STOPPING = "stopping"  # SIGTERM sent
    KILLING = "killing"  # SIGKILL sent
    STOPPED = "stopped"  # gone for good, or as long as it is held


class Kind(StrEnum):
    """What can happen to one service."""

    TURN = "turn"
    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn-failed"
    READY = "ready"
    EXITED = "exited"
    DUE = "due"
    STOP = "stop"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Begin:
    """Start everything."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop everything, for good."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Stop these, and keep them stopped."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Release:
    """What was held starts again."""


@dataclass(frozen=True, slots=True)
class Spawned:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone. `how` is for people: "exit code 1", "signal SIGKILL"."""

    name: str
    pid: int
    how: str


Event = Begin | Tick | StopAll | Hold | Release | Spawned | SpawnFailed | Ready | Exited


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the service's process and report `Spawned` or `SpawnFailed` before any other event of that service."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Every service is gone; the node may end."""


Effect = Spawn | Terminate | Kill | Finished


@dataclass(frozen=True, slots=True)
class Policy:
    """When to try again. A service that ran for `healthy_after_s` seconds is forgiven its earlier failures."""

    first_delay_s: float = 0.25
    factor: float = 2.0
    cap_s: float = 30.0
    healthy_after_s: float = 60.0
    kill_again_after_s: float = 2.0

    def delay_s(self, failures: int) -> float:
        """The pause after so many failures in a row (at least one)."""
        exponent = min(failures - 1, 32)
        return min(self.cap_s, self.first_delay_s * self.factor**exponent)


class UnknownTransition(RuntimeError):
    """An event met a state that has no edge for it: a bug, reported with what the service went through."""


@dataclass(slots=True)
class Entry:
    """What is known of one service. `since` is when its state began; `due` is when `Kind.DUE` happens to it, if ever."""

    service: Service
    state: State = State.WAITING
    since: float = 0.0
    due: float | None = None
    pid: int | None = None
    spawned_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    last_end: str = ""
    history: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class Supervisor:
    """See the module. Entries may be read at any time and are changed by `handle` only."""

    def __init__(self, services: Sequence[Service], policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.entries = {service.name: Entry(service) for service in services}
        self.begun = False
        self.held: frozenset[str] = frozenset()
        self.stopping = False
        self.finished = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event.

        Raises:
            UnknownTransition: the event cannot happen in the state that its service is in.

        """
        effects: list[Effect] = []
        match event:
            case Begin():
                self.begun = True
            case StopAll():
                self.stopping = True
            case Hold(names):
                self.held = names
            case Release():
                self.held = frozenset()
            case Tick():
                for entry in self.entries.values():
                    if entry.due is not None and entry.due <= now:
                        effects += self._step(entry, Kind.DUE, now)
            case _:
                effects += self._absorb(event, now)
        return effects + self._advance(now)

    def _absorb(self, event: Spawned | SpawnFailed | Ready | Exited, now: float) -> list[Effect]:
        entry = self.entries[event.name]
        match event:
            case Spawned():
                entry.pid = event.pid
                return self._step(entry, Kind.SPAWNED, now)
            case SpawnFailed():
                entry.last_end = event.why
                return self._step(entry, Kind.SPAWN_FAILED, now)
        if entry.pid != event.pid:
            return []  # of a process that this one replaced
        if isinstance(event, Exited):
            entry.last_end = event.how
            return self._step(entry, Kind.EXITED, now)
        return self._step(entry, Kind.READY, now)

    @property
    def holds(self) -> bool:
        """Whether everything that is to be held has ended."""
        return bool(self.held) and all(
            self.entries[name].state is State.STOPPED for name in self.held
        )

    def deadline(self) -> float | None:
        """When the next `Tick` is due; None if nothing waits for time."""
        return min(
            (entry.due for entry in self.entries.values() if entry.due is not None), default=None
        )

    def _advance(self, now: float) -> list[Effect]:
        return (
            self._advance_stop(now)
            if self.stopping
            else self._advance_hold(now) + self._advance_start(now)
        )

    def _advance_hold(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for name, entry in self.entries.items():
            if name in self.held and entry.state in (
                State.WAITING,
                State.BACKOFF,
                State.STARTING,
                State.RUNNING,
            ):
                effects += self._step(entry, Kind.STOP, now)
            elif name not in self.held and entry.state is State.STOPPED:
                effects += self._step(entry, Kind.RELEASE, now)
        return effects

    def _advance_start(self, now: float) -> list[Effect]:
        if not self.begun:
            return []
        for entry in self.entries.values():
            if entry.state is State.WAITING:
                return self._step(entry, Kind.TURN, now)
            if entry.state in (State.SPAWNING, State.STARTING):
                return []
        return []

    def _advance_stop(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for entry in self.entries.values():
            if entry.state in (
                State.WAITING,
                State.BACKOFF,
            ):  # no process: nothing to wait for, and none may start now
                effects += self._step(entry, Kind.STOP, now)
        for entry in reversed(self.entries.values()):
            if entry.state in (State.STARTING, State.RUNNING):
                effects += self._step(entry, Kind.STOP, now)
            if entry.state is not State.STOPPED:
                return effects
        if not self.finished:
            self.finished = True
            effects.append(Finished())
        return effects

    def _step(self, entry: Entry, kind: Kind, now: float) -> list[Effect]:
        edge = TRANSITIONS.get((entry.state, kind))
        if edge is None:
            trail = ", ".join(entry.history)
            raise UnknownTransition(
                f"{entry.service.name}: {kind} while {entry.state}; before that: {trail}"
            )
        after, action = edge
        entry.history.append(f"{entry.state}+{kind}")
        if after is not entry.state:
            entry.state, entry.since, entry.due = after, now, None
        return action(entry, self.policy, now)


Action = Callable[[Entry, Policy, float], list[Effect]]


def _spawn(entry: Entry, _policy: Policy, now: float) -> list[Effect]:
    entry.spawned_at = now
    return [Spawn(entry.service.name)]


def _respawn(entry: Entry, policy: Policy, now: float) -> list[Effect]:
    entry.restarts += 1
    return _spawn(entry, policy, now)


def _await_ready(entry: Entry, _policy: Policy, now: float) -> list[Effect]:
    entry.due = now + (entry.service.ready_within_s if entry.service.ready else 0.0)
    return []


def _back_off(entry: Entry, policy: Policy, now: float) -> list[Effect]:
    ran_well = entry.pid is not None and now - entry.spawned_at >= policy.healthy_after_s
    entry.failures = 1 if ran_well else entry.failures + 1
    entry.pid = None
    entry.due = now + policy.delay_s(entry.failures)
    return []


def _terminate(entry: Entry, _policy: Policy, now: float) -> list[Effect]:
    entry.due = now + entry.service.stop_within_s
    return [Terminate(entry.service.name, _pid(entry))]


def _kill(entry: Entry, policy: Policy, now: float) -> list[Effect]:
    entry.due = now + policy.kill_again_after_s
    return [Kill(entry.service.name, _pid(entry))]


def _gone(entry: Entry, _policy: Policy, _now: float) -> list[Effect]:
    entry.pid = None
    return []


def _nothing(_entry: Entry, _policy: Policy, _now: float) -> list[Effect]:
    return []


def _pid(entry: Entry) -> int:
    if entry.pid is None:
        raise UnknownTransition(f"{entry.service.name}: {entry.state} without a process")
    return entry.pid


TRANSITIONS: dict[tuple[State, Kind], tuple[State, Action]] = {
    # the services before it are up, or have had their chance
    (State.WAITING, Kind.TURN): (State.SPAWNING, _spawn),
    # the machine stops before the turn came
    (State.WAITING, Kind.STOP): (State.STOPPED, _gone),
    # there is a process; it has `ready_within_s` to accept connections
    (State.SPAWNING, Kind.SPAWNED): (State.STARTING, _await_ready),
    # there is none (no such program, no memory): as if it had ended at once
    (State.SPAWNING, Kind.SPAWN_FAILED): (State.BACKOFF, _back_off),
    # it accepts connections
    (State.STARTING, Kind.READY): (State.RUNNING, _nothing),
    # it does not yet; the next service need not wait for that
    (State.STARTING, Kind.DUE): (State.RUNNING, _nothing),
    # it ended while starting
    (State.STARTING, Kind.EXITED): (State.BACKOFF, _back_off),
    (State.STARTING, Kind.STOP): (State.STOPPING, _terminate),
    # a probe that was on its way when the time ran out
    (State.RUNNING, Kind.READY): (State.RUNNING, _nothing),
    # it ended, with whatever code: services have no reason to end
    (State.RUNNING, Kind.EXITED): (State.BACKOFF, _back_off),
    (State.RUNNING, Kind.STOP): (State.STOPPING, _terminate),
    # the pause is over
    (State.BACKOFF, Kind.DUE): (State.SPAWNING, _respawn),
    # nothing runs, so nothing is to be stopped
    (State.BACKOFF, Kind.STOP): (State.STOPPED, _gone),
    # it stopped in time
    (State.STOPPING, Kind.EXITED): (State.STOPPED, _gone),
    # it did not
    (State.STOPPING, Kind.DUE): (State.KILLING, _kill),
    # a probe that was on its way when the stop came
    (State.STOPPING, Kind.READY): (State.STOPPING, _nothing),
    (State.KILLING, Kind.EXITED): (State.STOPPED, _gone),
    # a process in the middle of I/O dies late; asking again is harmless
    (State.KILLING, Kind.DUE): (State.KILLING, _kill),
    (State.KILLING, Kind.READY): (State.KILLING, _nothing),
    # it was only held
    (State.STOPPED, Kind.RELEASE): (State.SPAWNING, _respawn),
}
