"""Placement constraints: how many more instances of an app they allow on an agent. Pure.

Fields are the host's name, its fault domain (`@region`, `@zone`) and the agent's attributes.
Operators and their meaning are those of Marathon 1.11 (docs/constraints.md and Constraints.scala of
its repository). They count the instances of the app's present configuration only. Regular
expressions have RE2's syntax (`common.patterns`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesaform.common.patterns import BadPattern, matches, require_pattern
from mesaform.common.resources import Range
from mesaform.placement.attributes import scalar_text

HOSTNAME = frozenset({"hostname", "@hostname"})
"""Fields that name the agent's host."""

HOST_PORT = "@port"
FREE = "FREE"
"""Field and operator of constraints that stand for a fixed host port (`host_port`). The operator
tells them: nobody can state it, while the field may be any text that a framework chose."""

CONFIG_LABEL = "mesaform/config"
"""The label of a task with the version of its app's configuration."""

OPERATORS = ("UNIQUE", "CLUSTER", "GROUP_BY", "LIKE", "UNLIKE", "MAX_PER", "IS")
NEED_VALUE = frozenset({"LIKE", "UNLIKE", "MAX_PER", "IS"})
NUMERIC_VALUE = frozenset({"MAX_PER", "GROUP_BY"})
PATTERN_VALUE = frozenset({"LIKE", "UNLIKE"})

UNLIMITED = 1_000_000_000
"""The answer of `room` where no constraint sets a limit."""

LONGEST_NUMBER = 18
"""Digits of a whole number that are read."""

_SCALAR = re.compile(r"[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint: `operator` is one of `OPERATORS` in capitals, `value` is empty without one."""

    field: str
    operator: str
    value: str = ""

    @classmethod
    def of(cls, parts: Sequence[str]) -> Constraint:
        """The constraint of its parts in JSON: field, operator and perhaps a value."""
        field, operator, *values = parts
        return cls(field, operator.upper(), values[0] if values else "")

    @property
    def is_host_port(self) -> bool:
        """Whether it stands for a fixed host port."""
        return self.operator == FREE

    def __str__(self) -> str:
        if self.is_host_port:
            return f"host port {self.value}"
        return " ".join(part for part in (self.field, self.operator, self.value) if part)


def host_port(port: int) -> Constraint:
    """That an instance takes this very host port: the agent offers it, and nobody has it."""
    return Constraint(HOST_PORT, FREE, str(port))


class Location(Protocol):
    """An agent as constraints see it.

    `attributes` are in the form of `attributes.comparison_text`, with `@region` and `@zone` where
    the agent has a fault domain. `ports` are its free host ports.
    """

    @property
    def hostname(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def ports(self) -> tuple[Range, ...]: ...


class InstanceCounts:
    """Instances by app and by value of each field that the app's constraints name."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, int]] = {}

    def copy(self) -> InstanceCounts:
        other = InstanceCounts()
        other._counts = {key: dict(values) for key, values in self._counts.items()}
        return other

    def of(self, wanted: Iterable[tuple[str, Iterable[Constraint]]]) -> InstanceCounts:
        """Return a copy with only what these apps' constraints name, to keep it small."""
        other = InstanceCounts()
        for app, constraints in wanted:
            for constraint in constraints:
                key = _key(app, constraint)
                other._counts[key] = dict(self._counts.get(key, {}))
        return other

    def absorb(self, other: InstanceCounts) -> None:
        """Take over what a copy knows better."""
        self._counts.update(other._counts)

    def counts(self, app: str, constraint: Constraint) -> Mapping[str, int]:
        """Instances by value of the constraint's field; values without any are left out."""
        return self._counts.get(_key(app, constraint), {})

    def add(
        self, app: str, constraints: Iterable[Constraint], location: Location, count: int
    ) -> None:
        """Count instances of `app` as placed: each once for every field that is named."""
        fields = {_key(app, constraint): constraint for constraint in constraints if count}
        for constraint in fields.values():
            if (value := value_at(location, constraint.field)) is not None:
                self.add_value(app, constraint, value, count)

    def add_value(self, app: str, constraint: Constraint, value: str, count: int) -> None:
        """Count instances of `app` as having a value of the constraint's field."""
        values = self._counts.setdefault(_key(app, constraint), {})
        values[value] = values.get(value, 0) + count


def _key(app: str, constraint: Constraint) -> tuple[str, str]:
    """What is counted together: a host port is taken from all apps."""
    if constraint.is_host_port:
        return ("", f"{HOST_PORT} {constraint.value}")
    return (app, constraint.field)


def value_of(field: str, hostname: str, attributes: Mapping[str, str]) -> str | None:
    """An agent's value of a field; None when the agent has no such field."""
    if field in HOSTNAME or field == HOST_PORT:
        return hostname
    return attributes.get(field)


def value_at(location: Location, field: str) -> str | None:
    """The value of a field at a location; see `value_of`."""
    return value_of(field, location.hostname, location.attributes)


def room(
    app: str, constraints: Iterable[Constraint], location: Location, counts: InstanceCounts
) -> int:
    """How many more instances of `app` may go to `location` while none goes elsewhere."""
    return min(
        (_room(app, constraint, location, counts) for constraint in constraints),
        default=UNLIMITED,
    )


def _room(app: str, constraint: Constraint, location: Location, counts: InstanceCounts) -> int:
    value = value_at(location, constraint.field)
    if value is None:
        return UNLIMITED if constraint.operator == "UNLIKE" else 0
    placed = counts.counts(app, constraint)
    if constraint.is_host_port:
        return _room_at_port(whole_number(constraint.value), location.ports, placed.get(value, 0))
    return room_for_value(constraint, value, placed)


def _room_at_port(port: int, free: Iterable[Range], taken: int) -> int:
    is_offered = any(low <= port <= high for low, high in free)
    return 1 - taken if is_offered and not taken else 0


def room_for_value(constraint: Constraint, value: str, placed: Mapping[str, int]) -> int:
    """How many more instances may have `value`, by one constraint on an attribute or hostname.

    `placed` are the app's instances by value.
    """
    operator = constraint.operator
    if operator in {"UNIQUE", "MAX_PER"}:
        return max(0, most_per_value(constraint) - placed.get(value, 0))
    if operator == "GROUP_BY":
        return room_in_group(placed, value, whole_number(constraint.value))
    return UNLIMITED if _allows(constraint, value, placed) else 0


def is_grouped(constraints: Iterable[Constraint]) -> bool:
    """Whether instances are to be spread evenly over the values of a field."""
    return any(constraint.operator == "GROUP_BY" for constraint in constraints)


def most_per_value(constraint: Constraint) -> int:
    """How many instances UNIQUE and MAX_PER allow for one value."""
    return 1 if constraint.operator == "UNIQUE" else whole_number(constraint.value)


def room_in_group(counts: Mapping[str, int], value: str, groups: int) -> int:
    """How many more instances may go to `value` while no other value gets any.

    Up to the fullest value, and one above it where all are level. A value without instances may get
    one. `groups` is how many values there must be before one may exceed the others.
    """
    others = [count for other, count in counts.items() if other != value]
    have = counts.get(value, 0)
    if not others:
        return UNLIMITED if groups <= 1 else max(0, 1 - have)
    fullest, level = max(others), min(others) == max(others)
    most = fullest + 1 if level and len(others) + 1 >= groups else max(fullest, 1)
    return max(0, most - have)


def _allows(constraint: Constraint, value: str, placed: Mapping[str, int]) -> bool:
    operator = constraint.operator
    if operator in PATTERN_VALUE:
        return _matches(constraint.value, value) is (operator == "LIKE")
    if operator == "IS":
        return value == _normal(constraint.value)
    if operator == "CLUSTER":
        return value == constraint.value if constraint.value else not placed or value in placed
    return False


def _normal(value: str) -> str:
    """The value of IS in the form that scalars have, if it is one: `0.80` is `0.8`."""
    return scalar_text(float(value)) if _SCALAR.fullmatch(value) else value


def _matches(pattern: str, value: str) -> bool | None:
    """Whether a pattern matches; None for one of an earlier release, which no agent satisfies."""
    try:
        return matches(pattern, value)
    except BadPattern:
        return None


def whole_number(text: str) -> int:
    """A constraint's whole number, at most `UNLIMITED`; 0 when it is none."""
    if not text.isdecimal():
        return 0
    return UNLIMITED if len(text.lstrip("0")) > LONGEST_NUMBER else min(int(text), UNLIMITED)


def problem_with(parts: Sequence[str]) -> str | None:
    """What is wrong with the parts of a constraint, for its author; None when it is valid."""
    if len(parts) not in (2, 3):
        return "a constraint is [field, operator] or [field, operator, value]"
    operator, parameter = parts[1], parts[2] if len(parts) > 2 else ""
    if operator not in OPERATORS:
        return f"unknown operator {operator!r}; one of {', '.join(OPERATORS)}"
    if operator in NEED_VALUE and not parameter:
        return f"{operator} needs a value"
    return _problem_with_value(operator, parameter) if parameter else None


def _problem_with_value(operator: str, parameter: str) -> str | None:
    if operator == "UNIQUE":
        return "UNIQUE takes no value"
    if operator in NUMERIC_VALUE and not parameter.isdecimal():
        return f"{operator} takes a whole number, not {parameter!r}"
    if operator in PATTERN_VALUE:
        try:
            require_pattern(parameter)
        except BadPattern as error:
            return f"{parameter!r} is not a regular expression of RE2: {error}"
    return None
