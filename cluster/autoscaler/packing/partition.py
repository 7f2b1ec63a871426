"""Conversion of constraints to static parts: each part may use any of its templates.

Zones are chosen here: GROUP_BY levels its values, UNIQUE and MAX_PER fill theirs, CLUSTER takes the
value that serves it cheapest. What remains for packing is which templates a part may use and how
many pieces of an app one machine may hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import MANY, NOTHING, Shape, how_often, times
from mesaform.autoscaler.packing.model import Template
from mesaform.placement.constraints import (
    HOSTNAME,
    Constraint,
    InstanceCounts,
    most_per_value,
    room,
    value_at,
    whole_number,
)

Known = dict[tuple[frozenset[int], str], dict[str, frozenset[int]]]
"""Templates by value of a field, for each set of templates and field."""

SPREADING = frozenset({"UNIQUE", "MAX_PER", "GROUP_BY", "CLUSTER"})


@dataclass(frozen=True, slots=True)
class Part:
    """`count` times `each` pieces of a unit that may go to `templates` (indices).

    A machine holds at most `per_machine` pieces of the app `name`.
    """

    unit: int
    name: str
    shape: Shape
    count: int
    templates: frozenset[int]
    per_machine: int = MANY
    each: int = 1

    @property
    def is_capped(self) -> bool:
        return self.per_machine < MANY


def partition(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    templates: Sequence[Template],
    usage: InstanceCounts,
) -> list[Part]:
    """The parts of all that is left. Pieces that no template may hold are left out."""
    usage = usage.copy()
    parts: list[Part] = []
    known: Known = {}
    largest: dict[Shape, frozenset[int]] = {}
    sizes = np.array([template.shape for template in templates], dtype=np.int64).reshape(
        -1, len(NOTHING)
    )
    for index, count in sorted(left.items()):
        unit = units[index]
        if count <= 0:
            continue
        if unit.shape not in largest:
            largest[unit.shape] = frozenset(
                np.flatnonzero((sizes >= np.array(unit.shape)).all(axis=1)).tolist()
            )
        whole = Part(index, unit.name, unit.shape, count, largest[unit.shape])
        parts += _parts_of(whole, unit.constraints, templates, usage, known)
    return [part for part in parts if part.count > 0 and part.templates]


def _parts_of(
    part: Part,
    constraints: Sequence[Constraint],
    templates: Sequence[Template],
    usage: InstanceCounts,
    known: Known,
) -> list[Part]:
    """The parts of one item after its constraints: fixed ones, attributes, then hostnames."""
    fixed, on_attributes, on_hostnames = _by_treatment(constraints)
    parts = [_restricted(part, fixed, templates, usage)]
    before, seen = usage, set[str]()
    if len({constraint.field for constraint in on_attributes}) < len(on_attributes):
        before = usage.copy()
    for constraint in on_attributes:
        # A second constraint on a field counts what ran before, not what the first one placed.
        counts = before.copy() if constraint.field in seen else usage
        seen.add(constraint.field)
        parts = _spread_all(parts, constraint, templates, counts, known)
    for constraint in on_hostnames:
        parts = [_by_machine(each, constraint, usage) for each in parts]
    return parts


def _by_treatment(
    constraints: Sequence[Constraint],
) -> tuple[list[Constraint], list[Constraint], list[Constraint]]:
    """Constraints that only restrict, that spread over attributes, and that spread over hosts."""
    fixed: list[Constraint] = []
    on_attributes: list[Constraint] = []
    on_hostnames: list[Constraint] = []
    for constraint in constraints:
        if constraint.is_host_port:
            fixed.append(constraint)
            on_hostnames.append(constraint)
        elif not _spreads(constraint):
            fixed.append(constraint)
        elif constraint.field in HOSTNAME:
            on_hostnames.append(constraint)
        else:
            on_attributes.append(constraint)
    on_hostnames.sort(key=lambda constraint: constraint.is_host_port)
    return fixed, on_attributes, on_hostnames


def _restricted(
    part: Part, fixed: Sequence[Constraint], templates: Sequence[Template], usage: InstanceCounts
) -> Part:
    """The part with the templates that its fixed constraints permit."""
    if not fixed:
        return part
    allowed = (t for t in part.templates if room(part.name, fixed, templates[t], usage))
    return replace(part, templates=frozenset(allowed))


def _spread_all(
    parts: Sequence[Part],
    constraint: Constraint,
    templates: Sequence[Template],
    usage: InstanceCounts,
    known: Known,
) -> list[Part]:
    """Every part spread by one constraint."""
    spread: list[Part] = []
    for part in parts:
        spread += _spread(part, constraint, templates, usage, known)
    return spread


def _spreads(constraint: Constraint) -> bool:
    operator = constraint.operator
    return operator in SPREADING and not (operator == "CLUSTER" and constraint.value)


def _by_machine(part: Part, constraint: Constraint, usage: InstanceCounts) -> Part:
    """A constraint on the machine itself: every new machine is a value that nobody has.

    Apps that take the same host port share its limit of one instance per machine.
    """
    if constraint.is_host_port:
        return replace(part, name=str(constraint), per_machine=1)
    operator, taken = constraint.operator, usage.counts(part.name, constraint)
    if operator == "CLUSTER":
        if taken:
            return replace(part, count=0)
        usage.add_value(part.name, constraint, "a new machine", part.count)
        return replace(part, shape=times(part.shape, part.count), count=1, each=part.count)
    if operator == "GROUP_BY":
        groups = whole_number(constraint.value)
        most = max(taken.values()) if taken else -(-part.count // groups) if groups > 1 else MANY
    else:
        most = most_per_value(constraint)
    return replace(
        part, per_machine=min(part.per_machine, most), count=part.count if most > 0 else 0
    )


def _spread(
    part: Part,
    constraint: Constraint,
    templates: Sequence[Template],
    usage: InstanceCounts,
    known: Known,
) -> list[Part]:
    """One part for each value of an attribute, by the constraint's operator."""
    values = known.setdefault((part.templates, constraint.field), {})
    if not values:
        values.update(_templates_by_value(part.templates, constraint.field, templates))
    if not values:
        return []
    taken = usage.counts(part.name, constraint)
    operator = constraint.operator
    if operator == "CLUSTER":
        share = _together(part, values, templates, taken)
    elif operator == "GROUP_BY":
        share = _levelled(part.count, sorted(values), taken, whole_number(constraint.value))
    else:
        share = _filled(part.count, sorted(values), taken, most_per_value(constraint))
    for value, count in share.items():
        usage.add_value(part.name, constraint, value, count)
    return [
        replace(part, count=count, templates=values[value])
        for value, count in share.items()
        if count
    ]


def _templates_by_value(
    members: frozenset[int], field: str, templates: Sequence[Template]
) -> dict[str, frozenset[int]]:
    """Templates by their value of a field; those without a value are left out."""
    by_value: dict[str, set[int]] = {}
    for t in members:
        if (value := value_at(templates[t], field)) is not None:
            by_value.setdefault(value, set()).add(t)
    return {value: frozenset(same) for value, same in by_value.items()}


def _together(
    part: Part,
    values: Mapping[str, frozenset[int]],
    templates: Sequence[Template],
    taken: Mapping[str, int],
) -> dict[str, int]:
    """All to one value: the one in use, else the one whose machines serve them cheapest."""
    if taken:
        here = next((value for value in sorted(values) if value in taken), None)
        return {} if here is None else {here: part.count}

    def price(value: str) -> tuple[float, str]:
        machines = [templates[t] for t in values[value]]
        return (
            min(
                machine.usd_per_hour * -(-part.count // how_often(part.shape, machine.shape))
                for machine in machines
            ),
            value,
        )

    cheapest = sorted(price(value) for value in values)
    alike = [value for usd, value in cheapest if usd <= cheapest[0][0] + 1e-9]
    return {
        alike[sum(map(ord, part.name)) % len(alike)]: part.count
    }  # apps are dealt out over zones that cost the same


def _filled(
    count: int, values: Sequence[str], taken: Mapping[str, int], most: int
) -> dict[str, int]:
    """Level, and at most `most` of each value."""
    return _to_level(count, {value: taken.get(value, 0) for value in values}, most)


def _levelled(
    count: int, values: Sequence[str], taken: Mapping[str, int], groups: int
) -> dict[str, int]:
    """As even as it gets. A value that is in use and cannot be bought holds the others down."""
    fixed = [have for value, have in taken.items() if value not in values]
    most = MANY
    if fixed:
        fullest = max(taken.values())
        most = max(1, fullest) if min(fixed) < fullest else fullest + 1
    if len(values) + len(fixed) < groups:
        most = min(most, max(1, *taken.values()) if taken else 1)
    return _to_level(count, {value: taken.get(value, 0) for value in values}, most)


def _to_level(count: int, have: Mapping[str, int], most: int) -> dict[str, int]:
    """Raise the lowest first until `count` pieces are dealt or every value has `most`."""

    def dealt(level: int) -> int:
        return sum(max(0, min(level, most) - amount) for amount in have.values())

    low, high = 0, min(most, max(have.values()) + count)
    while low < high:  # the highest level that needs no more than there is
        middle = (low + high + 1) // 2
        low, high = (middle, high) if dealt(middle) <= count else (low, middle - 1)
    share = {value: max(0, min(low, most) - amount) for value, amount in have.items()}
    spare = count - sum(share.values())
    for value in sorted(have):
        if spare > 0 and have[value] + share[value] == low and low < most:
            share[value] += 1
            spare -= 1
    return share
