"""Placement constraints as Marathon has them: `[field, operator, value?]` on the host's name, its fault domain and its attributes. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from mesaform.common.json_types import as_object
from mesaform.mesos.messages import Attribute, Offer

HOSTNAME_FIELDS = ("hostname", "@hostname")
NEED_VALUE = ("LIKE", "UNLIKE", "MAX_PER", "IS")
Places = Mapping[str, str]


def attribute_text(attribute: Attribute) -> str:
    """An attribute's value as the text that constraints compare."""
    if attribute.text is not None:
        return attribute.text.value
    if attribute.scalar is not None:
        return f"{attribute.scalar.value:g}"
    if attribute.ranges is not None:
        return "[" + ",".join(f"{part.begin}-{part.end}" for part in attribute.ranges.range) + "]"
    return "{" + ",".join(attribute.set.item if attribute.set else []) + "}"


def places_of(offer: Offer) -> dict[str, str]:
    """Every field of an offer's agent that a constraint may name, with its value."""
    places = {attribute.name: attribute_text(attribute) for attribute in offer.attributes}
    places["@hostname"] = offer.hostname
    domain = as_object((offer.domain or {}).get("fault_domain"))
    for part in ("region", "zone"):
        if name := as_object(domain.get(part)).get("name"):
            places[f"@{part}"] = str(name)
    return places


def value_of(field: str, places: Places) -> str | None:
    """The value of a constraint's field on an agent; None when the agent has no such attribute."""
    return places.get("@hostname" if field in HOSTNAME_FIELDS else field)


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _unique(value: str, placed: Counter[str], _parameter: str) -> bool:
    return placed[value] == 0


def _cluster(value: str, placed: Counter[str], parameter: str) -> bool:
    if parameter:
        return value == parameter
    return all(other == value for other in placed)


def _group_by(value: str, placed: Counter[str], parameter: str) -> bool:
    """A value that nobody has is welcome; a known one only while it has fewer than the fullest, or all are level and there are enough."""
    if value not in placed:
        return True
    counts = placed.values()
    if placed[value] < max(counts):
        return True
    return min(counts) == max(counts) and len(placed) >= int(parameter or 0)


def _like(value: str, _placed: Counter[str], parameter: str) -> bool:
    return _pattern(parameter).fullmatch(value) is not None


def _max_per(value: str, placed: Counter[str], parameter: str) -> bool:
    return placed[value] < int(parameter)


def _is(value: str, _placed: Counter[str], parameter: str) -> bool:
    return value == parameter


OPERATORS: dict[str, Callable[[str, Counter[str], str], bool]] = {
    "UNIQUE": _unique,
    "CLUSTER": _cluster,
    "GROUP_BY": _group_by,
    "LIKE": _like,
    "UNLIKE": lambda value, placed, parameter: not _like(value, placed, parameter),
    "MAX_PER": _max_per,
    "IS": _is,
}


def satisfied(
    constraints: Iterable[Sequence[str]], places: Places, placed: Iterable[Places]
) -> bool:
    """Whether one more instance may go to an agent.

    Args:
        constraints: checked already (`problem_with`).
        places: the agent's fields.
        placed: the fields of the agents where the app's instances are, one entry an instance.

    """
    others = list(placed)
    for constraint in constraints:
        field, operator, parameter = (
            constraint[0],
            constraint[1],
            constraint[2] if len(constraint) > 2 else "",
        )
        value = value_of(field, places)
        if value is None:
            if operator != "UNLIKE":
                return False
            continue
        taken = Counter(other for item in others if (other := value_of(field, item)) is not None)
        if not OPERATORS[operator](value, taken, parameter):
            return False
    return True


def problem_with(constraint: Sequence[str]) -> str | None:
    """What is wrong with a constraint, in words; None when nothing is."""
    if len(constraint) not in (2, 3):
        return "a constraint is [field, operator] or [field, operator, value]"
    operator, parameter = constraint[1], constraint[2] if len(constraint) == 3 else ""
    if operator not in OPERATORS:
        return f"unknown operator {operator!r}; one of {', '.join(OPERATORS)}"
    if operator == "UNIQUE" and parameter:
        return "UNIQUE takes no value"
    if operator in NEED_VALUE and not parameter:
        return f"{operator} needs a value"
    if operator in ("MAX_PER", "GROUP_BY") and parameter and not parameter.isdigit():
        return f"{operator} takes a whole number, not {parameter!r}"
    if operator in ("LIKE", "UNLIKE"):
        try:
            re.compile(parameter)
        except re.error as error:
            return f"{parameter!r} is not a regular expression: {error}"
    return None
