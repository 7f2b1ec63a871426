"""How many instances of an app its constraints allow on a node. GROUP_BY is a wish, not a bound, and never buys a machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from cluster.autoscaler.model import Constraint
from cluster.autoscaler.shape import MANY

HOSTNAME = frozenset({"hostname", "@hostname"})
ZONE = frozenset({"zone", "@zone"})
SOFT = frozenset({"GROUP_BY"})


class Place(Protocol):
    """A node as constraints see it."""

    @property
    def hostname(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...


class Usage:
    """Where instances of each app are, by the value of each field that its constraints name."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def copy(self) -> Usage:
        other = Usage()
        other._counts = dict(self._counts)
        return other

    def count(self, app: str, field: str, value: str) -> int:
        return self._counts.get((app, field, value), 0)

    def values(self, app: str, field: str) -> set[str]:
        return {key[2] for key, count in self._counts.items() if key[:2] == (app, field) and count}

    def add(self, app: str, constraints: Iterable[Constraint], place: Place, count: int) -> None:
        """Count instances of `app` as placed."""
        for constraint in constraints:
            if (value := value_of(place, constraint.field)) is not None:
                key = (app, constraint.field, value)
                self._counts[key] = self._counts.get(key, 0) + count


def value_of(place: Place, field: str) -> str | None:
    """A node's value of a field; None when it lacks the attribute."""
    if field in HOSTNAME:
        return place.hostname
    return place.attributes.get("zone" if field in ZONE else field)


def room(app: str, constraints: Iterable[Constraint], place: Place, usage: Usage) -> int:
    """How many more instances of `app` may go to `place`."""
    return min((_room(app, constraint, place, usage) for constraint in constraints), default=MANY)


def _room(app: str, constraint: Constraint, place: Place, usage: Usage) -> int:
    value = value_of(place, constraint.field)
    operator = constraint.operator.upper()
    if value is None:
        return MANY if operator == "UNLIKE" or operator in SOFT else 0
    if operator in {"UNIQUE", "MAX_PER"}:
        most = 1 if operator == "UNIQUE" else _number(constraint.value)
        return max(0, most - usage.count(app, constraint.field, value))
    return MANY if _allows(app, constraint, operator, value, usage) else 0


def _allows(app: str, constraint: Constraint, operator: str, value: str, usage: Usage) -> bool:
    if operator in {"LIKE", "UNLIKE"}:
        return _matches(constraint.value, value) == (operator == "LIKE")
    if operator == "IS" or (operator == "CLUSTER" and constraint.value):
        return value == constraint.value
    if operator == "CLUSTER":
        used = usage.values(app, constraint.field)
        return not used or value in used
    return True


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        return False


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
