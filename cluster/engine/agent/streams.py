"""Streams of status updates: each task's updates in order, until they are acknowledged.

One update of a task is outstanding; the next follows its acknowledgement. An outstanding update is
repeated after 10 s, doubling to 10 min, and at once on a new connection, as by Mesos' task status
update manager. Pure: the caller has the clock and the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mesaform.common.backoff import Backoff, Delay
from mesaform.mesos.messages import TERMINAL_STATES, TaskStatus

RETRY = Backoff(first_s=10.0, cap_s=600.0)
"""Mesos' STATUS_UPDATE_RETRY_INTERVAL_MIN and _MAX (slave/constants.hpp)."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class _Stream:
    pending: deque[TaskStatus] = field(default_factory=deque)
    seen: set[bytes] = field(default_factory=set)
    delay: Delay = field(default_factory=Delay)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The outcome of an acknowledgement.

    `is_accepted` is false when it fits no outstanding update (it was late, or repeated).
    `has_ended`: the task's terminal update is acknowledged, so its record can be removed.
    """

    is_accepted: bool
    has_ended: bool = False


class UpdateStreams(Generic[Key]):
    """The streams of one agent, by task."""

    def __init__(self) -> None:
        self._streams: dict[Key, _Stream] = {}
        self._is_connected = False

    def restore(self, key: Key, pending: Iterable[TaskStatus]) -> None:
        """Restore a checkpointed stream. Nothing is sent before the next connection."""
        waiting = deque(pending)
        self._streams[key] = _Stream(waiting, {status.uuid for status in waiting if status.uuid})

    def pending(self, key: Key) -> list[TaskStatus]:
        """The task's updates that are not acknowledged, the outstanding one first."""
        stream = self._streams.get(key)
        return list(stream.pending) if stream else []

    def add(self, key: Key, status: TaskStatus, now: float) -> list[TaskStatus]:
        """Add an update, and return what must be sent now. A known uuid is ignored.

        Raises:
            ValueError: the update has no uuid.

        """
        if status.uuid is None:
            raise ValueError(f"an update of {status.state} without a uuid cannot be acknowledged")
        stream = self._streams.setdefault(key, _Stream())
        if status.uuid in stream.seen:
            return []
        stream.seen.add(status.uuid)
        stream.pending.append(status)
        return self._begin(stream, now) if len(stream.pending) == 1 else []

    def acknowledge(
        self, key: Key, uuid: bytes, now: float
    ) -> tuple[Acknowledged, list[TaskStatus]]:
        """The outcome of an acknowledgement, and what must be sent now."""
        stream = self._streams.get(key)
        if stream is None or not stream.pending or stream.pending[0].uuid != uuid:
            return Acknowledged(is_accepted=False), []
        acknowledged = stream.pending.popleft()
        if acknowledged.state in TERMINAL_STATES:
            del self._streams[key]
            return Acknowledged(is_accepted=True, has_ended=True), []
        return Acknowledged(is_accepted=True), self._begin(stream, now)

    def connected(self, now: float) -> list[tuple[Key, TaskStatus]]:
        """Begin a connection, and return every outstanding update to be sent again."""
        self._is_connected = True
        return [
            (key, status)
            for key, stream in self._streams.items()
            for status in self._begin(stream, now)
        ]

    def disconnected(self) -> None:
        """End the connection. Nothing is sent until the next one."""
        self._is_connected = False

    def due(self, now: float) -> list[tuple[Key, TaskStatus]]:
        """The outstanding updates that must be repeated now."""
        if not self._is_connected:
            return []
        repeated = []
        for key, stream in self._streams.items():
            if stream.pending and stream.delay.until <= now:
                stream.delay = stream.delay.after_failure(RETRY, now)
                repeated.append((key, stream.pending[0]))
        return repeated

    def next_due(self) -> float | None:
        """The time at which `due` returns something; None while there is nothing to repeat."""
        if not self._is_connected:
            return None
        return min(
            (stream.delay.until for stream in self._streams.values() if stream.pending),
            default=None,
        )

    def drop(self, key: Key) -> None:
        """Remove a stream whose updates are not acknowledged."""
        self._streams.pop(key, None)

    def _begin(self, stream: _Stream, now: float) -> list[TaskStatus]:
        if not stream.pending or not self._is_connected:
            return []
        stream.delay = Delay().after_failure(RETRY, now)
        return [stream.pending[0]]
