"""GET_TASKS, which is by far the largest answer, read piece by piece and remembered from pass to pass. Pure.

Tens of thousands of tasks are tens of MiB of JSON. `Splitter` cuts the answer into whole tasks as it arrives, so that it is never all in
memory; `TaskReader` decodes only what is needed of each, and of a task that it has read before nothing but its ids and state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from mesaform.autoscaler.model.cluster_tasks import Seen, Tasks
from mesaform.autoscaler.model.shape import NOTHING, Shape, shape_of
from mesaform.mesos.messages import TERMINAL_STATES, Resource, from_wire
from mesaform.topology.user_data import PROTECT

INSTANCE_MARK = ".instance-"
RUNS_FOR = "mesaform/runs-for-s"
"""A task with this label will be done that many seconds after it began: an agent soon done is not emptied."""

MARK = b'tasks":['
SECTION = re.compile(rb'"((?:[a-z]+_)?tasks)":\[$')
"""Where a list of tasks begins. Inside a string the quotes would be escaped, so this is never one's text."""

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
    """Reads GET_TASKS again and again. A reading that breaks off leaves what was known as it was."""

    def __init__(self) -> None:
        self._known: dict[str, Seen] = {}
        self._known_over: dict[str, Seen] = {}

    def begin(self) -> Reading:
        """A new reading of the whole answer."""
        return Reading(self._known, self._known_over, self._finished)

    def read(self, body: bytes) -> Tasks:
        """A whole answer at once."""
        reading = self.begin()
        reading.feed(body)
        return reading.end()

    def _finished(self, running: dict[str, Seen], over: dict[str, Seen]) -> None:
        self._known, self._known_over = running, over


class Reading:
    """One answer on its way in."""

    def __init__(
        self,
        known: dict[str, Seen],
        over: dict[str, Seen],
        finished: Callable[[dict[str, Seen], dict[str, Seen]], None],
    ) -> None:
        self._known, self._known_over, self._finished = known, over, finished
        self._splitter = Splitter()
        self._running: list[Seen] = []
        self._over: list[Seen] = []
        self._names: dict[str, str] = {}
        self._shapes: dict[Shape, Shape] = {}

    def feed(self, data: bytes) -> None:
        """The next piece of the body.

        Raises:
            msgspec.DecodeError: it is not JSON, or not of tasks.

        """
        for section, items in self._splitter.feed(data):
            self._take(section, items)

    def end(self) -> Tasks:
        """The body is complete."""
        for section, items in self._splitter.end():
            self._take(section, items)
        self._finished(
            {seen.task_id: seen for seen in self._running},
            {seen.task_id: seen for seen in self._over},
        )
        return Tasks(tuple(self._running), tuple(self._over))

    def _take(self, section: str, items: list[_Item]) -> None:
        if section not in _WANTED:
            return
        for item in items:
            if section == "tasks" and item.state not in TERMINAL_STATES:
                self._running.append(self._seen(item, self._known, over=False))
            else:
                self._over.append(self._seen(item, self._known_over, over=True))

    def _seen(self, item: _Item, known: dict[str, Seen], *, over: bool) -> Seen:
        """A task never changes but in its state; one that had not begun is read again."""
        before = known.get(item.task_id.value)
        if (
            before is not None
            and before.since
            and (before.agent_id, before.framework_id)
            == (item.agent_id.value, item.framework_id.value)
        ):
            return before
        share = self._names.setdefault  # one string for all that name the same agent
        labels = (
            {label.key: label.value for label in _LABELS.decode(item.labels).labels}
            if item.labels != b"{}"
            else {}
        )
        resources = _RESOURCES.decode(item.resources)
        moments = [
            status.timestamp
            for status in _STATUSES.decode(item.statuses)
            if status.timestamp is not None
        ]
        roles = [
            resource.allocation_info.role
            for resource in resources
            if resource.allocation_info is not None
        ]
        app = app_of(item.task_id.value)
        shape = shape_of(from_wire(resources)) if resources else NOTHING
        return Seen(
            task_id=item.task_id.value,
            agent_id=share(item.agent_id.value, item.agent_id.value),
            framework_id=share(item.framework_id.value, item.framework_id.value),
            app=None if app is None else share(app, app),
            shape=self._shapes.setdefault(shape, shape),
            role=share(roles[-1], roles[-1]) if roles and roles[-1] else "",
            since=min(moments, default=0.0),
            ended=max(moments, default=0.0) if over else 0.0,
            protected=labels.get(PROTECT) == "true",
            runs_for_s=seconds(labels.get(RUNS_FOR, "")),
        )


class Splitter:
    """Cuts `{"type":"GET_TASKS","get_tasks":{"tasks":[…],"completed_tasks":[…]}}` into lists of whole tasks, as it arrives.

    A cut is tried between two objects where braces balance, and counts only if what is before it decodes: strings may hold any text. Where
    none is found more is waited for, so a text full of braces costs memory and never a task.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._section = ""
        self._enough = DECODE_AT_BYTES

    def feed(self, data: bytes) -> Iterator[tuple[str, list[_Item]]]:
        """The tasks that are complete with this piece, each list with its section's name."""
        self._held += data
        if len(self._held) < self._enough:
            return
        yield from self._whole_sections()
        if self._section:
            cut, items = self._cut()
            if items:
                del self._held[: cut + 1]
                yield self._section, items
        self._enough = len(self._held) + DECODE_AT_BYTES

    def end(self) -> Iterator[tuple[str, list[_Item]]]:
        """What is left when the body is complete."""
        yield from self._whole_sections()
        if self._section:
            yield self._section, _ITEMS.decode(_listed(self._held[: self._held.rfind(b"]")]))
        else:  # no list was recognised: none is there, or the JSON is spaced, and then it is read as a whole
            for name, items in _ANSWER.decode(self._held).get_tasks.items():
                if name in _WANTED:
                    yield name, _ITEMS.decode(items)

    def _whole_sections(self) -> Iterator[tuple[str, list[_Item]]]:
        """Sections that end because another begins."""
        at = 0
        while (at := self._held.find(MARK, at)) >= 0:
            at += len(MARK)
            name = SECTION.search(self._held, max(0, at - LONGEST_MARK), at)
            if name is None:
                continue
            before, begun = (
                self._held[: name.start()],
                name.group(1).decode(),
            )  # read before the buffer changes under the match
            del self._held[:at]
            ended, self._section, at = self._section, begun, 0
            if ended:
                yield ended, _ITEMS.decode(_listed(before[: before.rfind(b"]")]))

    def _cut(self) -> tuple[int, list[_Item]]:
        """The last place where whole objects end and more follow, and these objects. The next section's name may just be arriving."""
        held = self._held
        at = held.rfind(b"},{", 0, max(0, len(held) - LONGEST_MARK)) + 1
        depth = held.count(b"{", 0, at) - held.count(b"}", 0, at)
        while at > 0:
            if depth == 0 and (items := _whole(held[:at])):
                return at, items
            before = held.rfind(b"},{", 0, at - 1) + 1
            depth -= held.count(b"{", before, at) - held.count(b"}", before, at)
            at = before
        return 0, []


def app_of(task_id: str) -> str | None:
    """The services app of a task: `web_api.instance-….…` is of `/web/api`; None for tasks of other frameworks."""
    name, mark, _ = task_id.partition(INSTANCE_MARK)
    return "/" + name.replace("_", "/") if mark else None


def seconds(text: str) -> float:
    """A label's seconds; 0 when it says none."""
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def from_json(answer: Any) -> Tasks:
    """The inner part of an answer that is in hand already."""
    return TaskReader().read(msgspec.json.encode({"type": "GET_TASKS", "get_tasks": answer}))


def by_agent(tasks: Iterable[Seen]) -> dict[str, list[Seen]]:
    """What runs on each agent."""
    found: dict[str, list[Seen]] = {}
    for seen in tasks:
        found.setdefault(seen.agent_id, []).append(seen)
    return found


def _listed(items: bytes | bytearray) -> bytes:
    return b"[" + items + b"]"


def _whole(items: bytearray) -> list[_Item]:
    """The tasks, if these are whole ones; none otherwise."""
    try:
        return _ITEMS.decode(_listed(items))
    except msgspec.DecodeError:
        return []
