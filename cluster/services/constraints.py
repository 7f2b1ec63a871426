"""Placement constraints: `[field, operator, value?]` on the fields of an agent. No I/O.

Fields are the host's name, its fault domain (`@region`, `@zone`) and the agent's attributes.
Operators and their meaning are those of Marathon 1.11 (docs/constraints.md of its repository).
Regular expressions have RE2's syntax (`common.patterns`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from mesaform.common.patterns import BadPattern, matches, require_pattern
from mesaform.mesos.messages import Attribute, Offer

HOSTNAME_FIELDS = ("hostname", "@hostname")
NEED_VALUE = ("LIKE", "UNLIKE", "MAX_PER", "IS")
NUMERIC_VALUE = ("MAX_PER", "GROUP_BY")
PATTERN_VALUE = ("LIKE", "UNLIKE")

MAX_FIELDS = 200
MAX_FIELD_CHARACTERS = 1024
"""Further attributes and characters are ignored: the fields are part of each instance's record."""

AgentFields = Mapping[str, str]
"""Values of one agent by field name, as constraints compare them."""


def attribute_text(attribute: Attribute) -> str:
    """An attribute's value as text: scalars in `%g` form, ranges `[1-2]`, sets `{a,b}`."""
    if attribute.text is not None:
        return attribute.text.value
    if attribute.scalar is not None:
        return f"{attribute.scalar.value:g}"
    if attribute.ranges is not None:
        return "[" + ",".join(f"{part.begin}-{part.end}" for part in attribute.ranges.range) + "]"
    return "{" + ",".join(attribute.set.item if attribute.set else []) + "}"


def fields_of(offer: Offer) -> dict[str, str]:
    """The fields of the offer's agent."""
    fields = {
        attribute.name[:MAX_FIELD_CHARACTERS]: attribute_text(attribute)[:MAX_FIELD_CHARACTERS]
        for attribute in offer.attributes[:MAX_FIELDS]
    }
    fields["@hostname"] = offer.hostname[:MAX_FIELD_CHARACTERS]
    domain = offer.domain.fault_domain if offer.domain is not None else None
    if domain is not None:
        fields["@region"] = domain.region.name[:MAX_FIELD_CHARACTERS]
        fields["@zone"] = domain.zone.name[:MAX_FIELD_CHARACTERS]
    return fields


def value_of(field: str, fields: AgentFields) -> str | None:
    """The value of a constraint's field on an agent; None when the agent has no such field."""
    return fields.get("@hostname" if field in HOSTNAME_FIELDS else field)


def _unique(value: str, counts: Counter[str], _parameter: str) -> bool:
    return counts[value] == 0


def _cluster(value: str, counts: Counter[str], parameter: str) -> bool:
    if parameter:
        return value == parameter
    return all(other == value for other in counts)


def _group_by(value: str, counts: Counter[str], parameter: str) -> bool:
    """A new value fits. A known value fits while it has fewer instances than the fullest.

    When all values are level, any fits once there are at least `parameter` values.
    """
    if value not in counts:
        return True
    fullest = max(counts.values())
    if counts[value] < fullest:
        return True
    return min(counts.values()) == fullest and len(counts) >= int(parameter or 0)


def _like(value: str, _counts: Counter[str], parameter: str) -> bool:
    return _matches(parameter, value) is True


def _unlike(value: str, _counts: Counter[str], parameter: str) -> bool:
    return _matches(parameter, value) is False


def _matches(pattern: str, value: str) -> bool | None:
    """Whether a pattern matches; None for one of an earlier release, which no agent satisfies."""
    try:
        return matches(pattern, value)
    except BadPattern:
        return None


def _max_per(value: str, counts: Counter[str], parameter: str) -> bool:
    return counts[value] < int(parameter)


def _is(value: str, _counts: Counter[str], parameter: str) -> bool:
    return value == parameter


OPERATORS: dict[str, Callable[[str, Counter[str], str], bool]] = {
    "UNIQUE": _unique,
    "CLUSTER": _cluster,
    "GROUP_BY": _group_by,
    "LIKE": _like,
    "UNLIKE": _unlike,
    "MAX_PER": _max_per,
    "IS": _is,
}
"""By name: whether one more instance fits, given the agent's value, the number of instances by
value, and the constraint's own value."""


def are_satisfied(
    constraints: Iterable[Sequence[str]], agent: AgentFields, placed: Iterable[AgentFields]
) -> bool:
    """Whether one more instance may run on an agent.

    Args:
        constraints: valid ones (see `problem_with`).
        agent: the agent's fields.
        placed: the fields of the agents of the app's instances, one entry per instance.

    """
    others = list(placed)
    return all(_is_satisfied(constraint, agent, others) for constraint in constraints)


def _is_satisfied(
    constraint: Sequence[str], agent: AgentFields, others: Iterable[AgentFields]
) -> bool:
    field, operator, parameter = _parts(constraint)
    value = value_of(field, agent)
    if value is None:
        return operator == "UNLIKE"
    counts = Counter(other for item in others if (other := value_of(field, item)) is not None)
    return OPERATORS[operator](value, counts, parameter)


def _parts(constraint: Sequence[str]) -> tuple[str, str, str]:
    """Field, operator and value; the value is empty where there is none."""
    field, operator, *parameters = constraint
    return field, operator, parameters[0] if parameters else ""


def problem_with(constraint: Sequence[str]) -> str | None:
    """What is wrong with a constraint, as text for its author; None when it is valid."""
    if len(constraint) not in (2, 3):
        return "a constraint is [field, operator] or [field, operator, value]"
    _, operator, parameter = _parts(constraint)
    if operator not in OPERATORS:
        return f"unknown operator {operator!r}; one of {', '.join(OPERATORS)}"
    if operator in NEED_VALUE and not parameter:
        return f"{operator} needs a value"
    return _problem_with_value(operator, parameter) if parameter else None


def _problem_with_value(operator: str, parameter: str) -> str | None:
    if operator == "UNIQUE":
        return "UNIQUE takes no value"
    if operator in NUMERIC_VALUE and not parameter.isdigit():
        return f"{operator} takes a whole number, not {parameter!r}"
    if operator in PATTERN_VALUE:
        try:
            require_pattern(parameter)
        except BadPattern as error:
            return f"{parameter!r} is not a regular expression of RE2: {error}"
    return None
