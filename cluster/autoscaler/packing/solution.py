"""Packing from demand to machines: partition, problem, first fit, columns, whole solutions.

Depends on the other modules of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

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
from mesaform.placement.constraints import InstanceCounts

EVERY_ROW = 1_000_000
INPUTS_AT_MOST = 16
"""Inputs whose packings are kept. Demand that limits leave waiting is the same in the next pass."""


def solve(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    templates: Sequence[Template],
    usage: InstanceCounts,
    limits: Limits,
    effort: Effort = USUAL,
) -> Packing:
    """The machines to buy for the pieces that are `left`, with a lower bound on the price.

    Within `limits` the plan serves as much demand as possible, then costs as little as possible.
    `left` and the result's loads are by index of `units`.
    """
    parts = partition(units, left, templates, usage)
    if not parts:
        return Packing()
    slots = tuple(sorted(limits.slots.items()))
    packing = _solve(_Input(tuple(parts), tuple(templates), slots, limits.usd_per_hour, effort))
    nodes = tuple(NewNode(node.template, dict(node.load), node.used) for node in packing.nodes)
    return replace(packing, nodes=nodes)


@dataclass(frozen=True, slots=True)
class _Input:
    """All that a packing depends on. Equal inputs have equal packings."""

    parts: tuple[Part, ...]
    templates: tuple[Template, ...]
    slots: tuple[tuple[str, int], ...]
    usd_per_hour: float | None
    effort: Effort

    def __hash__(self) -> int:
        return hash((self.parts, self.slots, self.usd_per_hour, self.effort))


@lru_cache(maxsize=INPUTS_AT_MOST)
def _solve(given: _Input) -> Packing:
    """Solve; the nodes of the result are shared between calls and must not be changed."""
    parts, templates, effort = given.parts, given.templates, given.effort
    limits = Limits(dict(given.slots), given.usd_per_hour)
    problem = with_bound_dimensions(build(parts, templates, rows_at_most=effort.rows), parts)
    if problem.is_empty:
        return Packing()
    work = EffortBudget(effort.budget)
    candidates, bound, outcome = _candidate_solutions(problem, limits, effort, work)
    best, method = _best(parts, templates, problem, limits, candidates)
    if not best.is_complete:
        bound = _bound_of_served(problem, parts, best)
    elif outcome is not None and outcome.is_complete and best.usd <= bound * (1 + PROVEN):
        method = "exact"
    nodes = tuple(new_nodes(best.open_nodes, parts, templates))
    return Packing(nodes, round(best.usd, 9), min(bound, best.usd), method, cut_short=work.is_spent)


def _candidate_solutions(
    problem: Problem, limits: Limits, effort: Effort, work: EffortBudget
) -> tuple[list[_Candidate], float, Outcome | None]:
    """Solutions in whole machines, a lower bound, and the outcome of column generation if run."""
    firsts = first_fits(problem, limits, work)
    candidates: list[_Candidate] = [("first fit", machines) for machines in firsts]
    complete = [machines for machines in firsts if is_complete(problem, machines)]
    usd = min((cost_of(problem, machines) for machines in complete), default=np.inf)
    bound = problem.bound
    tolerance = PROVEN if is_small(problem, effort.patterns) else GOOD_ENOUGH
    if not effort.rounds or usd <= bound * (1 + tolerance):
        return candidates, bound, None
    columns = _columns_of(problem, firsts)
    outcome = generate_columns(problem, columns, limits.slots, effort, usd, work)
    more, proven = _whole_solutions(problem, outcome, limits, effort, usd, work)
    return candidates + more, max(bound, outcome.bound, proven), outcome


def _bound_of_served(problem: Problem, parts: Sequence[Part], answer: _Answer) -> float:
    """What serving the pieces that the answer serves costs at least."""
    return sum(
        float(price) * (part.count - left)
        for price, part, left in zip(problem.lower_prices_by_part, parts, answer.left, strict=True)
    )


@dataclass(slots=True)
class _Answer:
    """Machines with their pieces, what they leave of each part, their price and served value."""

    open_nodes: list[OpenNode]
    left: list[int]
    usd: float
    served: float

    @property
    def is_complete(self) -> bool:
        return not any(self.left)


def _quality(answer: _Answer) -> tuple[float, float, int]:
    return (-round(answer.served, 9), round(answer.usd, 9), len(answer.open_nodes))


def _answer(
    parts: Sequence[Part],
    templates: Sequence[Template],
    problem: Problem,
    limits: Limits,
    machines: Machines,
) -> _Answer:
    """Machines made real, right-sized; what merging lost is bought in addition."""
    open_nodes, left = materialize(problem, parts, templates, machines)
    if problem.is_merged and any(left):
        open_nodes += _buy_remaining(parts, templates, limits, open_nodes, left)
    open_nodes = dissolve(open_nodes, parts, templates)
    right_size(open_nodes, templates)
    value = _values_by_part(problem, len(parts))
    served_value = sum(
        value[index] * (part.count - left[index]) for index, part in enumerate(parts)
    )
    usd = sum(templates[node.template].usd_per_hour for node in open_nodes)
    return _Answer(open_nodes, left, usd, float(served_value))


def _buy_remaining(
    parts: Sequence[Part],
    templates: Sequence[Template],
    limits: Limits,
    open_nodes: Sequence[OpenNode],
    left: list[int],
) -> list[OpenNode]:
    """Machines for the pieces in `left`, by first fit without merged rows; `left` is reduced."""
    indices = [index for index, count in enumerate(left) if count]
    rest = [replace(parts[index], count=left[index]) for index in indices]
    exact = build(rest, templates, rows_at_most=EVERY_ROW)
    still_allowed = limits.copy()
    for node in open_nodes:
        still_allowed.take(templates[node.template], 1)
    machines = first_fit(exact, exact.wanted, still_allowed)
    more, remaining = materialize(exact, rest, templates, machines)
    for node in more:
        node.load = {indices[position]: count for position, count in node.load.items()}
    for index, count in zip(indices, remaining, strict=True):
        left[index] = count
    return more


def _values_by_part(problem: Problem, count: int) -> list[float]:
    value, each = demand_share(problem.shapes, problem.wanted), [0.0] * count
    for row, indices in enumerate(problem.parts):
        for index in indices:
            each[index] = float(value[row])
    return each


_Candidate = tuple[Method, Machines]

PROVEN = 1e-6
"""Part by which an answer may exceed its bound because of floating-point arithmetic."""

WORTH_A_LOOK, FEW_MACHINES = 1.03, 20
"""Candidates above this multiple of the cheapest price are dropped unless they are small."""


def _best(
    parts: Sequence[Part],
    templates: Sequence[Template],
    problem: Problem,
    limits: Limits,
    candidates: list[_Candidate],
) -> tuple[_Answer, Method]:
    """The best candidate once its machines are real, and its method."""
    answers = [
        (_answer(parts, templates, problem, limits, candidates[number][1]), number)
        for number in _promising(problem, candidates)
    ]
    best, number = min(answers, key=lambda answer: (_quality(answer[0]), answer[1]))
    return best, candidates[number][0]


def _promising(problem: Problem, candidates: list[_Candidate]) -> list[int]:
    """Candidates that serve most and cost little more than the cheapest, or have few machines."""
    value = demand_share(problem.shapes, problem.wanted)
    previews = [
        (-round(float(served(problem, machines) @ value), 9), cost_of(problem, machines))
        for _, machines in candidates
    ]
    most, cheapest = min(previews)
    sizes = [sum(count for _, _, count in machines) for _, machines in candidates]
    return [
        number
        for number, (preview, usd) in enumerate(previews)
        if preview == most and (usd <= cheapest * WORTH_A_LOOK or sizes[number] <= FEW_MACHINES)
    ]


def _columns_of(problem: Problem, firsts: list[Machines]) -> Columns:
    """Loads to begin with: those of the first fits, and each row alone."""
    columns = initial_columns(problem)
    for machines in firsts:
        for kind, load, _ in machines:
            columns.add(kind, load)
    return columns


def _whole_solutions(
    problem: Problem,
    outcome: Outcome,
    limits: Limits,
    effort: Effort,
    usd: float,
    work: EffortBudget,
) -> tuple[list[_Candidate], float]:
    """Whole solutions from the fractional one, and a lower bound that they prove.

    `usd` is the price of the best solution so far.
    """
    if outcome.relaxed is None:
        return [], 0.0
    candidates: list[_Candidate] = []
    if not outcome.is_complete:
        machines = dive(problem, outcome.columns, outcome.relaxed, limits, effort, work)
        candidates.append(("columns", machines))
        usd = min(usd, cost_of(problem, machines)) if is_complete(problem, machines) else usd
        if usd <= outcome.bound * (1 + GOOD_ENOUGH) or work.is_spent:
            return candidates, 0.0
    whole = branch(problem, outcome.columns, outcome.relaxed, limits, effort, usd)
    if whole is None:
        return candidates, 0.0
    candidates.append(("columns", whole.machines))
    return candidates, whole.bound if outcome.is_complete else 0.0
