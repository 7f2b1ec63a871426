"""Incremental parser of GET_TASKS, the largest answer of the operator API. Pure.

Tens of thousands of tasks are tens of MiB of JSON. `Splitter` cuts the answer into whole tasks as
it arrives, so the answer is never in memory as a whole. `TaskReader` decodes the needed fields of
each task. Of a task decoded in an earlier pass it decodes the ids and the state only. Depends on
`autoscaler.model` and `mesos.messages`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from mesaform.autoscaler.model.cluster_tasks import Seen, Tasks
from mesaform.autoscaler.model.shape import NOTHING, Shape, shape_of
from mesaform.common.faults import Fault, contained
from mesaform.mesos.messages import TERMINAL_STATES, Resource, from_wire
from mesaform.placement.constraints import CONFIG_LABEL
from mesaform.placement.task_labels import read_labels
from mesaform.topology.user_data import PROTECT

INSTANCE_MARK = ".instance-"
RUNS_FOR = "mesaform/runs-for-s"
"""Label with the expected duration of a task in seconds.

An agent whose tasks end soon is not emptied.
"""

MARK = b'tasks":['
SECTION = re.compile(rb'"((?:[a-z]+_)?tasks)":\[$')
"""Start of a list of tasks.

Quotes inside a string are escaped, so the text of a string never matches.
"""

LONGEST_MARK = 40
DECODE_AT_BYTES = 1 << 18


class _Id(msgspec.Struct, frozen=True, gc=False):
    value: str = ""


class _Status(msgspec.Struct, frozen=True, gc=False):
    timestamp: float | None = None


class _Label(msgspec.Struct, frozen=True, gc=False):
    key: str = ""
    value: str = ""


class _Labels(msgspec.Struct, frozen=True, gc=False):
    labels: list[_Label] = []


class _Item(msgspec.Struct, frozen=True, gc=False):
    task_id: _Id = _Id()
    framework_id: _Id = _Id()
    agent_id: _Id = _Id()
    state: str = ""
    resources: msgspec.Raw = msgspec.Raw(b"[]")
    statuses: msgspec.Raw = msgspec.Raw(b"[]")
    labels: msgspec.Raw = msgspec.Raw(b"{}")


class _Answer(msgspec.Struct, frozen=True, gc=False):
    get_tasks: dict[str, msgspec.Raw] = {}


_ANSWER = msgspec.json.Decoder(_Answer)
_ITEMS = msgspec.json.Decoder(list[_Item])
_RESOURCES = msgspec.json.Decoder(list[Resource])
_STATUSES = msgspec.json.Decoder(list[_Status])
_LABELS = msgspec.json.Decoder(_Labels)
_WANTED = frozenset({"tasks", "completed_tasks"})


class TaskReader:
    """Reader of GET_TASKS that remembers tasks between passes.

    A reading that is not completed leaves the memory unchanged.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._known: dict[str, Seen] = {}
        self._known_over: dict[str, Seen] = {}

    def begin(self) -> Reading:
        """Start to read an answer."""
        self.faults = []
        return Reading(self._known, self._known_over, self._finished, self.faults)

    def read(self, body: bytes) -> Tasks:
        """Read a complete answer."""
        reading = self.begin()
        reading.feed(body)
        return reading.end()

    def task_of(self, raw: msgspec.Raw) -> Seen | None:
        """Convert one task of an event; None if it cannot be read, or has ended."""
        reading = self.begin()
        with contained("task", "of an event", self.faults):
            return reading.running(msgspec.json.decode(raw, type=_Item))
        return None

    def _finished(self, running: dict[str, Seen], over: dict[str, Seen]) -> None:
        self._known, self._known_over = running, over


class Reading:
    """State of an answer that is being received."""

    def __init__(
        self,
        known: dict[str, Seen],
        over: dict[str, Seen],
        finished: Callable[[dict[str, Seen], dict[str, Seen]], None],
        faults: list[Fault],
    ) -> None:
        self._known, self._known_over, self._finished = known, over, finished
        self._faults = faults
        self._splitter = Splitter(faults)
        self._running: list[Seen] = []
        self._over: list[Seen] = []
        self._names: dict[str, str] = {}
        self._shapes: dict[Shape, Shape] = {}

    def feed(self, data: bytes) -> None:
        """Take the next part of the body.

        Raises:
            msgspec.DecodeError: it is not JSON, or not of tasks.

        """
        for section, items in self._splitter.feed(data):
            self._take(section, items)

    def end(self) -> Tasks:
        """Finish after the last part of the body."""
        for section, items in self._splitter.end():
            self._take(section, items)
        self._finished(
            {seen.task_id: seen for seen in self._running},
            {seen.task_id: seen for seen in self._over},
        )
        return Tasks(tuple(self._running), tuple(self._over), self._splitter.unreadable)

    def running(self, item: _Item) -> Seen | None:
        """Convert one task; None if it has ended."""
        return None if item.state in TERMINAL_STATES else self._seen(item, self._known, over=False)

    def _take(self, section: str, items: list[_Item]) -> None:
        if section not in _WANTED:
            return
        for item in items:
            if section == "tasks" and item.state not in TERMINAL_STATES:
                self._running.append(self._seen(item, self._known, over=False))
            else:
                self._over.append(self._seen(item, self._known_over, over=True))

    def _seen(self, item: _Item, known: dict[str, Seen], *, over: bool) -> Seen:
        """Convert a task, or return what is known of it.

        Only the state of a task changes. A task that had not begun is decoded again.
        """
        before = known.get(item.task_id.value)
        if before is not None and _is_current(before, item):
            return before
        with contained("task", item.task_id.value, self._faults):
            return self._decoded(item, over=over)
        # The task counts on its agent, which is therefore not idle.
        app = app_of(item.task_id.value)
        return Seen(item.task_id.value, item.agent_id.value, item.framework_id.value, app, NOTHING)

    def _decoded(self, item: _Item, *, over: bool) -> Seen:
        labels = _decode_labels(item.labels)
        resources = _RESOURCES.decode(item.resources)
        timestamps_s = _decode_timestamps(item.statuses)
        app = app_of(item.task_id.value)
        shape = shape_of(from_wire(resources)) if resources else NOTHING
        return Seen(
            task_id=item.task_id.value,
            agent_id=self._shared(item.agent_id.value),
            framework_id=self._shared(item.framework_id.value),
            app=None if app is None else self._shared(app),
            shape=self._shapes.setdefault(shape, shape),
            role=self._shared(_role(resources)),
            since=min(timestamps_s, default=0.0),
            ended=max(timestamps_s, default=0.0) if over else 0.0,
            protected=labels.get(PROTECT) == "true",
            runs_for_s=seconds(labels.get(RUNS_FOR, "")),
            config=self._shared(labels.get(CONFIG_LABEL, "")),
            constraints=read_labels(labels).constraints if app is None else (),
        )

    def _shared(self, text: str) -> str:
        """Return the same string object for equal strings, to save memory."""
        return self._names.setdefault(text, text)


def _is_current(before: Seen, item: _Item) -> bool:
    """Whether what was decoded earlier describes the task of `item` and had its start time."""
    ids = (item.agent_id.value, item.framework_id.value)
    return bool(before.since) and (before.agent_id, before.framework_id) == ids


def _decode_labels(raw: msgspec.Raw) -> dict[str, str]:
    if raw == b"{}":
        return {}
    return {label.key: label.value for label in _LABELS.decode(raw).labels}


def _decode_timestamps(raw: msgspec.Raw) -> list[float]:
    """Return the Unix times of a task's statuses."""
    return [status.timestamp for status in _STATUSES.decode(raw) if status.timestamp is not None]


def _role(resources: Iterable[Resource]) -> str:
    """Return the role of the last resource that is allocated to a role; empty when none is."""
    roles = [
        resource.allocation_info.role
        for resource in resources
        if resource.allocation_info is not None
    ]
    return (roles[-1] or "") if roles else ""


class Splitter:
    """Splitter of GET_TASKS into lists of whole tasks while the answer arrives.

    The answer is `{"type":"GET_TASKS","get_tasks":{"tasks":[…],"completed_tasks":[…]}}`. The
    splitter tries a cut between two objects where the braces balance. The cut is valid when the
    part before it decodes, because strings may contain any text. Without a valid cut the splitter
    waits for more data. Braces in strings cost memory and lose no task.
    """

    def __init__(self, faults: list[Fault] | None = None) -> None:
        self.unreadable = 0
        self._faults = [] if faults is None else faults
        self._buffer = bytearray()
        self._section = ""
        self._enough = DECODE_AT_BYTES

    @property
    def buffered_bytes(self) -> int:
        """The size of the part that is not decoded yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[tuple[str, list[_Item]]]:
        """Yield the tasks that are complete after this part, with the name of their section."""
        self._buffer += data
        if len(self._buffer) < self._enough:
            return
        yield from self._whole_sections()
        if self._section:
            cut, items = self._cut()
            if items:
                del self._buffer[: cut + 1]
                yield self._section, items
        self._enough = len(self._buffer) + DECODE_AT_BYTES

    def end(self) -> Iterator[tuple[str, list[_Item]]]:
        """Yield the remaining tasks after the last part."""
        yield from self._whole_sections()
        if self._section:
            yield self._section, self._all(_listed(self._buffer[: self._buffer.rfind(b"]")]))
        else:  # The answer has no list, or its JSON has spaces; decode it as a whole.
            for name, items in _ANSWER.decode(self._buffer).get_tasks.items():
                if name in _WANTED:
                    yield name, self._all(items)

    def _all(self, items: bytes | msgspec.Raw) -> list[_Item]:
        """Decode a list of tasks; one that cannot be decoded is left out, counted and a fault."""
        try:
            return _ITEMS.decode(items)
        except msgspec.ValidationError:
            tasks = []
            for raw in msgspec.json.decode(items, type=list[msgspec.Raw]):
                with contained("task", bytes(raw)[:100].decode("utf-8", "replace"), self._faults):
                    tasks.append(msgspec.json.decode(raw, type=_Item))
                    continue
                self.unreadable += 1
            return tasks

    def _whole_sections(self) -> Iterator[tuple[str, list[_Item]]]:
        """Yield the sections that are followed by another section."""
        at = 0
        while (at := self._buffer.find(MARK, at)) >= 0:
            at += len(MARK)
            name = SECTION.search(self._buffer, max(0, at - LONGEST_MARK), at)
            if name is None:
                continue
            # Copies, because the deletion changes the buffer under the match.
            before, begun = self._buffer[: name.start()], name.group(1).decode()
            del self._buffer[:at]
            ended, self._section, at = self._section, begun, 0
            if ended:
                yield ended, self._all(_listed(before[: before.rfind(b"]")]))

    def _cut(self) -> tuple[int, list[_Item]]:
        """Return the last offset where whole objects end and others follow, and these objects.

        The end of the buffer is excluded: it may be part of the next section's name.
        """
        buffer = self._buffer
        at = buffer.rfind(b"},{", 0, max(0, len(buffer) - LONGEST_MARK)) + 1
        depth = buffer.count(b"{", 0, at) - buffer.count(b"}", 0, at)
        while at > 0:
            if depth == 0 and (items := _whole(buffer[:at])):
                return at, items
            before = buffer.rfind(b"},{", 0, at - 1) + 1
            depth -= buffer.count(b"{", before, at) - buffer.count(b"}", before, at)
            at = before
        return 0, []


def app_of(task_id: str) -> str | None:
    """Return the services app of a task; None for tasks of other frameworks.

    `web_api.instance-….…` is a task of `/web/api`.
    """
    name, mark, _ = task_id.partition(INSTANCE_MARK)
    return "/" + name.replace("_", "/") if mark else None


def seconds(text: str) -> float:
    """Parse the seconds of a label; 0 when it is no number or negative."""
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def from_json(answer: Any) -> Tasks:
    """The inner part of an answer that is in hand already."""
    return TaskReader().read(msgspec.json.encode({"type": "GET_TASKS", "get_tasks": answer}))


def by_agent(tasks: Iterable[Seen]) -> dict[str, list[Seen]]:
    """Group tasks by agent id."""
    by_agent_id: dict[str, list[Seen]] = {}
    for task in tasks:
        by_agent_id.setdefault(task.agent_id, []).append(task)
    return by_agent_id


def _listed(items: bytes | bytearray) -> bytes:
    return b"[" + items + b"]"


def _whole(items: bytearray) -> list[_Item]:
    """Decode tasks; return none when the text is not a list of whole tasks."""
    try:
        return _ITEMS.decode(_listed(items))
    except msgspec.DecodeError:
        return []
