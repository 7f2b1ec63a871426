"""From a fractional solution to whole machines: branch and bound, or diving with a first fit.

Depends on `columns` and `patterns`; SciPy's HiGHS solves the integer programme.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mesaform.autoscaler.packing.columns import (
    Columns,
    Relaxation,
    generate_columns,
    initial_columns,
)
from mesaform.autoscaler.packing.model import Effort, EffortBudget, Floats, Ints, Limits
from mesaform.autoscaler.packing.patterns import fill_patterns, row_orders, useful_kinds
from mesaform.autoscaler.packing.problem import Problem, demand_share

if TYPE_CHECKING:
    from scipy.optimize import LinearConstraint

Machines = list[tuple[int, Ints, int]]
"""Kind, load and how many."""

ROUND_UP, NEARLY_WHOLE, AT_ONCE = 0.5, 0.9, 0.25
"""Least fraction of a machine that a dive rounds up, for at most a quarter of all machines."""

SINGLE_KINDS = 8
SINGLE_KINDS_WORK = 1_000
"""How many first fits prefer one kind, and up to which size (kinds times rows) of a problem."""

USUAL_WORTH = 0.2
"""Weight of the requested resources in addition to a proven price, which may be zero."""

COLUMNS_FOR_WHOLE = 1_500
COLUMNS_KEPT = 400
ROWS_FOR_WHOLE = 60
GAP_OF_BRANCH = 1e-7


def cost_of(problem: Problem, machines: Machines) -> float:
    return float(sum(problem.usd_per_hour[kind] * count for kind, _, count in machines))


def served(problem: Problem, machines: Machines) -> Ints:
    """How many pieces of each row the machines hold, of those that are wanted."""
    held = sum((load * count for _, load, count in machines), np.zeros_like(problem.wanted))
    return np.minimum(held, problem.wanted)


def is_complete(problem: Problem, machines: Machines) -> bool:
    return bool((served(problem, machines) == problem.wanted).all())


def first_fit(
    problem: Problem,
    left: Ints,
    limits: Limits,
    value: Floats | None = None,
    prefer: int | None = None,
    work: EffortBudget | None = None,
) -> Machines:
    """Buy the most value per dollar repeatedly, within the limits; kind `prefer` first.

    `value` is what a piece of each row is worth.
    """
    left, limits, machines = left.copy(), limits.copy(), Machines()
    value = (
        demand_share(problem.shapes, problem.wanted) if value is None else np.maximum(value, 1e-12)
    )
    ways = row_orders(problem, value)[: 3 if problem.row_limits.size <= SINGLE_KINDS_WORK else 1]
    useful = np.isin(np.arange(problem.usd_per_hour.size), useful_kinds(problem))
    while left.any():
        allowed = _allowed(problem, limits)
        kinds = np.flatnonzero((allowed > 0) & useful)
        preferred = kinds[kinds == prefer] if prefer is not None else kinds
        best = _densest(problem, ways, left, preferred, value) or _densest(
            problem, ways, left, kinds, value
        )
        if best is None:
            break
        kind, load = best
        if work is not None:
            work.spend(len(ways) * kinds.size * left.size)
        held = load > 0
        count = max(1, min(int(allowed[kind]), int((left[held] // load[held]).min())))
        machines.append((kind, load, count))
        left -= load * count
        _take(problem, limits, kind, count)
    return machines


def _densest(
    problem: Problem, ways: list[Ints], left: Ints, kinds: Ints, value: Floats
) -> tuple[int, Ints] | None:
    """The kind that serves most per dollar, and what it would hold; of equals the cheapest."""
    if not kinds.size:
        return None
    loads = fill_patterns(problem, ways, left, kinds)
    score = np.round((loads @ value) / np.maximum(problem.usd_per_hour[kinds], 1e-9), 12)
    way, at = np.unravel_index(
        int(np.lexsort((np.tile(problem.usd_per_hour[kinds], len(ways)), -score.ravel()))[0]),
        score.shape,
    )
    return (int(kinds[at]), loads[way, at]) if loads[way, at].any() else None


def first_fits(problem: Problem, limits: Limits, work: EffortBudget) -> list[Machines]:
    """Run first fits by requested size, by least cost and, for small problems, per good kind."""
    value = demand_share(problem.shapes, problem.wanted)
    usual = value * (problem.bound / float(value @ problem.wanted))
    answers = [
        first_fit(problem, problem.wanted, limits, w, work=work)
        for w in (None, problem.lower_prices + USUAL_WORTH * usual)
    ]
    if problem.row_limits.size > SINGLE_KINDS_WORK or problem.usd_per_hour.size < 2:
        return answers
    served = fill_patterns(problem, row_orders(problem, value)[:1], problem.wanted)[0] @ value
    promising = np.argsort(-served / np.maximum(problem.usd_per_hour, 1e-9), kind="stable")[
        :SINGLE_KINDS
    ]
    largest = np.argsort(-served, kind="stable")[:1]
    return answers + [
        first_fit(problem, problem.wanted, limits, prefer=int(k), work=work)
        for k in dict.fromkeys([*promising, *largest])
    ]


def _allowed(problem: Problem, limits: Limits) -> Ints:
    """How many of each kind may still be bought."""
    slots = np.zeros(problem.usd_per_hour.size, dtype=np.int64)
    for pool, kinds in problem.in_pools.items():
        slots[kinds] = limits.slots.get(pool, 0)
    if limits.usd_per_hour is None:
        return slots
    affordable = np.floor(
        (limits.usd_per_hour + 1e-9) / np.maximum(problem.usd_per_hour, 1e-9)
    ).astype(np.int64)
    return np.where(problem.usd_per_hour > 0, np.minimum(slots, np.maximum(affordable, 0)), slots)


def _take(problem: Problem, limits: Limits, kind: int, count: int) -> None:
    limits.slots[problem.pools[kind]] -= count
    if limits.usd_per_hour is not None:
        limits.usd_per_hour -= float(problem.usd_per_hour[kind]) * count


def dive(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxation,
    limits: Limits,
    effort: Effort,
    work: EffortBudget,
) -> Machines:
    """Whole machines from a fractional solution.

    Takes the columns with large counts, generates columns for the rest, and repeats; ends with a
    first fit at the last dual prices.
    """
    kinds, patterns = columns.matrix()
    left, limits, machines = problem.wanted.copy(), limits.copy(), Machines()
    few = replace(effort, rounds=effort.refills, kinds=0)
    for _ in range(effort.dives):
        taken = _columns_to_take(patterns, relaxed.column_counts, left) if left.any() else []
        left = _take_columns(problem, (kinds, patterns), taken, left, limits, machines)
        if not taken or not left.any() or work.is_spent:
            break
        rest = problem.with_demand(left)
        begin = _columns_for(rest, kinds, patterns, relaxed)
        outcome = generate_columns(rest, begin, limits.slots, few, np.inf, work)
        if outcome.relaxed is None:
            break
        relaxed = outcome.relaxed
        kinds, patterns = outcome.columns.matrix()
    if left.any():
        machines += first_fit(problem, left, limits, np.maximum(relaxed.dual_prices, 1e-9))
    return machines


def _take_columns(
    problem: Problem,
    columns: tuple[Ints, Ints],
    taken: list[tuple[int, int]],
    left: Ints,
    limits: Limits,
    machines: Machines,
) -> Ints:
    """Add the taken columns to `machines` within `limits`, both changed; returns what is left."""
    kinds, patterns = columns
    for column, wanted in taken:
        count = min(wanted, int(_allowed(problem, limits)[kinds[column]]))
        pattern = np.minimum(patterns[column], left)
        if count < 1 or not pattern.any():
            continue
        machines.append((int(kinds[column]), pattern, count))
        left = np.maximum(left - pattern * count, 0)
        _take(problem, limits, int(kinds[column]), count)
    return left


def _columns_for(rest: Problem, kinds: Ints, loads: Ints, relaxed: Relaxation) -> Columns:
    """Loads found before, cut to what is left, the most useful ones; and each row alone."""
    cut = np.minimum(loads, rest.wanted)
    ratio = (cut @ relaxed.dual_prices) / np.maximum(rest.usd_per_hour[kinds], 1e-12)
    columns = initial_columns(rest)
    for column in np.argsort(-ratio, kind="stable")[:COLUMNS_KEPT]:
        columns.add(int(kinds[column]), cut[column])
    return columns


def _columns_to_take(patterns: Ints, counts: Floats, left: Ints) -> list[tuple[int, int]]:
    """Columns and machines to take now: whole parts, else nearly whole ones, else the fullest."""
    whole = np.floor(counts + 1e-6).astype(np.int64)
    if whole.any():
        return [(int(c), _useful(patterns[c], left, int(whole[c]))) for c in np.flatnonzero(whole)]
    return [(column, 1) for column in _fullest_columns(counts)]


def _fullest_columns(counts: Floats) -> list[int]:
    """Columns with large fractional counts, in falling order; a quarter of all machines at most."""
    order = np.argsort(-counts, kind="stable")
    large = [int(c) for c in order if counts[c] >= ROUND_UP]
    large = large or [int(c) for c in order[:1] if counts[c] > 1e-9]
    nearly_whole = sum(1 for c in large if counts[c] > NEARLY_WHOLE)
    return large[: max(1, int(counts.sum() * AT_ONCE), nearly_whole)]


def _useful(load: Ints, left: Ints, count: int) -> int:
    """No more machines than there is work to fill."""
    held = load > 0
    return max(1, min(count, int((left[held] // load[held]).min()))) if held.any() else 0


@dataclass(frozen=True, slots=True)
class Branched:
    """Best integral solution over some loads.

    No solution over all loads costs less than `bound`.
    """

    machines: Machines
    bound: float


def branch(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxation,
    limits: Limits,
    effort: Effort,
    incumbent: float,
) -> Branched | None:
    """Solve with HiGHS, first without the limits; None without a solution or for large problems."""
    kinds, loads = columns.matrix()
    reduced = problem.usd_per_hour[kinds] + relaxed.scarcity[kinds] - loads @ relaxed.dual_prices
    room = max(0.0, incumbent - relaxed.value) + 1e-9
    chosen = np.flatnonzero(reduced <= room)
    if chosen.size > COLUMNS_FOR_WHOLE:
        chosen = np.sort(np.argsort(reduced, kind="stable")[:COLUMNS_FOR_WHOLE])
    if problem.wanted.size > ROWS_FOR_WHOLE or not chosen.size:
        return None
    solution = _whole_programme(problem, kinds[chosen], loads[chosen], None, effort)
    if solution is not None and not _within(problem, solution.machines, limits):
        kept = _whole_programme(problem, kinds[chosen], loads[chosen], limits, effort)
        return None if kept is None else Branched(kept.machines, solution.bound)
    return solution


def _within(problem: Problem, machines: Machines, limits: Limits) -> bool:
    many = all(
        sum(count for kind, _, count in machines if problem.pools[kind] == pool)
        <= limits.slots.get(pool, 0)
        for pool in set(problem.pools)
    )
    return many and (
        limits.usd_per_hour is None or cost_of(problem, machines) <= limits.usd_per_hour + 1e-9
    )


def _whole_programme(
    problem: Problem, kinds: Ints, patterns: Ints, limits: Limits | None, effort: Effort
) -> Branched | None:
    """The integer programme over these patterns, solved by HiGHS; None if it finds no solution."""
    from scipy.optimize import Bounds, milp

    answer = milp(
        problem.usd_per_hour[kinds],
        integrality=np.ones(kinds.size),
        bounds=Bounds(0, np.inf),
        constraints=_programme_rules(problem, kinds, patterns, limits),
        options={"node_limit": effort.nodes, "mip_rel_gap": GAP_OF_BRANCH},
    )
    if answer.x is None:
        return None
    counts = np.round(answer.x).astype(np.int64)
    machines = [(int(kinds[c]), patterns[c], int(counts[c])) for c in np.flatnonzero(counts)]
    return Branched(machines, float(answer.mip_dual_bound))


def _programme_rules(
    problem: Problem, kinds: Ints, patterns: Ints, limits: Limits | None
) -> list[LinearConstraint]:
    """Demand of each row; with limits also the slots of each pool and the dollars."""
    from scipy.optimize import LinearConstraint

    demand = problem.wanted.astype(np.float64)
    rules = [LinearConstraint(patterns.T.astype(np.float64), lb=demand)]
    if limits is None:
        return rules
    for pool in sorted(set(problem.pools)):
        in_pool = np.array([[problem.pools[k] == pool for k in kinds]], dtype=np.float64)
        rules.append(LinearConstraint(in_pool, ub=float(limits.slots.get(pool, 0))))
    if limits.usd_per_hour is not None:
        usd = problem.usd_per_hour[kinds][None, :]
        rules.append(LinearConstraint(usd, ub=limits.usd_per_hour + 1e-9))
    return rules
