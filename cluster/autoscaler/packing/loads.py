"""Loads: what one machine holds. Filling every kind at once, the value a load could have at most, and the best load of one kind exactly.

A load's value is what its pieces are worth at given prices of pieces. `most[k, r]` bounds each row on each kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.autoscaler.packing.problem import Floats, Ints, Problem

STEPS = 40
"""Steps towards the best prices of a kind's dimensions; each costs a few matrix operations."""

CLOSE = 1e-9


def fill(problem: Problem, order: Ints, left: Ints, kinds: Ints | None = None) -> Ints:
    """First fit of `left` into one machine of each kind, rows in `order` (R, or K x R for an order of each kind's own)."""
    chosen = np.arange(problem.usd.size) if kinds is None else kinds
    free = problem.sizes[chosen].copy()
    most = np.minimum(problem.most[chosen], left)
    loads = np.zeros_like(most)
    if order.ndim == 1:
        for r in order:
            if left[r] > 0:
                count = _room(free, problem.shapes[r], most[:, r])
                loads[:, r] = count
                free -= count[:, None] * problem.shapes[r]
        return loads
    lines = np.arange(chosen.size)
    for j in range(order.shape[1]):
        rows = order[:, j]
        shapes = problem.shapes[rows]
        ratio = np.where(shapes > 0, free // np.maximum(shapes, 1), 1_000_000_000)
        count = np.minimum(ratio.min(axis=1), most[lines, rows])
        loads[lines, rows] = count
        free -= count[:, None] * shapes
    return loads


def _room(free: Ints, shape: Ints, most: Ints) -> Ints:
    count = most
    for d in np.flatnonzero(shape):
        count = np.minimum(count, free[:, d] // shape[d])
    return count


def orders(problem: Problem, worth: Floats) -> list[Ints]:
    """Ways to sort rows by what they are worth for what they take: of all dimensions together and of each one that is scarce."""
    totals = problem.shapes.T.astype(np.float64) @ problem.wanted
    relative = np.divide(problem.shapes, totals, out=np.zeros(problem.shapes.shape), where=totals > 0)
    takes = [relative.sum(axis=1), relative.max(axis=1), np.sqrt((relative**2).sum(axis=1))]
    takes += [relative[:, d] + 0.05 * takes[0] for d in range(2) if totals[d] > 0]
    ways = [np.argsort(-worth / np.maximum(take, 1e-15), kind="stable") for take in takes]
    large = np.where(worth > CLOSE * worth.max(initial=0), takes[1], 0)
    return [*ways, np.argsort(-large, kind="stable")]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """By kind: no load is worth more than `value`; `prices` of dimensions (K x D) prove it."""

    value: Floats
    prices: Floats


def ceiling(problem: Problem, worth: Floats, start: Floats | None = None, steps: int = STEPS) -> Ceiling:
    """An upper bound on the value of a load of each kind, by Lagrangian relaxation of its dimensions, all kinds at once."""
    scale = np.maximum(problem.sizes, 1).astype(np.float64)
    shapes = problem.shapes.astype(np.float64)
    most = problem.most.astype(np.float64)
    single = (most * worth).sum(axis=1)
    used = np.divide(single[:, None], scale) / problem.sizes.shape[1]
    prices = used if start is None else start
    best, kept = np.full(problem.usd.size, np.inf), prices.copy()
    step = 0.5
    for number in range(steps):
        gain = worth - prices @ shapes.T
        taken = np.where(gain > 0, most, 0.0)
        value = (prices * problem.sizes).sum(axis=1) + (gain * taken).sum(axis=1)
        better = value < best
        best = np.where(better, value, best)
        kept[better] = prices[better]
        if number == steps - 1:
            break
        slope = (problem.sizes - taken @ shapes) / scale  # by dimension, as a part of the machine
        norm = np.maximum((slope**2).sum(axis=1), 1e-12)
        length = step * np.maximum(value - 0.98 * best, 0.002 * best) / norm
        prices = np.maximum(prices - length[:, None] * slope / scale, 0.0)
        step *= 0.97
    return Ceiling(best, kept)


@dataclass(slots=True)
class _Search:
    """Depth first over the rows of one kind, the densest first, as many of each as fit first."""

    shapes: list[tuple[int, ...]]
    worth: list[float]
    most: list[int]
    prices: list[float]
    rest: list[float]  # what the rows from here on can gain above the prices of what they take
    nodes: int
    best: float
    counts: list[int]
    load: list[int] | None = None

    def run(self, at: int, free: tuple[int, ...], value: float) -> None:
        """Every load from row `at` on that could beat the best."""
        if value > self.best + CLOSE:
            self.best, self.load = value, list(self.counts)
        if at == len(self.shapes):
            return
        if value + sum(p * f for p, f in zip(self.prices, free, strict=True)) + self.rest[at] <= self.best + CLOSE:
            return
        shape = self.shapes[at]
        most = min([self.most[at], *(f // s for f, s in zip(free, shape, strict=True) if s)])
        for count in range(most, -1, -1):
            self.nodes -= 1
            if self.nodes < 0:
                return
            self.counts[at] = count
            after = tuple(f - count * s for f, s in zip(free, shape, strict=True))
            self.run(at + 1, after, value + count * self.worth[at])
        self.counts[at] = 0


def best_load(problem: Problem, kind: int, worth: Floats, prices: Floats, least: float, nodes: int) -> tuple[Ints | None, bool]:
    """A load of `kind` worth more than `least`, the best there is if `nodes` suffice; and whether they did."""
    gain = worth - problem.shapes @ prices
    rows = [r for r in np.argsort(-gain * problem.most[kind], kind="stable") if problem.most[kind, r] > 0 and worth[r] > CLOSE]
    gains = [max(0.0, float(gain[r])) * int(problem.most[kind, r]) for r in rows]
    rest = np.cumsum(gains[::-1])[::-1].tolist() if rows else []
    search = _Search(
        shapes=[tuple(problem.shapes[r].tolist()) for r in rows],
        worth=[float(worth[r]) for r in rows],
        most=[int(problem.most[kind, r]) for r in rows],
        prices=prices.tolist(),
        rest=rest,
        nodes=nodes,
        best=least,
        counts=[0] * len(rows),
    )
    search.run(0, tuple(problem.sizes[kind].tolist()), 0.0)
    if search.load is None:
        return None, search.nodes >= 0
    load = np.zeros(problem.wanted.size, dtype=np.int64)
    load[rows] = search.load
    return load, search.nodes >= 0


def enumerate_loads(problem: Problem, at_most: int) -> tuple[Ints, Ints] | None:
    """Every load worth considering with its kind, the cheapest of each pool that holds it; None when there are too many."""
    sides = np.minimum(problem.most.max(axis=0, initial=0), problem.wanted) + 1
    if np.log(sides.astype(np.float64)).sum() > np.log(at_most):
        return None
    every = np.stack(np.meshgrid(*(np.arange(side) for side in sides), indexing="ij"), axis=-1).reshape(-1, sides.size)
    every = every[every.sum(axis=1) > 0]
    takes = every @ problem.shapes
    holds = (takes[None, :, :] <= problem.sizes[:, None, :]).all(axis=2) & (every[None, :, :] <= problem.most[:, None, :]).all(axis=2)
    kinds, loads = [], []
    for pool in sorted(set(problem.pools)):
        mine = np.array([name == pool for name in problem.pools])
        price = np.where(holds & mine[:, None], problem.usd[:, None], np.inf)
        cheapest = price.argmin(axis=0)
        some = np.isfinite(price.min(axis=0))
        kinds.append(cheapest[some])
        loads.append(every[some])
    return np.concatenate(kinds), np.concatenate(loads)
