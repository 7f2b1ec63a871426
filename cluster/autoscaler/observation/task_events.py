"""Tasks by the leading master's event stream, between complete readings of GET_TASKS.

Thirty thousand tasks are 40 MiB of JSON. A complete list is therefore read every `FULL_EVERY_S`,
and the events TASK_ADDED and TASK_UPDATED (SUBSCRIBE of the operator API) change it meanwhile. The
stream is open before the list is read, and what an event says of a task holds until a later event.
So the events that arrive after a reading began may be applied to its list in their order, those
that the list has already included. What else may change tasks (agents and frameworks that come or
go), and an event that cannot be read or applied, make the next pass read the list.

Depends on the operator API client, RecordIO and the parser of tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import aiohttp
import msgspec
import structlog

from mesaform.autoscaler.model.cluster_tasks import Seen, Tasks
from mesaform.autoscaler.observation.mesos_task_parser import TaskReader
from mesaform.common.errors import MesaformError
from mesaform.mesos.messages import TERMINAL_STATES
from mesaform.mesos.operator import OperatorClient
from mesaform.mesos.recordio import Decoder, FramingError

FULL_EVERY_S = 30.0
"""Seconds after which the complete list is read again, whatever the stream says."""

AGAIN_AFTER_S = 5.0
"""Pause after a stream that ended (s)."""

MAX_RECORD_BYTES = 4 * 1024 * 1024
"""Longer records are skipped: SUBSCRIBED has the whole state, which GET_TASKS gives as well."""

MOST_PENDING = 20_000
"""Events between two passes above which the list is read instead."""

HARMLESS = frozenset({"HEARTBEAT", "FRAMEWORK_ADDED", "FRAMEWORK_UPDATED"})
TASK_EVENTS = frozenset({"TASK_ADDED", "TASK_UPDATED"})
KNOWN_STATES = TERMINAL_STATES | {"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"}

log = structlog.get_logger()


class _Id(msgspec.Struct, frozen=True, gc=False):
    value: str = ""


class _Status(msgspec.Struct, frozen=True, gc=False):
    task_id: _Id
    timestamp: float = 0.0


class _Added(msgspec.Struct, frozen=True, gc=False):
    task: msgspec.Raw


class _Updated(msgspec.Struct, frozen=True, gc=False):
    framework_id: _Id
    status: _Status
    state: str


class _Event(msgspec.Struct, frozen=True, gc=False):
    type: str
    task_added: _Added | None = None
    task_updated: _Updated | None = None


_EVENT = msgspec.json.Decoder(_Event)
Key = tuple[str, str]


@dataclass(slots=True)
class TaskEvents:
    """The list of tasks of the last complete reading, with the events since then.

    `run` follows the stream until it is cancelled. `clock` is seconds with any origin.
    """

    operator: OperatorClient
    clock: Callable[[], float]
    pause_s: float = AGAIN_AFTER_S
    is_connected: bool = False
    _events: list[_Event] = field(default_factory=list)
    _running: dict[Key, Seen] = field(default_factory=dict)
    _over: dict[Key, Seen] = field(default_factory=dict)
    _tasks: Tasks | None = None
    _read_at: float = field(default=float("-inf"))
    _streams: int = 0
    _stream_of_list: int = -1

    async def run(self) -> None:
        """Follow the stream of the leading master, and of the next one when it ends."""
        while True:
            try:
                await self.operator.subscribe(self._begin)
            except (MesaformError, FramingError, aiohttp.ClientError, TimeoutError) as error:
                log.info(
                    "the master's event stream ended", error=str(error) or type(error).__name__
                )
            finally:
                self.is_connected = False
                self._events.clear()
            await asyncio.sleep(self.pause_s)

    @property
    def pending(self) -> int:
        """The events that the next pass applies."""
        return len(self._events)

    def begin_reading(self) -> int:
        """The stream that is open while a complete reading begins; -1 without one.

        The list will include all events that have arrived.
        """
        self._events.clear()
        self._tasks = None
        return self._streams if self.is_connected else -1

    def finish_reading(self, stream: int, tasks: Tasks) -> None:
        """Take over a complete reading that began while a stream was open."""
        self._stream_of_list, self._read_at, self._tasks = stream, self.clock(), tasks
        self._running = {_key(task): task for task in tasks.running}
        self._over = {_key(task): task for task in tasks.over}

    def tasks(self, reader: TaskReader) -> Tasks | None:
        """The tasks of this moment; None when the complete list has to be read."""
        known = self._tasks
        if known is None or not self._is_current() or known.unreadable:
            return None
        events, self._events = self._events, []
        if not events:
            return known
        for event in events:
            if not self._apply(event, reader):
                self._tasks = None
                return None
        self._tasks = Tasks(tuple(self._running.values()), tuple(self._over.values()))
        return self._tasks

    def _is_current(self) -> bool:
        is_same_stream = self.is_connected and self._stream_of_list == self._streams
        return is_same_stream and self.clock() - self._read_at < FULL_EVERY_S

    def _begin(self) -> Callable[[bytes], None]:
        """Take the records of a new stream."""
        decoder = Decoder(skip_above=MAX_RECORD_BYTES)
        self._streams += 1
        self._events.clear()
        is_subscribed = False

        def take(chunk: bytes) -> None:
            nonlocal is_subscribed
            for record in decoder.feed(chunk):
                # The first record is SUBSCRIBED; all that happens after it is in the stream.
                if is_subscribed:
                    self._take(record)
                is_subscribed = self.is_connected = True

        return take

    def _take(self, record: bytes) -> None:
        try:
            event = _EVENT.decode(record)
        except msgspec.MsgspecError:
            event = _Event("UNREADABLE")
        if event.type in HARMLESS:
            return
        if event.type not in TASK_EVENTS or len(self._events) >= MOST_PENDING:
            self._tasks = None
            self._events.clear()
            return
        self._events.append(event)

    def _apply(self, event: _Event, reader: TaskReader) -> bool:
        """Apply an event; whether that is possible."""
        if event.task_added is not None:
            seen = reader.task_of(event.task_added.task)
            if seen is None or _key(seen) in self._over:
                return False  # a later task may have the id of one that ended
            self._running.setdefault(_key(seen), seen)
            return True
        updated = event.task_updated
        return updated is not None and self._update(updated)

    def _update(self, updated: _Updated) -> bool:
        key = (updated.framework_id.value, updated.status.task_id.value)
        if updated.state not in KNOWN_STATES:
            return False
        if key in self._over:
            return True
        task = self._running.get(key)
        if task is None:
            return updated.state in TERMINAL_STATES  # ended and completed before the list was read
        at = updated.status.timestamp
        task = task if task.since else replace(task, since=at)
        if updated.state not in TERMINAL_STATES:
            self._running[key] = task
            return True
        del self._running[key]
        self._over[key] = replace(task, ended=max(at, task.since))
        return True


def _key(task: Seen) -> Key:
    return (task.framework_id, task.task_id)
