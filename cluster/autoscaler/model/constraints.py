"""Placement constraints: how many instances of an app they allow on a node. Pure.

The answers equal those that the services API gives to an offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from mesaform.autoscaler.model.cluster_view import Constraint
from mesaform.autoscaler.model.shape import MANY
from mesaform.common.patterns import BadPattern, matches

HOSTNAME = frozenset({"hostname", "@hostname"})
ZONE = frozenset({"zone", "@zone"})


class Location(Protocol):
    """A node as constraints see it."""

    @property
    def hostname(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...


class Usage:
    """Where instances of each app are, by the value of each field that its constraints name."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, int]] = {}

    def copy(self) -> Usage:
        other = Usage()
        other._counts = {key: dict(values) for key, values in self._counts.items()}
        return other

    def of(self, wanted: Iterable[tuple[str, Iterable[Constraint]]]) -> Usage:
        """Return a copy with only what these apps' constraints name, to keep it small."""
        other = Usage()
        for app, constraints in wanted:
            for constraint in constraints:
                key = (app, constraint.field)
                other._counts[key] = dict(self._counts.get(key, {}))
        return other

    def absorb(self, other: Usage) -> None:
        """Take over what a copy knows better."""
        self._counts.update(other._counts)

    def count(self, app: str, field: str, value: str) -> int:
        return self.counts(app, field).get(value, 0)

    def counts(self, app: str, field: str) -> Mapping[str, int]:
        """How many instances each value of a field has; values without any are left out."""
        return self._counts.get((app, field), {})

    def add(self, app: str, constraints: Iterable[Constraint], place: Location, count: int) -> None:
        """Count instances of `app` as placed."""
        for constraint in constraints if count else ():
            if (value := value_of(place, constraint.field)) is not None:
                self.add_value(app, constraint.field, value, count)

    def add_value(self, app: str, field: str, value: str, count: int) -> None:
        """Count instances of `app` as having a value."""
        values = self._counts.setdefault((app, field), {})
        values[value] = values.get(value, 0) + count


def value_of(place: Location, field: str) -> str | None:
    """A node's value of a field; None when it lacks the attribute."""
    if field in HOSTNAME:
        return place.hostname
    return place.attributes.get("zone" if field in ZONE else field)


def room(app: str, constraints: Iterable[Constraint], place: Location, usage: Usage) -> int:
    """How many more instances of `app` may go to `place`."""
    return min((_room(app, constraint, place, usage) for constraint in constraints), default=MANY)


def _room(app: str, constraint: Constraint, place: Location, usage: Usage) -> int:
    value = value_of(place, constraint.field)
    operator = constraint.operator.upper()
    if value is None:
        return MANY if operator == "UNLIKE" else 0
    if operator in {"UNIQUE", "MAX_PER"}:
        return max(0, most_per_value(constraint) - usage.count(app, constraint.field, value))
    if operator == "GROUP_BY":
        return room_in_group(usage.counts(app, constraint.field), value, number(constraint.value))
    return MANY if _allows(app, constraint, operator, value, usage) else 0


def is_grouped(constraints: Iterable[Constraint]) -> bool:
    """Whether instances are to be spread evenly over the values of a field."""
    return any(constraint.operator.upper() == "GROUP_BY" for constraint in constraints)


def most_per_value(constraint: Constraint) -> int:
    """How many instances UNIQUE and MAX_PER allow for one value."""
    return 1 if constraint.operator.upper() == "UNIQUE" else number(constraint.value)


def room_in_group(counts: Mapping[str, int], value: str, groups: int) -> int:
    """How many more instances may go to `value` while no other value gets any.

    Up to the fullest value, and one above it where all are level. A value without instances may get
    one. `groups` is how many values there must be before one may exceed the others.
    """
    others = [count for other, count in counts.items() if other != value]
    have = counts.get(value, 0)
    if not others:
        return MANY if groups <= 1 else max(0, 1 - have)
    fullest, level = max(others), min(others) == max(others)
    most = fullest + 1 if level and len(others) + 1 >= groups else max(fullest, 1)
    return max(0, most - have)


def _allows(app: str, constraint: Constraint, operator: str, value: str, usage: Usage) -> bool:
    if operator in {"LIKE", "UNLIKE"}:
        return _matches(constraint.value, value) is (operator == "LIKE")
    if operator == "IS" or (operator == "CLUSTER" and constraint.value):
        return value == constraint.value
    if operator == "CLUSTER":
        used = usage.counts(app, constraint.field)
        return not used or value in used
    return True


def _matches(pattern: str, value: str) -> bool | None:
    """Whether a pattern matches; None for a text that is no pattern."""
    try:
        return matches(pattern, value)
    except BadPattern:
        return None


def number(text: str) -> int:
    """A constraint's whole number; 0 when it is none."""
    return int(text) if text.isdigit() else 0
