"""Loads (contents of a machine): greedy fills of all kinds, bounds of their value, and enumeration.

The value of a load is the sum of its pieces at given prices of pieces. `most[k, r]` bounds the
pieces of each row on each kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mesaform.autoscaler.packing.model import Floats, Ints
from mesaform.autoscaler.packing.problem import Problem

SAMPLE = 12
"""Kinds whose fractional loads are found exactly in each round."""

KINDS_FILLED = 64
"""Kinds that are filled in a round. More sizes add time and no new loads."""

CLOSE = 1e-9


def fill_patterns(
    problem: Problem, orders: Sequence[Ints], left: Ints, kinds: Ints | None = None
) -> Ints:
    """First fit of `left` into one machine of each kind, for each order of rows.

    The result has the shape orders x kinds x rows. All kinds and orders are filled at once. Free
    capacity is a float with 0.5 added, which is exact for these integers and faster than integers.
    """
    chosen = np.arange(problem.usd_per_hour.size) if kinds is None else kinds
    waiting = left > 0
    order = np.array([rows[waiting[rows]] for rows in orders], dtype=np.int64)
    asked = [d for d in problem.binding_dimensions if problem.shapes[waiting, d].any()]
    shapes = problem.shapes[:, asked].astype(np.float64)
    free = np.repeat((problem.sizes[chosen][:, asked].T + 0.5)[:, None, :], len(orders), axis=1)
    row_limits = np.minimum(problem.row_limits[chosen], left).T.astype(np.float64)
    patterns = np.zeros((len(orders), left.size, chosen.size), dtype=np.int64)
    _fill(order.reshape(len(orders), -1), shapes, free, row_limits, patterns)
    return patterns.transpose(0, 2, 1)


def _fill(order: Ints, shapes: Floats, free: Floats, row_limits: Floats, patterns: Ints) -> None:
    """Fill `patterns` row by row, taking from `free`. A hot loop: in place, without temporaries."""
    lines = np.arange(len(order))
    divisors = np.where(shapes > 0, shapes, NEARLY_NOTHING)
    for rows in order.T:
        count = row_limits[rows]
        for capacity, divisor in zip(free, divisors[rows].T, strict=True):
            np.minimum(count, capacity / divisor[:, None], out=count)
        np.floor(count, out=count)
        if not count.any():
            continue
        patterns[lines, rows] = count
        for capacity, shape in zip(free, shapes[rows].T, strict=True):
            np.subtract(capacity, count * shape[:, None], out=capacity)


NEARLY_NOTHING = 1e-9
"""Divisor for a dimension that a piece does not use: 0.5 divided by it exceeds every row limit."""


def useful_kinds(problem: Problem, at_most: int = KINDS_FILLED) -> Ints:
    """Select the kinds to fill: some with much capacity for their price, at least one per row."""
    if problem.usd_per_hour.size <= at_most:
        return np.arange(problem.usd_per_hour.size)
    asked = problem.shapes.T.astype(np.float64) @ problem.wanted
    share = np.divide(problem.sizes, asked, out=np.zeros(problem.sizes.shape), where=asked > 0)
    price = problem.usd_per_hour / np.maximum(share[:, :2].sum(axis=1), 1e-15)
    cheap = np.argsort(np.round(price / price.min(), 1), kind="stable")
    order = cheap[np.argsort(problem.usd_per_hour[cheap[: at_most * 2]], kind="stable")]
    small = order[np.unique(np.round(np.geomspace(1, order.size, at_most)).astype(np.int64) - 1)]
    needed = np.where(problem.row_limits > 0, problem.usd_per_hour[:, None], np.inf).argmin(axis=0)
    return np.unique(np.concatenate([small, needed]))


def row_orders(problem: Problem, worth: Floats) -> list[Ints]:
    """Return orders of rows by value per use of all dimensions and of each scarce dimension."""
    totals = problem.shapes.T.astype(np.float64) @ problem.wanted
    relative = np.divide(
        problem.shapes, totals, out=np.zeros(problem.shapes.shape), where=totals > 0
    )
    takes = [relative.sum(axis=1), relative.max(axis=1), np.sqrt((relative**2).sum(axis=1))]
    takes += [relative[:, d] + 0.05 * takes[0] for d in range(2) if totals[d] > 0]
    ways = [np.argsort(-worth / np.maximum(take, 1e-15), kind="stable") for take in takes]
    large = np.where(worth > CLOSE * worth.max(initial=0), takes[1], 0)
    return [*ways, np.argsort(-large, kind="stable")]


def row_orders_at_prices(problem: Problem, worth: Floats, ways: Floats) -> list[Ints]:
    """Order rows by value against the cost of their dimensions, for each set of prices."""
    return [
        np.argsort(-worth / np.maximum(problem.shapes @ way, 1e-15), kind="stable")
        for way in ways
        if way.any()
    ]


@dataclass(frozen=True, slots=True)
class PatternBound:
    """Ceilings by kind: no load is worth more than `value`.

    `prices` of dimensions (K x D) prove it. `ways` are the distinct ones among them.
    """

    value: Floats
    prices: Floats
    price_directions: Floats


def pattern_bound(problem: Problem, worth: Floats) -> PatternBound:
    """Bound the value of a load of each kind, by Lagrangian relaxation of its dimensions.

    The prices of dimensions are those of the fractional loads of some kinds, small and large; each
    kind takes those that suit it best.
    """
    ways = _fractional_prices(problem, worth, _sample(problem))
    gain = np.maximum(worth - ways @ problem.shapes.T, 0.0)
    value = ways @ problem.sizes.T + gain @ problem.row_limits.T
    best = value.argmin(axis=0)
    return PatternBound(value.min(axis=0), ways[best], ways)


def _sample(problem: Problem) -> Ints:
    """Kinds from small to large, the small ones closer together."""
    count = problem.usd_per_hour.size
    order = np.argsort(problem.usd_per_hour, kind="stable")
    if count <= SAMPLE:
        return order
    return order[np.unique(np.round(np.geomspace(1, count, SAMPLE)).astype(np.int64) - 1)]


def _fractional_prices(problem: Problem, worth: Floats, kinds: Ints) -> Floats:
    """Price the dimensions of `kinds` for divisible pieces with one linear programme."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, kron

    dimensions = problem.shapes.shape[1]
    scale = np.maximum(problem.sizes.max(axis=0), 1).astype(np.float64)
    blocks = kron(np.eye(kinds.size), csr_matrix(problem.shapes.T / scale[:, None]), format="csr")
    upper = problem.row_limits[kinds].astype(np.float64).reshape(-1)
    room = (problem.sizes[kinds] / scale).reshape(-1)
    bounds = np.stack([np.zeros(upper.size), upper], axis=1)
    answer = linprog(
        -np.tile(worth, kinds.size),
        A_ub=blocks,
        b_ub=room,
        bounds=bounds,
        method="highs-ds",
        options={"presolve": False},
    )
    if answer.status != 0:
        return np.zeros((1, dimensions))
    prices = (
        -np.asarray(answer.ineqlin.marginals, dtype=np.float64).reshape(kinds.size, dimensions)
        / scale
    )
    return np.asarray(np.maximum(prices, 0.0), dtype=np.float64)


def is_small(problem: Problem, at_most: int) -> bool:
    """Whether every load can be listed."""
    sides = np.minimum(problem.row_limits.max(axis=0, initial=0), problem.wanted) + 1
    return bool((sides > 1).any()) and float(np.log(sides.astype(np.float64)).sum()) <= np.log(
        at_most
    )


def enumerate_patterns(problem: Problem, at_most: int) -> tuple[Ints, Ints] | None:
    """Enumerate the useful loads with the cheapest kind of each pool.

    None if there are too many.
    """
    if not is_small(problem, at_most):
        return None
    sides = np.minimum(problem.row_limits.max(axis=0, initial=0), problem.wanted) + 1
    rows = np.flatnonzero(sides > 1)
    some = np.stack(
        np.meshgrid(*(np.arange(sides[r]) for r in rows), indexing="ij"), axis=-1
    ).reshape(-1, rows.size)
    every = np.zeros((some.shape[0], sides.size), dtype=np.int64)
    every[:, rows] = some
    every = every[every.sum(axis=1) > 0]
    takes = every @ problem.shapes
    holds = (takes[None, :, :] <= problem.sizes[:, None, :]).all(axis=2) & (
        every[None, :, :] <= problem.row_limits[:, None, :]
    ).all(axis=2)
    kinds, loads = [], []
    for pool in sorted(set(problem.pools)):
        mine = np.array([name == pool for name in problem.pools])
        price = np.where(holds & mine[:, None], problem.usd_per_hour[:, None], np.inf)
        cheapest = price.argmin(axis=0)
        some = np.isfinite(price.min(axis=0))
        kinds.append(cheapest[some])
        loads.append(every[some])
    return np.concatenate(kinds), np.concatenate(loads)
