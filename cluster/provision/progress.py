"""Parser of Terraform's machine-readable output (`-json`): lines in, events out. Pure.

The messages are Terraform's own (developer.hashicorp.com/terraform/internals/machine-readable-ui).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mesaform.common.json_types import JsonObject, as_object

Verb = Literal["creating", "created", "changing", "changed", "destroying", "destroyed"]

_UNDER_WAY: dict[str, Verb] = {
    "create": "creating",
    "update": "changing",
    "delete": "destroying",
}
_COMPLETE: dict[str, Verb] = {"create": "created", "update": "changed", "delete": "destroyed"}


@dataclass(frozen=True, slots=True)
class Step:
    """Something happens to a resource: `aws_vpc.vpc` is `creating`."""

    resource: str
    verb: Verb

    @property
    def is_complete(self) -> bool:
        return self.verb in _COMPLETE.values()


@dataclass(frozen=True, slots=True)
class Failed:
    """A resource is not as it should be, and Terraform tries no more."""

    resource: str


@dataclass(frozen=True, slots=True)
class Planned:
    """Terraform knows how many resources it will add, change and destroy."""

    steps: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The stack is as it should be; `summary` has the counts."""

    summary: str


@dataclass(frozen=True, slots=True)
class Fault:
    """An error; `resource` is empty where it belongs to no resource."""

    what: str
    resource: str = ""


Event = Step | Failed | Planned | Ended | Fault


def read(lines: Iterable[str]) -> list[Event]:
    """The events of complete lines. Other messages, and lines that are no message, are skipped."""
    events = (_event(line) for line in lines)
    return [event for event in events if event is not None]


def _event(line: str) -> Event | None:
    try:
        message = as_object(json.loads(line))
    except ValueError:
        return None
    parse = _PARSERS.get(str(message.get("type")))
    return parse(message) if parse else None


def _step_of(verbs: dict[str, Verb]) -> Callable[[JsonObject], Event | None]:
    def parse(message: JsonObject) -> Event | None:
        verb = verbs.get(str(as_object(message.get("hook")).get("action")))
        return Step(_address(message), verb) if verb else None

    return parse


def _failed(message: JsonObject) -> Event:
    return Failed(_address(message))


def _address(message: JsonObject) -> str:
    hook = as_object(message.get("hook"))
    return str(as_object(hook.get("resource")).get("addr", ""))


def _summary(message: JsonObject) -> Event:
    changes = as_object(message.get("changes"))
    add, change, remove = (
        number if isinstance(number := changes.get(name), int) else 0
        for name in ("add", "change", "remove")
    )
    if changes.get("operation") == "plan":
        return Planned(add + change + remove)
    return Ended(f"{add} added, {change} changed, {remove} destroyed")


def _diagnostic(message: JsonObject) -> Event | None:
    diagnostic = as_object(message.get("diagnostic"))
    if diagnostic.get("severity") != "error":
        return None
    texts = (str(diagnostic.get(name) or "") for name in ("summary", "detail"))
    what = ": ".join(" ".join(text.split()) for text in texts if text.strip())
    return Fault(what, str(diagnostic.get("address") or ""))


_PARSERS: dict[str, Callable[[JsonObject], Event | None]] = {
    "apply_start": _step_of(_UNDER_WAY),
    "apply_progress": _step_of(_UNDER_WAY),
    "apply_complete": _step_of(_COMPLETE),
    "apply_errored": _failed,
    "change_summary": _summary,
    "diagnostic": _diagnostic,
}


def first_cause(faults: Iterable[Fault], failed: Sequence[str] = ()) -> Fault | None:
    """The fault to report: one with a resource, and no consequence of a stop, if there is one.

    Of several it is that of the resource that failed first. Terraform prints the faults when all
    has ended: a launch that waited in vain for its instance profile stands before the profile's.

    Args:
        faults: the errors that Terraform printed.
        failed: addresses of resources, in the order in which they failed.

    """
    turns = {resource: turn for turn, resource in reversed(list(enumerate(failed)))}

    def rank(fault: Fault) -> tuple[bool, bool, int]:
        is_stop = "context canceled" in fault.what or "execution halted" in fault.what
        return is_stop, not fault.resource, turns.get(fault.resource, len(turns))

    return min(faults, key=rank, default=None)
