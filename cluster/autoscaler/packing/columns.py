"""The linear programme over loads, with loads generated as its prices ask for them; its value bounds every plan from below.

HiGHS solves the programme. Loads are found by filling all kinds at once, and by branch and bound where that finds none. The bound
holds at any moment: prices of pieces are scaled down until no load of any kind is worth more than the machine (Farley).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cluster.autoscaler.packing.loads import best_load, ceiling, enumerate_loads, fill, orders
from cluster.autoscaler.packing.model import GOOD_ENOUGH, Effort
from cluster.autoscaler.packing.problem import Floats, Ints, Problem

TINY = 1e-7
SMOOTHING = 0.6
"""How much of the best prices so far is kept when the next loads are sought: prices that jump about generate useless loads."""

EXACT_KINDS = 24
"""Kinds searched by branch and bound in a round, the most promising first."""


@dataclass(slots=True)
class Columns:
    """Loads found so far, each with its kind."""

    kinds: list[int] = field(default_factory=list)
    loads: list[Ints] = field(default_factory=list)
    seen: set[tuple[int, bytes]] = field(default_factory=set)

    def add(self, kind: int, load: Ints) -> bool:
        """False when it is there already or holds nothing."""
        key = (int(kind), load.tobytes())
        if key in self.seen or not load.any():
            return False
        self.seen.add(key)
        self.kinds.append(int(kind))
        self.loads.append(load)
        return True

    def matrix(self) -> tuple[Ints, Ints]:
        return np.array(self.kinds, dtype=np.int64), np.array(self.loads, dtype=np.int64).reshape(len(self.loads), -1)

    def keep(self, chosen: Iterable[int]) -> None:
        """Forget all others."""
        kept = list(chosen)
        self.kinds = [self.kinds[i] for i in kept]
        self.loads = [self.loads[i] for i in kept]
        self.seen = {(kind, load.tobytes()) for kind, load in zip(self.kinds, self.loads, strict=True)}


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The programme's answer: how often each column is taken, and what a piece of each row is worth."""

    times: Floats
    worth: Floats
    scarcity: Floats  # K: by how much the pool's max makes a machine dearer
    value: float


def relax(problem: Problem, kinds: Ints, loads: Ints, wanted: Ints, slots: Mapping[str, int]) -> Relaxed | None:
    """Solve the programme for `wanted` over these columns; None if HiGHS cannot."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, hstack, identity, vstack

    rows, most = wanted.size, problem.usd.max() * 20
    pools = sorted({problem.pools[k] for k in kinds if slots.get(problem.pools[k], 0) < wanted.sum()})
    member = np.array([[problem.pools[k] == pool for k in kinds] for pool in pools], dtype=np.float64).reshape(len(pools), len(kinds))
    left = vstack([csr_matrix(-loads.T.astype(np.float64)), csr_matrix(member)])
    missing = vstack([-identity(rows), csr_matrix((len(pools), rows))])
    bounds = np.concatenate([-wanted.astype(np.float64), [float(slots.get(pool, 0)) for pool in pools]])
    cost = np.concatenate([problem.usd[kinds], np.full(rows, most)])
    answer = linprog(cost, A_ub=hstack([left, missing], format="csr"), b_ub=bounds, bounds=(0, None), method="highs")
    if answer.status != 0:
        return None
    marginals = -np.asarray(answer.ineqlin.marginals, dtype=np.float64)
    dear = dict(zip(pools, marginals[rows:], strict=True))
    scarcity = np.array([dear.get(pool, 0.0) for pool in problem.pools])
    return Relaxed(np.asarray(answer.x[: len(kinds)]), np.maximum(marginals[:rows], 0.0), scarcity, float(answer.fun))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What column generation ends with. `is_complete`: the columns are every load worth considering."""

    columns: Columns
    relaxed: Relaxed | None
    bound: float
    is_complete: bool = False


def generate(problem: Problem, columns: Columns, slots: Mapping[str, int], effort: Effort, incumbent: float) -> Outcome:
    """Add loads until none improves the programme, the bound meets its value or the incumbent, or `effort` is spent."""
    every = enumerate_loads(problem, effort.loads)
    if every is not None:
        for kind, load in zip(*every, strict=True):
            columns.add(kind, load)
        relaxed = relax(problem, *columns.matrix(), problem.wanted, slots)
        return Outcome(columns, relaxed, _bound_of_all(problem, *every, relaxed), is_complete=True)
    bound, best, prices = simple_bound(problem), None, None
    relaxed = None
    for _ in range(effort.rounds):
        relaxed = relax(problem, *columns.matrix(), problem.wanted, slots)
        if relaxed is None:
            break
        if relaxed.value - bound <= TINY + 0.2 * GOOD_ENOUGH * relaxed.value or incumbent - bound <= GOOD_ENOUGH * incumbent:
            break
        sought = relaxed.worth if best is None else SMOOTHING * best + (1 - SMOOTHING) * relaxed.worth
        top = ceiling(problem, sought, prices)
        prices = top.prices
        proven = scaled(problem, sought, top.value)
        if proven @ problem.wanted > bound:
            bound, best = float(proven @ problem.wanted), proven
        if _grow(problem, columns, relaxed, sought, effort) or _grow(problem, columns, relaxed, relaxed.worth, effort):
            continue
        added, better = _search(problem, columns, relaxed, effort)
        if better is not None and better > bound:
            bound = better
        if not added:
            break
    return Outcome(columns, relaxed, bound)


def scaled(problem: Problem, worth: Floats, value: Floats) -> Floats:
    """Prices of pieces so low that no load is worth more than its machine."""
    ratio = np.divide(problem.usd, value, out=np.ones_like(problem.usd), where=value > 0)
    return worth * min(1.0, float(ratio.min(initial=1.0)))


def simple_bound(problem: Problem) -> float:
    """What it costs at least by each dimension alone: all that is asked at the lowest price that any kind has for it."""
    asked = problem.shapes.T.astype(np.float64) @ problem.wanted
    price = np.divide(problem.usd[:, None], problem.sizes, out=np.full(problem.sizes.shape, np.inf), where=problem.sizes > 0)
    each = np.where(asked > 0, price.min(axis=0, initial=np.inf), 0.0)
    return float((asked * np.where(np.isfinite(each), each, 0.0)).max(initial=0.0))


def _bound_of_all(problem: Problem, kinds: Ints, loads: Ints, relaxed: Relaxed | None) -> float:
    """With every load known, the programme without the pools' max is the bound, less what rounding might have added."""
    if relaxed is None:
        return simple_bound(problem)
    value = np.zeros(problem.usd.size)
    np.maximum.at(value, kinds, loads @ relaxed.worth)
    return max(simple_bound(problem), float(scaled(problem, relaxed.worth, value) @ problem.wanted))


def _grow(problem: Problem, columns: Columns, relaxed: Relaxed, worth: Floats, effort: Effort) -> int:
    """Fill every kind in several ways and keep the loads that improve the programme most."""
    found: list[tuple[float, int, Ints]] = []
    price = problem.usd + relaxed.scarcity
    for order in orders(problem, worth):
        loads = fill(problem, order, problem.wanted)
        ratio = (loads @ relaxed.worth) / np.maximum(price, 1e-12)
        found += [(float(ratio[k]), int(k), loads[k]) for k in np.flatnonzero(ratio > 1 + TINY)]
    found.sort(key=lambda item: (-item[0], item[1]))
    added = 0
    for _, kind, load in found:
        added += columns.add(kind, load)
        if added >= effort.columns:
            break
    return added


def _search(problem: Problem, columns: Columns, relaxed: Relaxed, effort: Effort) -> tuple[int, float | None]:
    """Branch and bound where filling found nothing: loads that improve the programme, and the bound that follows."""
    top = ceiling(problem, relaxed.worth)
    value = top.value.copy()
    order = np.argsort(-value / np.maximum(problem.usd + relaxed.scarcity, 1e-12), kind="stable")
    added = 0
    for k in [k for k in order if value[k] > problem.usd[k] * (1 + 1e-6)][:EXACT_KINDS]:
        least = float(problem.usd[k] + relaxed.scarcity[k]) * (1 + TINY)
        load, sure = best_load(problem, int(k), relaxed.worth, top.prices[k], least, effort.nodes)
        if load is not None:
            added += columns.add(int(k), load)
        if sure:
            value[k] = least if load is None else float(load @ relaxed.worth)
    return added, float(scaled(problem, relaxed.worth, value) @ problem.wanted)
