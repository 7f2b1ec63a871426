"""Lower bound on the price of every plan from prices of dimensions and rounded dimensions.

A machine of 8,182 MiB holds three pieces of 2,048 MiB, however the rest is used. Pieces and
machines rounded down to whole steps make an additional dimension that no load may exceed. A linear
programme over the prices of dimensions selects the steps that raise the bound. These become
dimensions of the problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mesaform.autoscaler.model.shape import NAMES
from mesaform.autoscaler.packing.model import Floats, Ints
from mesaform.autoscaler.packing.partition import Part
from mesaform.autoscaler.packing.problem import Problem

SIZES_AT_MOST = 24
PARTS_OF_A_PIECE = 3
PARTS_OF_A_MACHINE = 5
CHEAP_KINDS = 4
STEPS_AT_MOST = 120
"""Number of steps that are tried."""

GROUPED_AT_MOST = 4_000
"""Rows times groups of kinds above which all kinds share their prices."""

TINY_PRICE = 1e-9
Steps = list[tuple[int, int]]
"""Dimensions with lengths of steps."""

PLAIN = {"presolve": False}
"""HiGHS' presolve takes several times as long as these small programmes."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """What is asked for as it is: the rows of a problem, or what is in its buckets."""

    shapes: Ints  # P x D
    counts: Ints  # P
    rows: Ints  # P
    parts: Ints  # by part: its piece

    def mean(self, wanted: Ints) -> Floats:
        """The shape of each row on average."""
        total = np.zeros((wanted.size, self.shapes.shape[1]))
        np.add.at(total, self.rows, self.shapes * self.counts[:, None].astype(np.float64))
        return total / np.maximum(wanted, 1)[:, None]

    def stepped(self, steps: Steps) -> Pieces:
        return replace(self, shapes=_stepped(self.shapes, steps))


def with_bound_dimensions(problem: Problem, parts: Sequence[Part]) -> Problem:
    """Add the steps that raise the bound as dimensions, and the prices of pieces that prove it."""
    if problem.is_empty:
        return problem
    pieces = _pieces(problem, parts)
    steps = _candidates(pieces, problem.sizes)
    prices = _dimension_prices(problem, pieces.stepped(steps), _stepped(problem.sizes, steps))
    known = problem.shapes.shape[1]
    helps = prices[:, known:].max(axis=0, initial=0.0) > 0
    used = [step for step, does in zip(steps, helps, strict=True) if does]
    sizes = _stepped(problem.sizes, used)
    priced = _proven(
        problem,
        sizes + _spare(problem, sizes),
        prices[:, np.append(np.ones(known, dtype=bool), helps)],
    )
    each = _least(problem, pieces.stepped(used), priced)
    least = np.zeros(problem.wanted.size)
    np.add.at(least, pieces.rows, each * pieces.counts)
    return replace(
        problem,
        shapes=_stepped(problem.shapes, used),
        sizes=sizes,
        unused_capacity=(*problem.unused_capacity, *(0 for _ in used)),
        lower_prices=least / np.maximum(problem.wanted, 1),
        lower_prices_by_part=each[pieces.parts],
        price_directions=priced,
    )


def _pieces(problem: Problem, parts: Sequence[Part]) -> Pieces:
    row = np.zeros(len(parts), dtype=np.int64)
    for number, indices in enumerate(problem.parts):
        row[list(indices)] = number
    if not problem.is_rounded:
        return Pieces(problem.shapes, problem.wanted, np.arange(problem.wanted.size), row)
    shapes = np.array([part.shape for part in parts], dtype=np.int64)
    shapes = np.concatenate([shapes, problem.shapes[row, shapes.shape[1] :]], axis=1)
    return Pieces(
        shapes, np.array([part.count for part in parts], dtype=np.int64), row, np.arange(len(parts))
    )


def _candidates(pieces: Pieces, sizes: Ints) -> Steps:
    """Dimensions with lengths of steps to try."""
    steps_by_effect: dict[tuple[bytes, bytes], tuple[int, int]] = {}
    for d in range(len(NAMES)):
        for step in _lengths(pieces.shapes[:, d], sizes[:, d], pieces.counts):
            counted = pieces.shapes[:, d] // step
            if counted.any():
                steps_by_effect.setdefault(
                    (counted.tobytes(), (sizes[:, d] // step).tobytes()), (d, step)
                )
    steps = list(steps_by_effect.values())
    if len(steps) <= STEPS_AT_MOST:
        return steps
    chosen = np.unique(np.linspace(0, len(steps) - 1, STEPS_AT_MOST).astype(np.int64))
    return [steps[at] for at in chosen]


def _lengths(asked: Ints, sizes: Ints, wanted: Ints) -> list[int]:
    """Lengths of steps to try in a dimension."""
    pieces = np.unique(asked[(asked > 1) & (wanted > 0)])
    if not pieces.size:
        return []
    if pieces.size > SIZES_AT_MOST:
        pieces = pieces[np.linspace(0, pieces.size - 1, SIZES_AT_MOST).astype(np.int64)]
    steps = {int(-(-piece // n)) for piece in pieces for n in range(1, PARTS_OF_A_PIECE + 1)}
    for size in np.unique(sizes)[:CHEAP_KINDS]:
        steps.update(int(size) // (n + 1) + 1 for n in range(1, PARTS_OF_A_MACHINE + 1))
    return sorted(steps - {0, 1})


def _stepped(amounts: Ints, steps: Steps) -> Ints:
    """Shapes or sizes with one more dimension for each step."""
    return np.concatenate(
        [amounts, *((amounts[:, d] // step)[:, None] for d, step in steps)], axis=1
    )


def _spare(problem: Problem, sizes: Ints) -> Ints:
    """Return the tolerance of machine sizes for the dimensions of `sizes`."""
    return np.array(
        [
            *problem.unused_capacity,
            *(0 for _ in range(sizes.shape[1] - len(problem.unused_capacity))),
        ],
        dtype=np.int64,
    )


def _dimension_prices(problem: Problem, pieces: Pieces, sizes: Ints) -> Floats:
    """Price dimensions by group of kinds for the greatest value of the work.

    No machine is worth more than its price.
    """
    sizes = sizes + _spare(problem, sizes)
    allowed, shapes = _allowed(problem), pieces.mean(problem.wanted)
    if len(allowed) == 1 or allowed.size > GROUPED_AT_MOST:
        return np.repeat(_shared(problem, shapes, sizes), len(allowed), axis=0)
    return _grouped(problem, shapes, sizes, allowed)


def _allowed(problem: Problem) -> Ints:
    """Groups of kinds by the rows that they hold (G x R)."""
    groups = int(problem.groups.max(initial=0)) + 1
    return np.array(
        [(problem.row_limits[problem.groups == group] > 0).any(axis=0) for group in range(groups)]
    )


def _shared(problem: Problem, shapes: Floats, sizes: Ints) -> Floats:
    from scipy.optimize import linprog

    asked = shapes.T @ problem.wanted
    scale = np.maximum(sizes.max(axis=0, initial=1), 1).astype(np.float64)
    used = np.flatnonzero(asked > 0)
    if not used.size:
        return np.zeros((1, shapes.shape[1]))
    room = (sizes / scale)[:, used]
    answer = linprog(
        -(asked / scale)[used],
        A_ub=room,
        b_ub=problem.usd_per_hour,
        bounds=(0, None),
        method="highs-ds",
        options=PLAIN,
    )
    prices = np.zeros((1, shapes.shape[1]))
    if answer.status == 0:
        prices[0, used] = np.where(answer.x > TINY_PRICE, answer.x, 0.0) / scale[used]
    return prices


def _grouped(problem: Problem, shapes: Floats, sizes: Ints, allowed: Ints) -> Floats:
    """Solve one programme for all groups. A piece is priced by its cheapest group."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, hstack, vstack

    groups, dimensions, rows = len(allowed), shapes.shape[1], shapes.shape[0]
    scale = np.maximum(sizes.max(axis=0, initial=1), 1).astype(np.float64)
    group, row = np.nonzero(allowed)
    pieces = csr_matrix((np.ones(row.size), (np.arange(row.size), row)), shape=(row.size, rows))
    dearer = _by_group((shapes / scale)[row], group, groups)
    machines = _by_group(sizes / scale, problem.groups, groups)
    left = vstack(
        [
            hstack([pieces, -dearer]),
            hstack([csr_matrix((problem.usd_per_hour.size, rows)), machines]),
        ],
        format="csr",
    )
    room = np.concatenate([np.zeros(row.size), problem.usd_per_hour])
    cost = np.concatenate([-problem.wanted.astype(np.float64), np.zeros(groups * dimensions)])
    answer = linprog(cost, A_ub=left, b_ub=room, bounds=(0, None), method="highs-ds", options=PLAIN)
    if answer.status != 0:
        return np.repeat(_shared(problem, shapes, sizes), groups, axis=0)
    prices = answer.x[rows:].reshape(groups, dimensions)
    return np.asarray(np.where(prices > TINY_PRICE, prices, 0.0) / scale, dtype=np.float64)


def _by_group(amounts: Floats, group: Ints, groups: int) -> Any:
    """Lines of amounts by dimension, each in the columns of its group: a sparse matrix."""
    from scipy.sparse import csr_matrix

    lines, dimensions = amounts.shape
    columns = group[:, None] * dimensions + np.arange(dimensions)
    return csr_matrix(
        (amounts.ravel(), (np.repeat(np.arange(lines), dimensions), columns.ravel())),
        shape=(lines, groups * dimensions),
    )


def _proven(problem: Problem, sizes: Ints, prices: Floats) -> Floats:
    """Lower the prices until no machine of a group is worth more than it costs."""
    value = (sizes * prices[problem.groups]).sum(axis=1)
    over = np.divide(
        value,
        problem.usd_per_hour,
        out=np.where(value > 0, np.inf, 0.0),
        where=problem.usd_per_hour > 0,
    )
    most = np.ones(len(prices))
    np.maximum.at(most, problem.groups, over)
    return prices / most[:, None]


def _least(problem: Problem, pieces: Pieces, prices: Floats) -> Floats:
    """What each piece costs at least: in the cheapest group that holds it."""
    worth = np.where(_allowed(problem)[:, pieces.rows], prices @ pieces.shapes.T, np.inf).min(
        axis=0
    )
    return np.where(np.isfinite(worth), worth, 0.0)
