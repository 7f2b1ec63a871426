"""Linear programme over loads with column generation. Its value bounds every plan from below.

HiGHS solves the programme. Loads come from filling all kinds at once, and from branch and bound
where filling yields none. The bound is valid at any time: prices of pieces are scaled down until no
load of any kind is worth more than its machine (Farley).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mesaform.autoscaler.packing.model import Effort, EffortBudget, Floats, Ints
from mesaform.autoscaler.packing.patterns import (
    PatternBound,
    enumerate_patterns,
    fill_patterns,
    pattern_bound,
    row_orders,
    row_orders_at_prices,
    useful_kinds,
)
from mesaform.autoscaler.packing.problem import Problem
from mesaform.autoscaler.packing.search import best_load

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

TINY = 1e-7
SMOOTHING = 0.3
"""Weight of the best proven prices in the search for loads. Unstable prices yield useless loads."""

FEW = 8
"""Least new loads per round. Below it better dimension prices and then loads are searched."""

CLOSED = 0.002
"""The programme is within this part of the bound: more loads hardly help, rounding costs more."""

STALLED = 4
"""Rounds without progress that end the work."""

RELAXING, CEILING, SEARCHING = 4, 8, 10
"""What a step costs in units of work for each cell that it looks at."""

CLOSE_ENOUGH = 0.0005
"""Least improvement of a load as a part of its machine's price."""


@dataclass(slots=True)
class Columns:
    """Loads found so far, each with its kind."""

    kinds: list[int] = field(default_factory=list)
    patterns: list[Ints] = field(default_factory=list)
    seen: set[tuple[int, bytes]] = field(default_factory=set)

    def add(self, kind: int, load: Ints) -> bool:
        """False when it is there already or holds nothing."""
        key = (int(kind), load.tobytes())
        if key in self.seen or not load.any():
            return False
        self.seen.add(key)
        self.kinds.append(int(kind))
        self.patterns.append(load)
        return True

    def matrix(self) -> tuple[Ints, Ints]:
        return np.array(self.kinds, dtype=np.int64), np.array(
            self.patterns, dtype=np.int64
        ).reshape(len(self.patterns), -1)

    def keep(self, chosen: Iterable[int]) -> None:
        """Forget all others."""
        kept = list(chosen)
        self.kinds = [self.kinds[i] for i in kept]
        self.patterns = [self.patterns[i] for i in kept]
        self.seen = {
            (kind, load.tobytes()) for kind, load in zip(self.kinds, self.patterns, strict=True)
        }


def initial_columns(problem: Problem) -> Columns:
    """Loads to begin with: each row alone on the kind that holds it cheapest."""
    columns = Columns()
    price = np.where(
        problem.row_limits > 0,
        problem.usd_per_hour[:, None] / np.maximum(problem.row_limits, 1),
        np.inf,
    )
    for row, kind in enumerate(price.argmin(axis=0)):
        load = np.zeros_like(problem.wanted)
        load[row] = problem.row_limits[kind, row]
        columns.add(int(kind), load)
    return columns


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Solution of the programme: the use of each column and the price of a piece of each row."""

    column_counts: Floats
    dual_prices: Floats
    scarcity: Floats  # K: by how much the pool's max makes a machine dearer
    value: float


def solve_relaxation(
    problem: Problem, kinds: Ints, loads: Ints, wanted: Ints, slots: Mapping[str, int]
) -> Relaxation | None:
    """Solve the programme for `wanted` over these columns; None if HiGHS cannot."""
    from scipy.optimize import linprog

    rows, most = wanted.size, problem.usd_per_hour.max() * 20
    pools = sorted(
        {problem.pools[k] for k in kinds if slots.get(problem.pools[k], 0) < wanted.sum()}
    )
    bounds = np.concatenate(
        [-wanted.astype(np.float64), [float(slots.get(pool, 0)) for pool in pools]]
    )
    cost = np.concatenate([problem.usd_per_hour[kinds], np.full(rows, most)])
    answer = linprog(
        cost,
        A_ub=_programme_matrix(problem, kinds, loads, pools),
        b_ub=bounds,
        bounds=(0, None),
        method="highs",
    )
    if answer.status != 0:
        return None
    marginals = -np.asarray(answer.ineqlin.marginals, dtype=np.float64)
    dear = dict(zip(pools, marginals[rows:], strict=True))
    scarcity = np.array([dear.get(pool, 0.0) for pool in problem.pools])
    return Relaxation(
        np.asarray(answer.x[: len(kinds)]),
        np.maximum(marginals[:rows], 0.0),
        scarcity,
        float(answer.fun),
    )


def _programme_matrix(
    problem: Problem, kinds: Ints, loads: Ints, pools: Sequence[str]
) -> csc_matrix:
    """The left side of the programme: what columns and missing pieces serve, and pools' members.

    It is assembled from its nonzero values: joining matrices takes longer than to solve them.
    """
    from scipy.sparse import csc_matrix

    columns, rows = loads.shape
    column, row = np.nonzero(loads)
    entries = [(row, column, -loads[column, row])]
    entries.append((np.arange(rows), columns + np.arange(rows), np.full(rows, -1)))
    for number, pool in enumerate(pools):
        members = np.flatnonzero(np.isin(kinds, problem.in_pools[pool]))
        ones = np.ones(members.size, dtype=np.int64)
        entries.append((ones * (rows + number), members, ones))
    at, of, value = (np.concatenate(part) for part in zip(*entries, strict=True))
    shape = (rows + len(pools), columns + rows)
    return csc_matrix((value.astype(np.float64), (at, of)), shape=shape)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of column generation. `is_complete`: the columns include every useful load."""

    columns: Columns
    relaxed: Relaxation | None
    bound: float
    is_complete: bool = False


def generate_columns(
    problem: Problem,
    columns: Columns,
    slots: Mapping[str, int],
    effort: Effort,
    incumbent: float,
    work: EffortBudget | None = None,
) -> Outcome:
    """Add patterns until none improves the relaxation.

    Ends earlier when the lower bound meets the relaxation's value or the price of the incumbent,
    or when `effort` or `work` is spent. Few patterns are enumerated instead: the outcome is
    complete then.
    """
    work = work or EffortBudget(effort.budget)
    every = enumerate_patterns(problem, effort.patterns) if problem.is_proof else None
    if every is not None:
        for kind, pattern in zip(*every, strict=True):
            columns.add(kind, pattern)
    if not columns.patterns:  # no machine holds any of it
        return Outcome(columns, None, problem.bound)
    if every is not None:
        relaxed = solve_relaxation(problem, *columns.matrix(), problem.wanted, slots)
        return Outcome(columns, relaxed, _bound_of_all(problem, *every, relaxed), is_complete=True)
    return _generate_in_rounds(problem, columns, slots, effort, incumbent, work)


def _generate_in_rounds(
    problem: Problem,
    columns: Columns,
    slots: Mapping[str, int],
    effort: Effort,
    incumbent: float,
    work: EffortBudget,
) -> Outcome:
    """Rounds of solving the relaxation and adding patterns that improve it."""
    proof, relaxed = _Proof(problem.lower_prices, problem.bound, problem.price_directions), None
    values: list[float] = []
    for number in range(effort.rounds):
        work.spend(RELAXING * len(columns.kinds) * problem.wanted.size)
        relaxed = solve_relaxation(problem, *columns.matrix(), problem.wanted, slots)
        if relaxed is None or min(relaxed.value, incumbent) - proof.bound <= CLOSED * proof.bound:
            break
        values.append(relaxed.value)
        is_last = number == effort.rounds - 1 or work.is_spent or _stalled(values)
        if is_last or not _round(problem, columns, relaxed, proof, effort, work):
            break
    return Outcome(columns, relaxed, proof.bound)


@dataclass(slots=True)
class _Proof:
    """Best proven piece prices, their bound, and the dimension prices for the search."""

    prices: Floats
    bound: float
    price_directions: Floats


def _stalled(values: list[float]) -> bool:
    return len(values) > STALLED and values[-1 - STALLED] - values[-1] < CLOSE_ENOUGH * values[-1]


def _round(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxation,
    proof: _Proof,
    effort: Effort,
    work: EffortBudget,
) -> int:
    """Add loads that improve the programme, by filling or by search; return their number."""
    smooth = SMOOTHING * proof.prices + (1 - SMOOTHING) * relaxed.dual_prices
    added = 0
    for worth in (smooth, relaxed.dual_prices):
        added = added or _grow(
            problem, columns, relaxed, _fill_orders(problem, worth, proof), effort, work
        )
    if not effort.kinds or added >= FEW:
        return added
    top = pattern_bound(problem, relaxed.dual_prices)
    work.spend(CEILING * problem.row_limits.size)
    proof.price_directions, value = (
        np.concatenate([problem.price_directions, top.price_directions]),
        top.value,
    )
    order = _fill_orders(problem, relaxed.dual_prices, proof)
    added += _grow(problem, columns, relaxed, order, effort, work)
    if added < FEW:
        more, value = _search(problem, columns, relaxed, top, effort, work)
        added += more
    proven = scaled(problem, relaxed.dual_prices, value)
    if problem.is_proof and proven @ problem.wanted > proof.bound:
        proof.bound, proof.prices = float(proven @ problem.wanted), proven
    return added


def scaled(problem: Problem, worth: Floats, value: Floats) -> Floats:
    """Prices of pieces so low that no load is worth more than its machine."""
    ratio = np.divide(
        problem.usd_per_hour, value, out=np.ones_like(problem.usd_per_hour), where=value > 0
    )
    return worth * min(1.0, float(ratio.min(initial=1.0)))


def _bound_of_all(problem: Problem, kinds: Ints, loads: Ints, relaxed: Relaxation | None) -> float:
    """Return the bound with every load known: the value without pool limits, less rounding."""
    if relaxed is None:
        return problem.bound
    value = np.zeros(problem.usd_per_hour.size)
    np.maximum.at(value, kinds, loads @ relaxed.dual_prices)
    return max(problem.bound, float(scaled(problem, relaxed.dual_prices, value) @ problem.wanted))


def _search(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxation,
    top: PatternBound,
    effort: Effort,
    work: EffortBudget,
) -> tuple[int, Floats]:
    """Search loads that improve the programme; return them and each kind's least ceiling."""
    price, worth = problem.usd_per_hour + relaxed.scarcity, relaxed.dual_prices
    value, added = top.value.copy(), 0
    ratio = value / np.maximum(price, 1e-12)
    for k in np.argsort(-ratio, kind="stable")[: effort.kinds]:
        if ratio[k] <= 1.0 + CLOSE_ENOUGH or work.is_spent:
            break
        work.spend(SEARCHING * effort.states * problem.wanted.size)
        result = best_load(
            problem,
            int(k),
            worth,
            top.prices[k],
            float(price[k]) * (1 + CLOSE_ENOUGH),
            effort.states,
        )
        value[k] = result.ceiling
        if result.load is not None and result.load @ relaxed.dual_prices > price[k] * (1 + TINY):
            added += columns.add(int(k), result.load)
    return added, value


def _fill_orders(problem: Problem, worth: Floats, proof: _Proof) -> list[Ints]:
    """Return the orders of rows to fill loads in: two by worth, some at the proof's prices."""
    directions = proof.price_directions
    return [
        *row_orders(problem, worth)[:2],
        *row_orders_at_prices(problem, worth, directions[:: max(1, len(directions) // 4)]),
    ]


def _grow(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxation,
    order: list[Ints],
    effort: Effort,
    work: EffortBudget,
) -> int:
    """Add improving loads that fit together: each uses what the earlier ones leave.

    `order` are the orders of rows that loads are filled in.
    """
    price, kinds = problem.usd_per_hour + relaxed.scarcity, useful_kinds(problem)
    left, added = problem.wanted.copy(), 0
    for _ in range(effort.fills):
        work.spend(len(order) * kinds.size * left.size)
        loads = fill_patterns(problem, order, left, kinds).reshape(-1, left.size)
        ratio = loads @ relaxed.dual_prices / np.tile(np.maximum(price[kinds], 1e-12), len(order))
        before = added
        for at in np.argsort(-ratio, kind="stable")[: int((ratio > 1 + TINY).sum())]:
            held = loads[at] > 0
            often = int((left[held] // loads[at][held]).min())
            if often:
                left = left - loads[at] * often
                added += columns.add(int(kinds[at % kinds.size]), loads[at])
        if added == before or not left.any():
            break
    return added
