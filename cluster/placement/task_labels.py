"""Labels of work that say which machines it wants: type, capacity type, architecture, wait. Pure.

Apps, jobs, frameworks and their tasks carry the labels; services, `mesaform run`, the planner and
the simulator read them here. Each is a constraint on what agents state of themselves, except
`MAX_WAIT_LABEL`, which delays purchases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mesaform.common.architecture import ARCH, ARCH_LABEL, ARCHITECTURES
from mesaform.common.durations import parse_duration_s
from mesaform.common.errors import BadInput
from mesaform.placement.constraints import Constraint

INSTANCE_TYPE_LABEL = "mesaform.instance-type"
"""The EC2 types that work may run on, as a list with commas."""

CAPACITY_TYPE_LABEL = "mesaform.capacity-type"
ARCHITECTURE_LABEL = "mesaform.architecture"

MAX_WAIT_LABEL = "mesaform.max-wait"
"""How long work may wait for capacity that exists, before machines are bought for it."""

PREFIX = "mesaform."
"""All labels that begin so are Mesaform's; those of other names are problems."""

CAPACITY_TYPES = ("spot", "on-demand")
"""Values of the agents' attribute `LIFECYCLE`."""

LIFECYCLE = "lifecycle"
INSTANCE_TYPE = "instance_type"

MOST_TYPES = 20
MOST_WAIT_S = 30 * 86_400.0
_TYPE = re.compile(r"[a-z][a-z0-9-]{0,30}\.[a-z0-9-]{1,30}")

Problem = tuple[str, str]
"""A label, and what is wrong with its value."""


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """What the labels of some work ask for.

    `constraints` are those that they stand for, `max_wait_s` is 0 without a wait. `stated` are the
    labels as text. A label with a problem asks for nothing.
    """

    constraints: tuple[Constraint, ...] = ()
    max_wait_s: float = 0.0
    stated: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def problem(self) -> str:
        """The first problem as a text; empty without one."""
        return next((f"label {label} {problem}" for label, problem in self.problems), "")

    def joined(self, other: TaskLabels) -> TaskLabels:
        """These labels and those of a part of the work, whose wait counts if it states one."""
        return TaskLabels(
            self.constraints + other.constraints,
            other.max_wait_s or self.max_wait_s,
            tuple(dict.fromkeys(self.stated + other.stated)),
            self.problems + other.problems,
        )


NO_LABELS = TaskLabels()


def read_labels(labels: Mapping[str, str]) -> TaskLabels:
    """What labels ask for; labels of other programs are skipped."""
    own = {name: labels[name] for name in sorted(labels) if _is_own(name)}
    if not own:
        return NO_LABELS
    problems = tuple(_problems(own))
    valid = _without(own, {label for label, _ in problems})
    wait = valid.get(MAX_WAIT_LABEL)
    return TaskLabels(
        tuple(_constraints(valid)),
        parse_duration_s(wait) if wait else 0.0,
        tuple(f"{name}={value}" for name, value in valid.items()),
        problems,
    )


def _without(labels: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name not in names}


def constraint_parts(labels: Mapping[str, str]) -> list[list[str]]:
    """The constraints that labels stand for, in the form that an app states constraints in."""
    return [[rule.field, rule.operator, rule.value] for rule in read_labels(labels).constraints]


def _is_own(name: str) -> bool:
    return name.startswith(PREFIX) or name == ARCH_LABEL


def _constraints(labels: Mapping[str, str]) -> Iterator[Constraint]:
    types = _types(labels.get(INSTANCE_TYPE_LABEL, ""))
    if len(types) == 1:
        yield Constraint(INSTANCE_TYPE, "IS", types[0])
    elif types:
        yield Constraint(INSTANCE_TYPE, "LIKE", "|".join(map(re.escape, types)))
    if capacity := labels.get(CAPACITY_TYPE_LABEL):
        yield Constraint(LIFECYCLE, "IS", capacity)
    if architecture := labels.get(ARCHITECTURE_LABEL) or labels.get(ARCH_LABEL):
        yield Constraint(ARCH, "IS", architecture)


def _types(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _problems(labels: Mapping[str, str]) -> Iterator[Problem]:
    checks = {
        INSTANCE_TYPE_LABEL: _types_problem,
        CAPACITY_TYPE_LABEL: lambda value: _choice_problem(value, CAPACITY_TYPES),
        ARCHITECTURE_LABEL: lambda value: _choice_problem(value, ARCHITECTURES),
        ARCH_LABEL: lambda value: _choice_problem(value, ARCHITECTURES),
        MAX_WAIT_LABEL: _wait_problem,
    }
    for name, value in labels.items():
        check = checks.get(name)
        problem = check(value) if check else f"is not known; there are {_known()}"
        if problem:
            yield name, problem
    if len({labels.get(ARCHITECTURE_LABEL), labels.get(ARCH_LABEL)} - {None}) > 1:
        yield ARCHITECTURE_LABEL, f"differs from the label {ARCH_LABEL}"


def _known() -> str:
    names = (INSTANCE_TYPE_LABEL, CAPACITY_TYPE_LABEL, ARCHITECTURE_LABEL, MAX_WAIT_LABEL)
    return ", ".join(names)


def _types_problem(value: str) -> str:
    types = _types(value)
    if not types or len(types) > MOST_TYPES:
        return f"must name 1 to {MOST_TYPES} instance types"
    for name in types:
        if _TYPE.fullmatch(name) is None:
            return f"must name instance types such as c5.large, not {name[:60]!r}"
    return ""


def _choice_problem(value: str, choices: tuple[str, ...]) -> str:
    return "" if value in choices else f"must be one of {', '.join(choices)}, not {value[:60]!r}"


def _wait_problem(value: str) -> str:
    try:
        seconds = parse_duration_s(value[:60])
    except BadInput:
        return f"must be a duration such as 90s, 10m or 1h30m, not {value[:60]!r}"
    if not math.isfinite(seconds) or seconds > MOST_WAIT_S:
        return f"must be at most {MOST_WAIT_S / 86_400:g} d, not {value[:60]!r}"
    return ""
