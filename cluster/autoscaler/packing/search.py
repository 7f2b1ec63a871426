"""Search for the best load of a kind with a proven ceiling: dynamic programming over rows.

A state is the free capacity after some rows. Its bound is its value plus the value of the free
dimensions at the kind's prices. States whose bound is not above the requested value are dropped.
When too many states are left, those with the lowest bounds are dropped and the ceiling includes
their bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mesaform.autoscaler.packing.model import Floats, Ints
from mesaform.autoscaler.packing.problem import Problem

COPIES_AT_MOST = 48
"""Most pieces of a row per kind for a search. Rounding hardly matters beyond it."""

MIX = np.array(
    [0x9E3779B97F4A7C1, 0xC2B2AE3D27D4EB5, 0x165667B19E3779F, 0x27D4EB2F1656671, 0x85EBCA77C2B2AE1],
    dtype=np.int64,
)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Best load above the requested value, if any. No load is worth more than `ceiling`."""

    load: Ints | None
    ceiling: float


@dataclass(slots=True)
class _States:
    free: Ints  # N x D
    value: Floats  # N
    counts: Ints  # N x R

    def only(self, chosen: Ints) -> _States:
        return _States(self.free[chosen], self.value[chosen], self.counts[chosen])


def best_load(
    problem: Problem, kind: int, worth: Floats, prices: Floats, least: float, width: int
) -> SearchResult:
    """A load of `kind` worth more than `least`, found with at most `width` states at a time."""
    size, most = problem.sizes[kind], problem.row_limits[kind]
    gain = worth - problem.shapes @ prices
    top = float(prices @ size + (np.maximum(gain, 0.0) * most).sum())
    if top <= least:
        return SearchResult(None, top)
    if most.max(initial=0) > COPIES_AT_MOST:
        return SearchResult(None, top)
    rows = np.flatnonzero((most > 0) & (worth > 0) & (top + np.minimum(gain, 0.0) > least))
    relative = (problem.shapes[rows] / np.maximum(size, 1)).max(axis=1)
    rows = rows[np.argsort(-relative, kind="stable")]
    rest = np.append(np.cumsum((np.maximum(gain, 0.0) * most)[rows][::-1])[::-1], 0.0)
    states = _States(size[None, :].copy(), np.zeros(1), np.zeros((1, rows.size), dtype=np.int64))
    best, load, dropped = least, None, least
    for at, row in enumerate(rows):
        states = _with_row(states, problem.shapes[row], int(most[row]), float(worth[row]), at)
        bound = states.value + states.free @ prices + rest[at + 1]
        states, bound = _alive(states, bound, best)
        if not states.value.size:
            break
        states, bound = _distinct(states, bound)
        if states.value.size > width:
            order = np.argsort(-bound, kind="stable")
            dropped = max(dropped, float(bound[order[width]]))
            states = states.only(order[:width])
        first = int(states.value.argmax())
        if states.value[first] > best:
            best, load = float(states.value[first]), states.counts[first].copy()
    if load is None:
        return SearchResult(None, min(top, dropped))
    answer = np.zeros(problem.wanted.size, dtype=np.int64)
    answer[rows] = load
    return SearchResult(answer, min(top, max(best, dropped)))


def _with_row(states: _States, shape: Ints, most: int, worth: float, at: int) -> _States:
    """Every state with none, one, two … of a row."""
    asks = shape > 0
    room = np.minimum((states.free[:, asks] // shape[asks]).min(axis=1), most)
    repeats = room + 1
    source = np.repeat(np.arange(room.size), repeats)
    count = np.arange(source.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    counts = states.counts[source]
    counts[:, at] = count
    return _States(
        states.free[source] - count[:, None] * shape, states.value[source] + count * worth, counts
    )


def _alive(states: _States, bound: Floats, best: float) -> tuple[_States, Floats]:
    alive = np.flatnonzero(bound > best)
    return (states, bound) if alive.size == bound.size else (states.only(alive), bound[alive])


def _distinct(states: _States, bound: Floats) -> tuple[_States, Floats]:
    """Of states with the same room the one worth most."""
    with np.errstate(over="ignore"):
        key = states.free @ np.resize(MIX, states.free.shape[1])
    order = np.lexsort((-states.value, key))
    first = np.ones(order.size, dtype=bool)
    first[1:] = key[order][1:] != key[order][:-1]
    kept = order[first]
    return states.only(kept), bound[kept]
