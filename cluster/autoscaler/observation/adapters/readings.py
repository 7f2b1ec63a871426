"""Readings of all frameworks, beside the passes of the planner.

No pass waits for a framework: it gets the last answers with their age. Each framework is asked by
itself, at most once at a time, within a deadline; one that fails is asked less often. Depends on
`client`, `choice` and `credentials`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import aiohttp

from mesaform.autoscaler.model.cluster_view import Framework
from mesaform.autoscaler.model.framework_demand import FrameworkDemand
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.observation.adapters.address_guard import Guard
from mesaform.autoscaler.observation.adapters.answers import AdapterError, Reading
from mesaform.autoscaler.observation.adapters.choice import ADAPTERS, Choice, choose
from mesaform.autoscaler.observation.adapters.client import GuardedResolver, HttpSource
from mesaform.autoscaler.observation.adapters.credentials import Credentials
from mesaform.common.faults import Fault, contained
from mesaform.common.printable import printable
from mesaform.config.schema import ClusterSpec
from mesaform.http import open_session
from mesaform.topology.ports import Port

EVERY_S = 1.0
"""Time between two readings of a framework (s)."""

TICK_S = 0.25
PATIENCE = 4.0
"""A slow framework is asked after this many times the time of its last answer."""

MAX_AGE_S = 30.0
"""Age up to which an answer counts (s). Then the framework's demand is inferred."""

STORED_EVERY_S = 5.0
"""How often an answer that wants the same is renewed (s): the planner state is written then."""

QUICK_ATTEMPTS = 30
"""Attempts before a framework that fails is asked less often: Spark's driver registers with Mesos
some seconds before its API answers."""

MAX_BACKOFF_S = 60.0
MAX_UNKNOWN_BACKOFF_S = 300.0
"""Longest time between two attempts at a framework that fails; at one whose API is not known."""

FORGET_AFTER_S = 60.0
MAX_FRAMEWORKS = 200
MAX_AT_ONCE = 32
TRACKED_TEXT = 200

BYTES_PER_S = 1024 * 1024
"""Rate at which one framework is read: the next reading waits for the length of the last one."""

ALL_BYTES_PER_S = 8 * 1024 * 1024
"""Rate at which all frameworks are read. Decoding takes about a tenth of a processor then."""

LARGE_BYTES = 256 * 1024
"""Answers above this length wait for those of other frameworks."""

MAX_ALL_SHAPES = 1000
MAX_ALL_CONSTRAINTS = 1000
"""Most shapes and constraints of all frameworks, so that a pass takes a bounded time. The largest
answers do not count beyond that."""

BEYOND_LIMITS = "all frameworks want too many different things; the largest answers do not count"

OWN_PORTS = frozenset(
    {
        Port.ENGINE_MASTER,
        Port.ENGINE_AGENT,
        Port.ENGINE_LINK,
        Port.SERVICES,
        Port.AUTOSCALER,
        Port.ZOOKEEPER_CLIENT,
        Port.ZOOKEEPER_PEER,
        Port.ZOOKEEPER_ELECTION,
    }
)


@dataclass(slots=True)
class Track:
    """What is known of one framework's API."""

    framework: Framework
    choice: Choice
    seen_at: float
    next_at: float = 0.0
    failures: int = 0
    adapter: str = ""
    demand: FrameworkDemand | None = None
    error: str = ""
    read_bytes: int = 0
    task: asyncio.Task[None] | None = None


class Allowance:
    """Bytes that may be read: a rate, of which two seconds are saved up."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._left = bytes_per_s
        self._at: float | None = None

    def is_left(self, now: float) -> bool:
        """Whether anything may be read now (s, of any clock that does not jump)."""
        if self._at is not None:
            self._left = min(2 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left > 0

    def take(self, count: int) -> None:
        """Note that this many bytes were read."""
        self._left -= count


@dataclass
class FrameworkReadings:
    """The readings of one term of leadership.

    Args:
        masters: addresses of the masters, whose ports are not asked.
        credentials: of cluster.yaml.
        clock: seconds since the epoch.
        counted: receives the adapter and the result of each reading: `answered` or `failed`.

    Attributes:
        faults: unexpected exceptions of adapters.

    """

    masters: frozenset[str]
    credentials: Credentials
    clock: Callable[[], float] = time.time
    counted: Callable[[str, str], None] = lambda _adapter, _result: None
    faults: list[Fault] = field(default_factory=list)
    _tracks: dict[str, Track] = field(default_factory=dict)
    _restored: Mapping[str, FrameworkDemand] = field(default_factory=dict)
    _allows_loopback: bool = False
    _has_news: bool = False
    _beyond_limits: frozenset[str] = frozenset()
    _allowance: Allowance = field(default_factory=lambda: Allowance(ALL_BYTES_PER_S))
    _sessions: dict[bool, aiohttp.ClientSession] = field(default_factory=dict)

    def see(self, frameworks: Iterable[Framework], spec: ClusterSpec) -> None:
        """Note the connected frameworks. Those that are gone for a while are forgotten."""
        self._allows_loopback = spec.target == "local"
        now = time.monotonic()
        for framework in frameworks:
            self._note(framework, choose(framework, spec.frameworks), now)
        for name, track in list(self._tracks.items()):
            if now - track.seen_at > FORGET_AFTER_S:
                self._forget(name)

    def _note(self, framework: Framework, choice: Choice | None, now: float) -> None:
        track = self._tracks.get(framework.framework_id)
        if not framework.active or choice is None:
            self._forget(framework.framework_id)
        elif track is not None and track.choice == choice:
            track.framework, track.seen_at = framework, now
        elif track is not None or len(self._tracks) < MAX_FRAMEWORKS:
            self._forget(framework.framework_id)
            self._tracks[framework.framework_id] = Track(framework, choice, now)

    def _forget(self, framework_id: str) -> None:
        track = self._tracks.pop(framework_id, None)
        if track is not None and track.task is not None:
            track.task.cancel()

    def restore(self, answers: Mapping[str, FrameworkDemand]) -> None:
        """Begin with the answers that the last leader read, as long as they are not too old."""
        self._restored = answers

    def answers(self) -> dict[str, FrameworkDemand]:
        """The last answers that are not too old, by framework id."""
        self._has_news = False
        read = {
            name: track.demand for name, track in self._tracks.items() if track.demand is not None
        }
        known = {name: item for name, item in self._restored.items() if name in self._tracks}
        stated = fresh({**known, **read}, self.clock())
        kept = within_limits(stated)
        self._beyond_limits = frozenset(stated.keys() - kept.keys())
        return kept

    def failures(self) -> dict[str, Reason]:
        """Why frameworks that have an adapter give no answer, by framework id."""
        return {
            name: Reason.of(
                ReasonCode.ADAPTER_FAILED,
                adapter=track.choice.adapters[0],
                error=BEYOND_LIMITS if name in self._beyond_limits else track.error,
                attempts=track.failures,
            )
            for name, track in self._tracks.items()
            if name in self._beyond_limits
            or (track.error and (track.choice.is_certain or track.adapter))
        }

    def take_faults(self) -> list[Fault]:
        """The unexpected exceptions since the last call."""
        faults, self.faults = self.faults, []
        return faults

    @property
    def has_news(self) -> bool:
        """Whether a framework wants something else than the last of `answers` says."""
        return self._has_news

    async def run(self) -> None:
        """Ask the frameworks until cancelled."""
        async with self._open_sessions():
            try:
                while True:
                    self.start_due()
                    await asyncio.sleep(TICK_S)
            finally:
                await self._stop()

    @contextlib.asynccontextmanager
    async def _open_sessions(self) -> AsyncIterator[None]:
        """The sessions of URLs that are configured, and of those that are not."""
        async with contextlib.AsyncExitStack() as stack:
            for is_configured in (True, False):
                resolver = GuardedResolver(self.guard, is_configured=is_configured)
                session = open_session(
                    resolver=resolver, headers={"Accept-Encoding": "identity"}, decompresses=False
                )
                self._sessions[is_configured] = await stack.enter_async_context(session)
            try:
                yield
            finally:
                self._sessions.clear()

    async def _stop(self) -> None:
        tasks = [track.task for track in self._tracks.values() if track.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start_due(self) -> None:
        """Begin the readings that are due."""
        now = time.monotonic()
        running = sum(1 for track in self._tracks.values() if track.task is not None)
        if not self._allowance.is_left(now):
            return
        due = (t for t in self._tracks.values() if t.task is None and t.next_at <= now)
        ordered = sorted(due, key=lambda track: (track.read_bytes > LARGE_BYTES, track.next_at))
        for track in ordered[: MAX_AT_ONCE - running]:
            name = f"demand of {track.framework.framework_id}"
            track.task = asyncio.create_task(self._read(track), name=name)

    def guard(self) -> Guard:
        """Which addresses may be asked now."""
        return Guard(self.masters, OWN_PORTS, self._allows_loopback)

    async def _read(self, track: Track) -> None:
        """Read one framework. Whatever it does concerns this framework only."""
        began = time.monotonic()
        faults: list[Fault] = []
        track.read_bytes = 0
        try:
            with contained("framework", track.framework.framework_id[:TRACKED_TEXT], faults):
                await self._try_adapters(track)
            if faults:
                self._failed(track, faults[0].text)
                self.faults += faults
        finally:
            took_s = time.monotonic() - began
            self._allowance.take(track.read_bytes)
            wait_s = _wait_s(track) if track.failures else max(EVERY_S, PATIENCE * took_s)
            wait_s = max(wait_s, track.read_bytes / BYTES_PER_S)
            track.next_at, track.task = time.monotonic() + wait_s, None

    async def _try_adapters(self, track: Track) -> None:
        """Read with the adapter that answered before, else with the first that answers."""
        choice, error = track.choice, ""
        for adapter in (track.adapter,) if track.adapter else choice.adapters:
            tasks = track.framework.tasks
            try:
                async with asyncio.timeout(choice.timeout_s):
                    reading = await ADAPTERS[adapter](
                        await self._source(track), choice.subject(track.framework)
                    )
            except (AdapterError, TimeoutError) as failure:
                error = error or str(failure) or f"no answer within {choice.timeout_s:g} s"
            else:
                self._answered(track, adapter, reading, tasks)
                return
        self._failed(track, error)

    async def _source(self, track: Track) -> HttpSource:
        choice, entry = track.choice, track.choice.entry
        header = ""
        if entry is not None and choice.has_credential:
            header = await self.credentials.authorization(entry)
        session = self._sessions[choice.is_configured]

        def count(length: int) -> None:
            track.read_bytes += length

        return HttpSource(session, self.guard(), choice.url, choice.is_configured, header, count)

    def _answered(self, track: Track, adapter: str, reading: Reading, tasks: int) -> None:
        self.counted(adapter, "answered")
        track.adapter, track.failures, track.error = adapter, 0, ""
        demand = FrameworkDemand(
            framework_id=track.framework.framework_id,
            state="wants_more" if reading.wanted else "satisfied",
            at=self.clock(),
            adapter=adapter,
            wanted=reading.wanted,
            evidence=reading.evidence,
            tasks=tasks if reading.tasks is None else reading.tasks,
        )
        before = track.demand
        if before is None or before.wanted != demand.wanted:
            self._has_news = True
        if before is None or not _is_same(before, demand):
            track.demand = demand

    def _failed(self, track: Track, error: str) -> None:
        self.counted(track.adapter or track.choice.adapters[0], "failed")
        track.failures += 1
        track.error = printable(error, TRACKED_TEXT)


def _is_same(before: FrameworkDemand, after: FrameworkDemand) -> bool:
    """Whether an answer wants the same, and the one before it is not old."""
    is_recent = 0 <= after.at - before.at < STORED_EVERY_S
    return is_recent and replace(after, at=before.at, evidence=before.evidence) == before


def _wait_s(track: Track) -> float:
    """Time to the next attempt after a failure (s)."""
    is_known = track.choice.is_certain or bool(track.adapter)
    longest = MAX_BACKOFF_S if is_known else MAX_UNKNOWN_BACKOFF_S
    doublings = min(max(0, track.failures - QUICK_ATTEMPTS), 10)
    return min(longest, EVERY_S * 2.0**doublings)


def fresh(answers: Mapping[str, FrameworkDemand], now: float) -> dict[str, FrameworkDemand]:
    """The answers of the planner state that are not too old."""
    return {name: demand for name, demand in answers.items() if now - demand.at <= MAX_AGE_S}


def within_limits(answers: Mapping[str, FrameworkDemand]) -> dict[str, FrameworkDemand]:
    """The answers that count: the smallest first, as long as all together are not too many."""
    shapes = constraints = 0
    kept: dict[str, FrameworkDemand] = {}
    for name, demand in sorted(answers.items(), key=lambda item: (_size(item[1]), item[0])):
        shapes += len(demand.wanted)
        constraints += _constraint_count(demand)
        if shapes > MAX_ALL_SHAPES or constraints > MAX_ALL_CONSTRAINTS:
            break
        kept[name] = demand
    return kept


def _constraint_count(demand: FrameworkDemand) -> int:
    return sum(len(shape.constraints) for shape in demand.wanted)


def _size(demand: FrameworkDemand) -> int:
    return len(demand.wanted) + _constraint_count(demand)
