"""Answers of frameworks: decoding, and the types that bound what a framework may say. Pure.

A framework is not trusted. Sizes, depths, numbers and texts are limited before and while an answer
is decoded; fields that nobody reads are not built.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Protocol, TypeVar

import msgspec
from msgspec import Meta

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason
from mesaform.common.patterns import BadPattern, require_pattern
from mesaform.common.printable import printable
from mesaform.http.errors import BadRequest
from mesaform.http.json_limits import check
from mesaform.placement.constraints import (
    NEED_VALUE,
    NUMERIC_VALUE,
    OPERATORS,
    PATTERN_VALUE,
    Constraint,
)

MAX_BYTES = 8 * 1024 * 1024
"""Longest answer: 4,000 executors of Spark, or 5,000 apps of Marathon."""

MAX_ELEMENTS = 600_000
MAX_DEPTH = 40

MAX_ENTRIES = 5000
"""Longest list of apps, jobs, runs or tasks."""

MAX_SHAPES = 200
"""Most shapes of one framework. The shapes with the most pieces are kept."""

MAX_CONSTRAINTS = 400
MAX_CONSTRAINT_TEXT = 64 * 1024
"""Most constraints of all shapes of one framework, and their characters. Each costs time of the
planner for each type of machine, and space of the planner's state."""

MAX_NAME = 200

MAX_PIECES = 100_000
"""Most pieces of a shape that count."""

T = TypeVar("T")
_NUMBER = re.compile(r"[0-9]{0,9}")

Amount = Annotated[float, Meta(ge=0, le=1e7)]
"""Cpus, MiB or gpus."""

Count = Annotated[int, Meta(ge=0, le=10**9)]
Text = Annotated[str, Meta(max_length=1024)]
Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Moment = Annotated[float, Meta(ge=0, le=253_402_300_799)]
"""Seconds since the epoch."""

ConstraintText = Annotated[str, Meta(max_length=256)]
ConstraintParts = Annotated[list[ConstraintText], Meta(max_length=3)]
Constraints = Annotated[list[ConstraintParts], Meta(max_length=32)]

Labels = Annotated[
    dict[Annotated[str, Meta(max_length=256)], Annotated[str, Meta(max_length=8192)]],
    Meta(max_length=256),
]


class AdapterError(Exception):
    """A framework gave no answer, or one that cannot be used. The text says why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The framework that is read, with the settings of its adapter.

    `defaults` are cpus, MiB of memory and MiB of disk of work that states none.
    """

    framework_id: str
    name: str
    defaults: tuple[float | None, float | None, float | None] = (None, None, None)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an adapter read: see `FrameworkDemand`."""

    wanted: tuple[WantedShape, ...]
    evidence: tuple[Reason, ...]
    tasks: int | None = None


class Source(Protocol):
    """The API of one framework. Raises `AdapterError` where it gives no usable answer."""

    async def get(self, path: str) -> bytes:
        """The body of a GET of this path, which is relative to the API's URL."""
        ...


Read = Callable[[Source, Subject], Awaitable[Reading]]
"""An adapter. Raises `AdapterError` where it gets no usable answer."""


def decode(body: bytes, type_: type[T], what: str) -> T:
    """Decode an answer.

    Raises:
        AdapterError: it is too large, no JSON, or not of this type.

    """
    try:
        check(body, max_elements=MAX_ELEMENTS, max_depth=MAX_DEPTH)
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, BadRequest, RecursionError, UnicodeDecodeError) as error:
        raise AdapterError(f"{what}: {str(error)[:200]}") from None


def constraint_of(field: str, operator: str, value: str = "") -> Constraint:
    """A constraint that a framework states, in Marathon's operators.

    Raises:
        AdapterError: there is no such operator, or its value is invalid.

    """
    name = operator.upper()
    is_readable = field.isprintable() and value.isprintable()
    problem = _problem(field, name, value) if is_readable else "has control characters"
    if problem:
        raise AdapterError(f"the constraint {field} {operator[:40]} {value[:200]} {problem}")
    return Constraint(field, name, value)


def _problem(field: str, operator: str, value: str) -> str:
    """What is wrong with a constraint; empty if it is valid."""
    if not field or operator not in OPERATORS:
        return "is not known"
    if operator in NEED_VALUE and not value:
        return "has no value"
    if operator in NUMERIC_VALUE and not _NUMBER.fullmatch(value):
        return "needs a number"
    return _pattern_problem(value) if operator in PATTERN_VALUE else ""


def _pattern_problem(value: str) -> str:
    try:
        require_pattern(value)
    except BadPattern as error:
        return f"has no valid pattern: {error}"
    return ""


def constraints_of(stated: Iterable[list[str]]) -> tuple[Constraint, ...]:
    """Constraints of their parts: field, operator and perhaps a value.

    Raises:
        AdapterError: one is invalid.

    """
    constraints = []
    for parts in stated:
        if len(parts) < 2:
            raise AdapterError(f"the constraint {parts} has no operator")
        constraints.append(constraint_of(*parts))
    return tuple(constraints)


def moment(text: str | None) -> float:
    """A time in ISO 8601 as seconds since the epoch; 0 if it is none."""
    try:
        at = datetime.fromisoformat(text.replace("GMT", "+00:00")) if text else None
        return max(0.0, at.timestamp()) if at is not None else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """`count` pieces of an app, a job or a run. `build` gives the shape or an `AdapterError`."""

    name: str
    count: int
    build: Callable[[], WantedShape]


def bounded(entries: Iterable[Entry]) -> tuple[WantedShape, ...]:
    """The shapes of the entries with the most pieces, with names that differ.

    At most `MAX_SHAPES`, with at most `MAX_CONSTRAINTS`. Shapes beyond that are not built.

    Raises:
        AdapterError: an entry that is kept is invalid.

    """
    by_name: dict[str, Entry] = {}
    for entry in entries:
        if entry.count > 0:
            by_name.setdefault(entry.name, entry)
    most = sorted(by_name.values(), key=lambda entry: (-entry.count, entry.name))
    return tuple(_kept(most[:MAX_SHAPES]))


def _kept(entries: Iterable[Entry]) -> Iterator[WantedShape]:
    constraints = characters = 0
    for entry in entries:
        shape = limited(entry.build())
        constraints += len(shape.constraints)
        characters += sum(len(item.field) + len(item.value) for item in shape.constraints)
        if constraints > MAX_CONSTRAINTS or characters > MAX_CONSTRAINT_TEXT:
            return
        yield shape


def limited(shape: WantedShape) -> WantedShape:
    """A shape with a printable name, and with at most `MAX_PIECES`.

    Raises:
        AdapterError: it has more constraints than all shapes of a framework may have.

    """
    if len(shape.constraints) > MAX_CONSTRAINTS:
        name = printable(shape.name, 80)
        raise AdapterError(f"{name} has more than {MAX_CONSTRAINTS} constraints")
    return replace(shape, name=printable(shape.name, MAX_NAME), count=min(shape.count, MAX_PIECES))
