"""Answers of frameworks: decoding, and the types that bound what a framework may say. Pure.

A framework is not trusted. Sizes, depths, numbers and texts are limited before and while an answer
is decoded; fields that nobody reads are not built.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Protocol, TypeVar

import msgspec
from msgspec import Meta

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason
from mesaform.common.patterns import BadPattern, require_pattern
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

MAX_SHAPES = 200
"""Most shapes of one framework. The shapes with the most pieces are kept."""

MAX_PIECES = 100_000
"""Most pieces of a shape that count."""

T = TypeVar("T")
_NUMBER = re.compile(r"[0-9]*")

Amount = Annotated[float, Meta(ge=0, le=1e7)]
"""Cpus, MiB or gpus."""

Count = Annotated[int, Meta(ge=0, le=10**9)]
Text = Annotated[str, Meta(max_length=1024)]
Moment = Annotated[float, Meta(ge=0, le=253_402_300_799)]
"""Seconds since the epoch."""

ConstraintParts = Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=3)]
Constraints = Annotated[list[ConstraintParts], Meta(max_length=32)]


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
    problem = _problem(field, name, value)
    if problem:
        raise AdapterError(f"the constraint {field} {operator} {value} {problem}")
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


def bounded(wanted: Iterable[WantedShape]) -> tuple[WantedShape, ...]:
    """At most `MAX_SHAPES` shapes, with names that differ; those with the most pieces first."""
    by_name: dict[str, WantedShape] = {}
    for shape in wanted:
        if shape.count > 0:
            by_name.setdefault(shape.name, shape)
    most = sorted(by_name.values(), key=lambda shape: (-shape.count, shape.name))
    return tuple(replace(shape, count=min(shape.count, MAX_PIECES)) for shape in most[:MAX_SHAPES])
