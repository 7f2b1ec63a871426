"""Buckets: pieces of similar size become one row, as large as the largest of them per dimension.

A packing of buckets is feasible for the real sizes. Capacity lost to rounding is used afterwards.
Bounds never use rounded sizes.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence

import numpy as np

from mesaform.autoscaler.model.shape import Shape
from mesaform.autoscaler.packing.model import Floats, Ints


def round_up_sizes(
    shapes: Sequence[Shape], counts: Sequence[int], kinds: Sequence[Hashable], at_most: int
) -> list[Shape]:
    """Return the bucket size of each shape.

    Only shapes of the same kind share a bucket. There are at most `at_most` buckets, or one per
    kind.
    """
    sizes, many = np.array(shapes, dtype=np.int64), np.array(counts, dtype=np.int64)
    totals = many @ sizes
    unit = np.divide(1.0, totals, out=np.zeros(totals.size), where=totals > 0)
    members: dict[Hashable, list[int]] = {}
    for index, kind in enumerate(kinds):
        members.setdefault(kind, []).append(index)
    cells: list[tuple[float, int, Ints]] = []
    for number, indices in enumerate(members.values()):
        cell = np.array(indices)
        cells.append((-_waste(sizes[cell], many[cell], unit), number, cell))
    heapq.heapify(cells)
    number = len(cells)
    while len(cells) < at_most and cells[0][0] < 0:
        _, _, cell = heapq.heappop(cells)
        for half in _halves(cell, sizes, many, unit):
            heapq.heappush(cells, (-_waste(sizes[half], many[half], unit), number, half))
            number += 1
    rounded = sizes.copy()
    for _, _, cell in cells:
        rounded[cell] = sizes[cell].max(axis=0)
    return [(int(a), int(b), int(c), int(d), int(e)) for a, b, c, d, e in rounded]


def _waste(sizes: Ints, many: Ints, unit: Floats) -> float:
    """What rounding up adds to all that is asked, summed over dimensions."""
    return float(many @ ((sizes.max(axis=0) - sizes) @ unit))


def _halves(cell: Ints, sizes: Ints, many: Ints, unit: Floats) -> tuple[Ints, Ints]:
    """A cell cut in two along the dimension and at the size that waste least."""
    best: tuple[float, int, Ints] | None = None
    for d in np.flatnonzero(np.ptp(sizes[cell], axis=0)):
        order = cell[np.argsort(sizes[cell, d], kind="stable")]
        low = np.maximum.accumulate(sizes[order], axis=0)[:-1] @ unit
        high = np.maximum.accumulate(sizes[order][::-1], axis=0)[::-1][1:] @ unit
        below = np.cumsum(many[order])
        waste = low * below[:-1] + high * (below[-1] - below[:-1])
        at = int(waste.argmin())
        if best is None or waste[at] < best[0]:
            best = (float(waste[at]), at + 1, order)
    if best is None:
        raise ValueError("a cell of one size wastes nothing and is not cut")
    return best[2][: best[1]], best[2][best[1] :]
