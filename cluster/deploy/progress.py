"""What cdktf's output says: pure. Lines go in; what happened to which resource, and what went wrong, comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Verb = Literal["creating", "created", "changing", "changed", "destroying", "destroyed"]

_VERBS: dict[str, Verb] = {
    "Creating...": "creating",
    "Creation complete": "created",
    "Modifying...": "changing",
    "Modifications complete": "changed",
    "Destroying...": "destroying",
    "Destruction complete": "destroyed",
}
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EVENT = re.compile(r"^\s*(?P<resource>[a-z0-9_]+\.[\w.-]+): (?P<verb>" + "|".join(map(re.escape, _VERBS)) + ")")
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
    """Reads cdktf's output line by line. A line names its stack first, or goes on with the last one's."""

    stacks: tuple[str, ...]
    _stack: str = ""
    _fault: list[str] = field(default_factory=list)

    def read(self, lines: Iterable[str]) -> list[Event]:
        """The events in these lines. What a box of Terraform's says is complete only when the box is closed."""
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, raw: str) -> Event | None:
        text = _ESCAPE.sub("", raw).rstrip()
        named = re.match(rf"({'|'.join(self.stacks)})(?:  |$)", text)
        if named:
            self._stack, text = named.group(1), text[named.end() :]
        bare = text.strip()
        if bare.startswith("│"):
            self._fault.append(bare.lstrip("│").strip())
            return None
        if bare.startswith("╵"):
            return self._close()
        return self._plain(text)

    def _plain(self, text: str) -> Event | None:
        if event := _EVENT.match(text):
            return Step(self._stack, event["resource"], _VERBS[event["verb"]])
        if plan := _PLAN.search(text):
            return Planned(self._stack, sum(map(int, plan.groups())))
        if end := _END.search(text):
            return Ended(self._stack, end.group())
        if own := _OUR_OWN.match(text):
            return Fault(own["what"])
        return None

    def _close(self) -> Event | None:
        lines, self._fault = self._fault, []
        start = next((index for index, line in enumerate(lines) if line.startswith("Error: ")), None)
        if start is None:  # a warning
            return None
        message = [lines[start].removeprefix("Error: ")]
        for line in lines[start + 1 :]:
            if not line:
                break
            message.append(line)
        resource = next((found["resource"] for line in lines if (found := _WITH.search(line))), "")
        return Fault(" ".join(message), self._stack, resource)


def first_cause(faults: Iterable[Fault]) -> Fault | None:
    """The fault to tell of: one with a resource rather than "execution halted"; one that is no mere consequence of a stop."""

    def rank(fault: Fault) -> int:
        return 2 * ("context canceled" in fault.what or "execution halted" in fault.what) + (not fault.resource)

    return min(faults, key=rank, default=None)
