"""The linear programme over loads, with loads generated as its prices ask for them; its value bounds every plan from below.

HiGHS solves the programme. Loads are found by filling all kinds at once, and by branch and bound where that finds none. The bound
holds at any moment: prices of pieces are scaled down until no load of any kind is worth more than the machine (Farley).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mesaform.autoscaler.packing.model import Effort, EffortBudget, Floats, Ints
from mesaform.autoscaler.packing.patterns import (
    Ceiling,
    ceiling,
    enumerate_loads,
    fill,
    orders,
    orders_at,
    useful_kinds,
)
from mesaform.autoscaler.packing.problem import Problem
from mesaform.autoscaler.packing.search import best_load

TINY = 1e-7
SMOOTHING = 0.3
"""How much of the best proven prices is kept when new loads are sought: prices that jump about generate useless loads."""

CLOSED = 0.002
FEW = 8
"""Fewer new loads than this in a round, and better prices of dimensions are sought, then the loads themselves."""

CLOSED = 0.002
"""The programme is within this part of the bound: more loads hardly help, rounding costs more."""

STALLED = 4
"""Rounds without progress that end the work."""

RELAXING, CEILING, SEARCHING = 4, 8, 10
"""What a step costs in units of work for each cell that it looks at."""

CLOSE_ENOUGH = 0.0005
"""Loads that would improve by no more than this part of a machine's price are not sought: they cost time and prove nothing."""


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
        return np.array(self.kinds, dtype=np.int64), np.array(self.loads, dtype=np.int64).reshape(
            len(self.loads), -1
        )

    def keep(self, chosen: Iterable[int]) -> None:
        """Forget all others."""
        kept = list(chosen)
        self.kinds = [self.kinds[i] for i in kept]
        self.loads = [self.loads[i] for i in kept]
        self.seen = {
            (kind, load.tobytes()) for kind, load in zip(self.kinds, self.loads, strict=True)
        }


def seeds(problem: Problem) -> Columns:
    """Loads to begin with: each row alone on the kind that holds it cheapest."""
    columns = Columns()
    price = np.where(problem.most > 0, problem.usd[:, None] / np.maximum(problem.most, 1), np.inf)
    for row, kind in enumerate(price.argmin(axis=0)):
        load = np.zeros_like(problem.wanted)
        load[row] = problem.most[kind, row]
        columns.add(int(kind), load)
    return columns


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The programme's answer: how often each column is taken, and what a piece of each row is worth."""

    times: Floats
    worth: Floats
    scarcity: Floats  # K: by how much the pool's max makes a machine dearer
    value: float


def relax(
    problem: Problem, kinds: Ints, loads: Ints, wanted: Ints, slots: Mapping[str, int]
) -> Relaxed | None:
    """Solve the programme for `wanted` over these columns; None if HiGHS cannot."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, hstack, identity, vstack

    rows, most = wanted.size, problem.usd.max() * 20
    pools = sorted(
        {problem.pools[k] for k in kinds if slots.get(problem.pools[k], 0) < wanted.sum()}
    )
    member = np.array(
        [[problem.pools[k] == pool for k in kinds] for pool in pools], dtype=np.float64
    ).reshape(len(pools), len(kinds))
    left = vstack([csr_matrix(-loads.T.astype(np.float64)), csr_matrix(member)])
    missing = vstack([-identity(rows), csr_matrix((len(pools), rows))])
    bounds = np.concatenate(
        [-wanted.astype(np.float64), [float(slots.get(pool, 0)) for pool in pools]]
    )
    cost = np.concatenate([problem.usd[kinds], np.full(rows, most)])
    answer = linprog(
        cost,
        A_ub=hstack([left, missing], format="csr"),
        b_ub=bounds,
        bounds=(0, None),
        method="highs",
    )
    if answer.status != 0:
        return None
    marginals = -np.asarray(answer.ineqlin.marginals, dtype=np.float64)
    dear = dict(zip(pools, marginals[rows:], strict=True))
    scarcity = np.array([dear.get(pool, 0.0) for pool in problem.pools])
    return Relaxed(
        np.asarray(answer.x[: len(kinds)]),
        np.maximum(marginals[:rows], 0.0),
        scarcity,
        float(answer.fun),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What column generation ends with. `is_complete`: the columns are every load worth considering."""

    columns: Columns
    relaxed: Relaxed | None
    bound: float
    is_complete: bool = False


def generate(
    problem: Problem,
    columns: Columns,
    slots: Mapping[str, int],
    effort: Effort,
    incumbent: float,
    work: EffortBudget | None = None,
) -> Outcome:
    """Add loads until none improves the programme, the bound meets its value or the incumbent, or `effort` or `work` is spent."""
    work = work or EffortBudget(effort.work)
    every = enumerate_loads(problem, effort.loads) if problem.is_proof else None
    if every is not None:
        for kind, load in zip(*every, strict=True):
            columns.add(kind, load)
    if not columns.loads:  # no machine holds any of it
        return Outcome(columns, None, problem.bound)
    if every is not None:
        relaxed = relax(problem, *columns.matrix(), problem.wanted, slots)
        return Outcome(columns, relaxed, _bound_of_all(problem, *every, relaxed), is_complete=True)
    proof, relaxed = _Proof(problem.least, problem.bound, problem.ways), None
    values: list[float] = []
    for number in range(effort.rounds):
        work.spend(RELAXING * len(columns.kinds) * problem.wanted.size)
        relaxed = relax(problem, *columns.matrix(), problem.wanted, slots)
        if relaxed is None or min(relaxed.value, incumbent) - proof.bound <= CLOSED * proof.bound:
            break
        values.append(relaxed.value)
        last = number == effort.rounds - 1 or work.is_spent or _stalled(values)
        if last or not _round(problem, columns, relaxed, proof, effort, work):
            break
    return Outcome(columns, relaxed, proof.bound)


@dataclass(slots=True)
class _Proof:
    """The best prices of pieces that are proven, the bound that they give, and prices of dimensions by which loads are sought."""

    prices: Floats
    bound: float
    ways: Floats


def _stalled(values: list[float]) -> bool:
    return len(values) > STALLED and values[-1 - STALLED] - values[-1] < CLOSE_ENOUGH * values[-1]


def _round(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxed,
    proof: _Proof,
    effort: Effort,
    work: EffortBudget,
) -> int:
    """Add loads that improve the programme: filled ones, filled at better prices of dimensions, or searched. How many."""
    smooth = SMOOTHING * proof.prices + (1 - SMOOTHING) * relaxed.worth
    added = 0
    for worth in (smooth, relaxed.worth):
        added = added or _grow(problem, columns, relaxed, worth, proof.ways, effort, work)
    if not effort.kinds or added >= FEW:
        return added
    top = ceiling(problem, relaxed.worth)
    work.spend(CEILING * problem.most.size)
    proof.ways, value = np.concatenate([problem.ways, top.ways]), top.value
    added += _grow(problem, columns, relaxed, relaxed.worth, proof.ways, effort, work)
    if added < FEW:
        more, value = _search(problem, columns, relaxed, top, effort, work)
        added += more
    proven = scaled(problem, relaxed.worth, value)
    if problem.is_proof and proven @ problem.wanted > proof.bound:
        proof.bound, proof.prices = float(proven @ problem.wanted), proven
    return added


def scaled(problem: Problem, worth: Floats, value: Floats) -> Floats:
    """Prices of pieces so low that no load is worth more than its machine."""
    ratio = np.divide(problem.usd, value, out=np.ones_like(problem.usd), where=value > 0)
    return worth * min(1.0, float(ratio.min(initial=1.0)))


def _bound_of_all(problem: Problem, kinds: Ints, loads: Ints, relaxed: Relaxed | None) -> float:
    """With every load known, the programme without the pools' max is the bound, less what rounding might have added."""
    if relaxed is None:
        return problem.bound
    value = np.zeros(problem.usd.size)
    np.maximum.at(value, kinds, loads @ relaxed.worth)
    return max(problem.bound, float(scaled(problem, relaxed.worth, value) @ problem.wanted))


def _search(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxed,
    top: Ceiling,
    effort: Effort,
    work: EffortBudget,
) -> tuple[int, Floats]:
    """Loads that improve the programme, found with a proof; and the least ceiling known of each kind's loads."""
    price, worth = problem.usd + relaxed.scarcity, relaxed.worth
    value, added = top.value.copy(), 0
    ratio = value / np.maximum(price, 1e-12)
    for k in np.argsort(-ratio, kind="stable")[: effort.kinds]:
        if ratio[k] <= 1.0 + CLOSE_ENOUGH or work.is_spent:
            break
        work.spend(SEARCHING * effort.states * problem.wanted.size)
        found = best_load(
            problem,
            int(k),
            worth,
            top.prices[k],
            float(price[k]) * (1 + CLOSE_ENOUGH),
            effort.states,
        )
        value[k] = found.ceiling
        if found.load is not None and found.load @ relaxed.worth > price[k] * (1 + TINY):
            added += columns.add(int(k), found.load)
    return added, value


def _grow(
    problem: Problem,
    columns: Columns,
    relaxed: Relaxed,
    worth: Floats,
    ways: Floats,
    effort: Effort,
    work: EffortBudget,
) -> int:
    """Loads that improve the programme and go together: each next one is cut from what those before it leave; how many."""
    price, kinds = problem.usd + relaxed.scarcity, useful_kinds(problem)
    order = [
        *orders(problem, worth)[:2],
        *orders_at(problem, worth, ways[:: max(1, len(ways) // 4)]),
    ]
    left, added = problem.wanted.copy(), 0
    for _ in range(effort.fills):
        work.spend(len(order) * kinds.size * left.size)
        loads = fill(problem, order, left, kinds).reshape(-1, left.size)
        ratio = loads @ relaxed.worth / np.tile(np.maximum(price[kinds], 1e-12), len(order))
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
