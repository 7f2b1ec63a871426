"""Status updates until acknowledged: per task one is outstanding, the next follows its acknowledgement.

An outstanding update is repeated after 10 s, doubling to 10 min, and at once on a new connection. The clock and the
connection belong to the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mesaform.mesos.messages import TERMINAL_STATES, TaskStatus

RETRY_MIN_S = 10.0
RETRY_MAX_S = 600.0

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class _Stream:
    pending: deque[TaskStatus] = field(default_factory=deque)
    seen: set[bytes] = field(default_factory=set)
    resend_at: float = 0.0
    interval_s: float = RETRY_MIN_S


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What an acknowledgement did.

    `accepted` is false for one that fits nothing outstanding (late, or repeated); `ended` says that the task's terminal
    update is acknowledged and its record may go.
    """

    accepted: bool
    ended: bool = False


class UpdateStreams(Generic[Key]):
    """All streams of one agent, by task."""

    def __init__(self) -> None:
        self._streams: dict[Key, _Stream] = {}
        self._connected = False

    def restore(self, key: Key, pending: Iterable[TaskStatus]) -> None:
        """A stream as it was checkpointed; nothing is sent before the next connection."""
        waiting = deque(pending)
        self._streams[key] = _Stream(waiting, {status.uuid for status in waiting if status.uuid})

    def pending(self, key: Key) -> list[TaskStatus]:
        """The task's updates that are not acknowledged yet, the outstanding one first."""
        stream = self._streams.get(key)
        return list(stream.pending) if stream else []

    def add(self, key: Key, status: TaskStatus, now: float) -> list[TaskStatus]:
        """Take an update in; what is to be sent now. One with a uuid that was seen before is ignored."""
        if status.uuid is None:
            raise ValueError(f"an update without a uuid cannot be acknowledged: {status}")
        stream = self._streams.setdefault(key, _Stream())
        if status.uuid in stream.seen:
            return []
        stream.seen.add(status.uuid)
        stream.pending.append(status)
        return self._begin(stream, now) if len(stream.pending) == 1 else []

    def acknowledge(
        self, key: Key, uuid: bytes, now: float
    ) -> tuple[Acknowledged, list[TaskStatus]]:
        """Take an acknowledgement in: what it did, and what is to be sent now."""
        stream = self._streams.get(key)
        if stream is None or not stream.pending or stream.pending[0].uuid != uuid:
            return Acknowledged(accepted=False), []
        done = stream.pending.popleft()
        if done.state in TERMINAL_STATES:
            del self._streams[key]
            return Acknowledged(accepted=True, ended=True), []
        return Acknowledged(accepted=True), self._begin(stream, now)

    def connected(self, now: float) -> list[tuple[Key, TaskStatus]]:
        """A new connection: every outstanding update is sent again at once."""
        self._connected = True
        return [
            (key, status)
            for key, stream in self._streams.items()
            for status in self._begin(stream, now)
        ]

    def disconnected(self) -> None:
        """Nothing is sent until the next connection."""
        self._connected = False

    def due(self, now: float) -> list[tuple[Key, TaskStatus]]:
        """Outstanding updates whose time to be repeated has come."""
        if not self._connected:
            return []
        resent = []
        for key, stream in self._streams.items():
            if stream.pending and stream.resend_at <= now:
                stream.interval_s = min(stream.interval_s * 2, RETRY_MAX_S)
                stream.resend_at = now + stream.interval_s
                resent.append((key, stream.pending[0]))
        return resent

    def next_due(self) -> float | None:
        """When `due` is worth asking again; None while there is nothing to repeat."""
        if not self._connected:
            return None
        return min(
            (stream.resend_at for stream in self._streams.values() if stream.pending), default=None
        )

    def drop(self, key: Key) -> None:
        """Forget a stream that nobody will acknowledge."""
        self._streams.pop(key, None)

    def _begin(self, stream: _Stream, now: float) -> list[TaskStatus]:
        if not stream.pending or not self._connected:
            return []
        stream.interval_s = RETRY_MIN_S
        stream.resend_at = now + RETRY_MIN_S
        return [stream.pending[0]]
