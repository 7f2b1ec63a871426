"""The whole of packing: parts, problem, first fit, columns, whole machines, and the better of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mesaform.autoscaler.model.constraints import Usage
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.packing.bounds import with_bound_dimensions
from mesaform.autoscaler.packing.columns import Columns, Outcome, generate_columns, initial_columns
from mesaform.autoscaler.packing.integral import (
    Machines,
    branch,
    cost_of,
    dive,
    first_fit,
    first_fits,
    is_complete,
    served,
)
from mesaform.autoscaler.packing.materialize import (
    OpenNode,
    dissolve,
    materialize,
    new_nodes,
    right_size,
)
from mesaform.autoscaler.packing.model import (
    GOOD_ENOUGH,
    USUAL,
    Effort,
    EffortBudget,
    Limits,
    Method,
    NewNode,
    Packing,
    Template,
)
from mesaform.autoscaler.packing.partition import Part, partition
from mesaform.autoscaler.packing.patterns import is_small
from mesaform.autoscaler.packing.problem import Problem, build, demand_share

EVERY_ROW = 1_000_000


def solve(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    templates: Sequence[Template],
    usage: Usage,
    limits: Limits,
    effort: Effort = USUAL,
) -> Packing:
    """The machines to buy for what is `left`, within `limits`: most work served first, then cheapest; with the proof of the price."""
    parts = partition(units, left, templates, usage)
    if not parts:
        return Packing()
    problem = with_bound_dimensions(build(parts, templates, rows_at_most=effort.rows), parts)
    if problem.is_empty:
        return Packing()
    work = EffortBudget(effort.budget)
    firsts = first_fits(problem, limits, work)
    found: list[_Found] = [("first fit", machines) for machines in firsts]
    bound, outcome = problem.bound, None
    usd = min(
        (cost_of(problem, machines) for machines in firsts if is_complete(problem, machines)),
        default=np.inf,
    )
    tolerance = PROVEN if is_small(problem, effort.patterns) else GOOD_ENOUGH
    if effort.rounds and usd > bound * (1 + tolerance):
        outcome = generate_columns(
            problem, _seeds(problem, firsts), limits.slots, effort, usd, work
        )
        more, proven = _wholes(problem, outcome, limits, effort, usd, work)
        found += more
        bound = max(bound, outcome.bound, proven)
    best, method = _best(parts, templates, problem, limits, found)
    if not best.is_complete:
        bound = sum(
            float(each) * (part.count - left)
            for each, part, left in zip(problem.lower_prices_by_part, parts, best.left, strict=True)
        )
    elif outcome is not None and outcome.is_complete and best.usd <= bound * (1 + PROVEN):
        method = "exact"
    nodes = tuple(new_nodes(best.drafts, parts, templates))
    return Packing(nodes, round(best.usd, 9), min(bound, best.usd), method, cut_short=work.is_spent)


def pack(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    templates: Sequence[Template],
    usage: Usage,
    limits: Limits,
) -> list[NewNode]:
    """The machines of `solve` alone."""
    return list(solve(units, left, templates, usage, limits).nodes)


@dataclass(slots=True)
class _Answer:
    """Real machines, from which loads they came, and what they leave of each part."""

    machines: Machines
    drafts: list[OpenNode]
    left: list[int]
    usd: float
    served: float

    @property
    def is_complete(self) -> bool:
        return not any(self.left)


def _quality(answer: _Answer) -> tuple[float, float, int]:
    return (-round(answer.served, 9), round(answer.usd, 9), len(answer.drafts))


def _answer(
    parts: Sequence[Part],
    templates: Sequence[Template],
    problem: Problem,
    limits: Limits,
    machines: Machines,
) -> _Answer:
    """Machines made real, with what merging lost bought on top, right-sized."""
    drafts, left = materialize(problem, parts, templates, machines)
    if problem.is_merged and any(left):
        rest = [
            replace(part, count=count) for part, count in zip(parts, left, strict=True) if count
        ]
        whose = [index for index, count in enumerate(left) if count]
        exact = build(rest, templates, rows_at_most=EVERY_ROW)
        bought = limits.copy()
        for draft in drafts:
            bought.take(templates[draft.template], 1)
        more, remaining = materialize(
            exact, rest, templates, first_fit(exact, exact.wanted, bought)
        )
        for draft in more:
            draft.load = {whose[index]: count for index, count in draft.load.items()}
        drafts += more
        for index, count in zip(whose, remaining, strict=True):
            left[index] = count
    drafts = dissolve(drafts, parts, templates)
    right_size(drafts, templates)
    value = _worth_of_parts(problem, len(parts))
    served = sum(
        value[index] * (part.count - count)
        for index, (part, count) in enumerate(zip(parts, left, strict=True))
    )
    return _Answer(
        machines,
        drafts,
        left,
        sum(templates[draft.template].usd_per_hour for draft in drafts),
        float(served),
    )


def _worth_of_parts(problem: Problem, count: int) -> list[float]:
    value, each = demand_share(problem.shapes, problem.wanted), [0.0] * count
    for row, indices in enumerate(problem.parts):
        for index in indices:
            each[index] = float(value[row])
    return each


_Found = tuple[Method, Machines]

PROVEN = 1e-6
"""How much above its bound an answer may be for want of exact arithmetic."""

WORTH_A_LOOK, FEW_MACHINES = 1.03, 20
"""Answers that cost this much more than the cheapest before they are made real are not; but all of few machines are."""


def _best(
    parts: Sequence[Part],
    templates: Sequence[Template],
    problem: Problem,
    limits: Limits,
    found: list[_Found],
) -> tuple[_Answer, Method]:
    """The best of several answers once made real, and its method; those that look worse by much are left out."""
    value = demand_share(problem.shapes, problem.wanted)
    looks = [
        (-round(float(served(problem, machines) @ value), 9), cost_of(problem, machines))
        for _, machines in found
    ]
    most, cheapest = min(looks)
    many = [sum(count for _, _, count in machines) for _, machines in found]
    chosen = [
        (number, found[number])
        for number, (look, usd) in enumerate(looks)
        if look == most and (usd <= cheapest * WORTH_A_LOOK or many[number] <= FEW_MACHINES)
    ]
    answers = [
        (_answer(parts, templates, problem, limits, machines), number, method)
        for number, (method, machines) in chosen
    ]
    best, _, method = min(answers, key=lambda answer: (_quality(answer[0]), answer[1]))
    return best, method


def _seeds(problem: Problem, firsts: list[Machines]) -> Columns:
    """Loads to begin with: those of the first fits, and each row alone."""
    columns = initial_columns(problem)
    for machines in firsts:
        for kind, load, _ in machines:
            columns.add(kind, load)
    return columns


def _wholes(
    problem: Problem,
    outcome: Outcome,
    limits: Limits,
    effort: Effort,
    usd: float,
    work: EffortBudget,
) -> tuple[list[_Found], float]:
    """Whole answers from the fractional one, and what they prove; `usd` is the price of the best so far."""
    if outcome.relaxed is None:
        return [], 0.0
    found: list[_Found] = []
    if not outcome.is_complete:
        machines = dive(problem, outcome.columns, outcome.relaxed, limits, effort, work)
        found.append(("columns", machines))
        usd = min(usd, cost_of(problem, machines)) if is_complete(problem, machines) else usd
    if not outcome.is_complete and (usd <= outcome.bound * (1 + GOOD_ENOUGH) or work.is_spent):
        return found, 0.0
    whole = branch(problem, outcome.columns, outcome.relaxed, limits, effort, usd)
    if whole is None:
        return found, 0.0
    return [*found, ("columns", whole.machines)], whole.bound if outcome.is_complete else 0.0
