"""Parser of cdktf's output: lines in, events of resources and errors out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Verb = Literal["creating", "created", "changing", "changed", "destroying", "destroyed"]

_VERBS: dict[str, Verb] = {
    "Creating...": "creating",
    "Still creating...": "creating",
    "Creation complete": "created",
    "Modifying...": "changing",
    "Modifications complete": "changed",
    "Destroying...": "destroying",
    "Still destroying...": "destroying",
    "Destruction complete": "destroyed",
}
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EVENT = re.compile(
    r"^\s*(?P<resource>[a-z0-9_]+\.[\w.-]+)(?: \([^)]*\))?: (?P<verb>"
    + "|".join(map(re.escape, _VERBS))
    + ")"
)
_PLAN = re.compile(r"Plan: (\d+) to add, (\d+) to change, (\d+) to destroy")
_END = re.compile(r"(?:(Apply|Destroy) complete! Resources: .*?\.|No changes\.)")
_WITH = re.compile(r"\bwith (?P<resource>[a-z0-9_]+\.[\w.-]+)")
_OUR_OWN = re.compile(r"^\s*mesaform: (?P<what>.*)")


@dataclass(frozen=True, slots=True)
class Step:
    """Something happened to a resource of a stack."""

    stack: str
    resource: str
    verb: Verb


@dataclass(frozen=True, slots=True)
class Planned:
    """Terraform knows how much there is to do in a stack."""

    stack: str
    steps: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A stack is as it should be."""

    stack: str
    summary: str


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of Terraform (`stack`, maybe `resource`) or of the stacks' own program (neither)."""

    what: str
    stack: str = ""
    resource: str = ""


Event = Step | Planned | Ended | Fault


@dataclass(slots=True)
class Reader:
    """Reads cdktf's output line by line. A line names its stack, or belongs to the last one's.

    An error is a paragraph that starts with "Error: ", then one that names the resource. Terraform
    may draw a box around both.
    """

    stacks: tuple[str, ...]
    _stack: str = ""
    _message: list[str] = field(default_factory=list)
    _message_stack: str = ""
    _gap: bool = False

    def read(self, lines: Iterable[str]) -> list[Event]:
        """The events in these lines. An error ends when other text follows, or at `finish`."""
        return [event for line in lines for event in self._line(line)]

    def finish(self) -> list[Event]:
        """The error that was incomplete when the output ended, if any."""
        return self._close("")

    def _line(self, raw: str) -> list[Event]:
        text = _ESCAPE.sub("", raw).rstrip()
        named = re.match(rf"({'|'.join(self.stacks)})(?:  |$)", text)
        if named:
            self._stack, text = named.group(1), text[named.end() :]
        bare = text.strip().strip("╷│╵").strip()
        if bare.startswith("Error: "):
            events = self._close("")
            self._message, self._message_stack, self._gap = (
                [bare.removeprefix("Error: ")],
                self._stack,
                False,
            )
            return events
        if self._message:
            return self._in_error(bare, text)
        return self._plain(text)

    def _in_error(self, bare: str, text: str) -> list[Event]:
        """Inside an error: its message until a gap, then maybe the resource."""
        if not bare:
            self._gap = True
            return []
        if matched := _WITH.match(bare):
            return self._close(matched["resource"])
        if self._gap:
            return [*self._close(""), *self._plain(text)]
        self._message.append(bare)
        return []

    def _close(self, resource: str) -> list[Event]:
        message, self._message = self._message, []
        return [Fault(" ".join(message), self._message_stack, resource)] if message else []

    def _plain(self, text: str) -> list[Event]:
        if event := _EVENT.match(text):
            return [Step(self._stack, event["resource"], _VERBS[event["verb"]])]
        if plan := _PLAN.search(text):
            return [Planned(self._stack, sum(map(int, plan.groups())))]
        if end := _END.search(text):
            return [Ended(self._stack, end.group())]
        if own := _OUR_OWN.match(text):
            return [Fault(own["what"])]
        return []


def first_cause(faults: Iterable[Fault]) -> Fault | None:
    """The fault to report: one with a resource, and no consequence of a stop, if there is one."""

    def rank(fault: Fault) -> int:
        return 2 * ("context canceled" in fault.what or "execution halted" in fault.what) + (
            not fault.resource
        )

    return min(faults, key=rank, default=None)
