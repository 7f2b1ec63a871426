"""Demand and machines as matrices. Rows are shapes of work, kinds are machines that differ in size, price, pool or what they may hold.

A bound per machine (UNIQUE on the hostname, say) is one more dimension: a piece takes one of it, a machine has as many as are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mesaform.autoscaler.model.shape import NAMES, Shape
from mesaform.autoscaler.packing.buckets import round_up_sizes
from mesaform.autoscaler.packing.model import Floats, Ints, Template
from mesaform.autoscaler.packing.partition import Part

Key = tuple[Shape, str | None, frozenset[Any]]
"""What makes a row: the shape, the class of its bound per machine, and what it may use (templates, or their likenesses when merged)."""

CLASSES_AT_MOST = 8
"""Bounds per machine that are kept apart in merged rows."""

OF_MERGED = 0.6
"""How much of a merged bound is used: the apps behind it are not equally many, so the whole of it can hardly be filled."""


@dataclass(frozen=True, slots=True)
class Problem:
    """R rows in D dimensions against K kinds. `parts[r]` and `members[k]` say what they stand for.

    `is_merged` problems are easier than the truth: their bound holds, their loads must be made real with care. `least` are prices of
    pieces at which no load is worth more than its machine: what a plan costs at least. They are there once `cuts` has been asked.
    """

    shapes: Ints  # R x D
    wanted: Ints  # R
    sizes: Ints  # K x D
    usd_per_hour: Floats  # K
    row_limits: Ints  # K x R: how many of a row one machine of a kind holds
    pools: tuple[str, ...]  # K
    parts: tuple[tuple[int, ...], ...]  # by row: indices of parts
    members: tuple[tuple[int, ...], ...]  # by kind: indices of templates
    groups: Ints  # K: kinds of the same number may hold the same rows, if they are large enough
    is_merged: bool = False
    is_rounded: bool = False  # rows are buckets of sizes, as large as the largest in them
    binding_dimensions: tuple[int, ...] = ()  # dimensions that can run out before all others
    unused_capacity: tuple[
        int, ...
    ] = ()  # D: what a machine may truly hold beyond its size here; counts for bounds
    lower_prices: Floats = field(
        default_factory=lambda: np.zeros(0)
    )  # R: of the pieces of a row on average
    lower_prices_by_part: Floats = field(default_factory=lambda: np.zeros(0))  # by part
    price_directions: Floats = field(
        default_factory=lambda: np.zeros((0, 0))
    )  # G x D: by group of kinds, the prices of dimensions behind `least`

    @property
    def is_empty(self) -> bool:
        return not self.wanted.sum() or not self.usd_per_hour.size

    @property
    def in_pools(self) -> dict[str, Ints]:
        """Kinds by pool."""
        return {
            pool: np.array([name == pool for name in self.pools]).nonzero()[0]
            for pool in dict.fromkeys(self.pools)
        }

    @property
    def is_proof(self) -> bool:
        """Whether what holds for loads of these rows holds for true ones."""
        return not self.is_rounded and not any(self.unused_capacity)

    @property
    def bound(self) -> float:
        """What any plan costs at least, by `least`."""
        return float(self.lower_prices @ self.wanted)

    def with_demand(self, wanted: Ints) -> Problem:
        """The same with less demand."""
        return replace(self, wanted=wanted, row_limits=np.minimum(self.row_limits, wanted))


def build(parts: Sequence[Part], templates: Sequence[Template], *, rows_at_most: int) -> Problem:
    """The problem with rows apart by zone and app where they are few, merged otherwise."""
    exact: list[Key] = [
        (part.shape, part.name if part.is_capped else None, part.templates) for part in parts
    ]
    if len(set(exact)) <= rows_at_most:
        return _assemble(parts, templates, exact, merged=False)
    classes = _classes(parts)
    alike: dict[frozenset[int], frozenset[tuple[str, Shape, float]]] = {}
    for part in parts:
        if part.templates not in alike:
            alike[part.templates] = frozenset(_likeness(templates[t]) for t in part.templates)
    loose: list[Key] = [
        (part.shape, classes.get(part.name) if part.is_capped else None, alike[part.templates])
        for part in parts
    ]
    found = list(dict.fromkeys(loose))
    if len(found) <= rows_at_most:
        return _assemble(parts, templates, loose, merged=True)
    counts: dict[Key, int] = {}
    for key, part in zip(loose, parts, strict=True):
        counts[key] = counts.get(key, 0) + part.count
    shapes = round_up_sizes(
        [key[0] for key in found],
        [counts[key] for key in found],
        [key[1:] for key in found],
        rows_at_most,
    )
    bucket: dict[Key, Key] = {
        key: (shape, key[1], key[2]) for key, shape in zip(found, shapes, strict=True)
    }
    return replace(
        _assemble(parts, templates, [bucket[key] for key in loose], merged=True), is_rounded=True
    )


def _likeness(template: Template) -> tuple[str, Shape, float]:
    return (template.pool, template.shape, template.usd_per_hour)


def _classes(parts: Sequence[Part]) -> dict[str, str]:
    """Apps with bounds per machine, merged until few are left: those that need about as many machines go together."""
    needs: dict[str, float] = {}
    for part in parts:
        if part.is_capped:
            needs[part.name] = needs.get(part.name, 0.0) + part.count / part.per_machine
    order = sorted(needs, key=lambda name: (-needs[name], name))
    if len(order) <= CLASSES_AT_MOST // 2:
        return {name: name for name in order}
    merged: dict[str, str] = {}
    head = ""
    for name in order:
        if not head or (
            needs[name] < needs[head] / 2 and len(set(merged.values())) < CLASSES_AT_MOST
        ):
            head = name
        merged[name] = head
    return merged


def _assemble(
    parts: Sequence[Part], templates: Sequence[Template], keys: Sequence[Key], *, merged: bool
) -> Problem:
    rows: dict[Key, list[int]] = {}
    for index, key in enumerate(keys):
        rows.setdefault(key, []).append(index)
    groups = [tuple(members) for members in rows.values()]
    bounds = _bounds(parts, keys)
    true = bounds
    if merged:
        apps = {
            name: {part.name for part, key in zip(parts, keys, strict=True) if key[1] == name}
            for name in true
        }
        bounds = {
            name: most if len(apps[name]) < 2 else max(1, int(most * OF_MERGED))
            for name, most in true.items()
        }
    kinds = _kinds(templates, list(rows), merged=merged)
    heads = [templates[members[0]] for members in kinds]
    asked = [(*key[0], *(int(key[1] == name) for name in bounds)) for key in rows]
    shapes = np.array(asked, dtype=np.int64).reshape(len(groups), -1)
    sizes = np.array([(*head.shape, *bounds.values()) for head in heads], dtype=np.int64).reshape(
        len(kinds), -1
    )
    wanted = np.array(
        [sum(parts[index].count for index in group) for group in groups], dtype=np.int64
    )
    may = (
        np.array([_may(templates, kinds, key, merged=merged) for key in rows], dtype=np.int64)
        .reshape(len(groups), len(kinds))
        .T
    )
    return Problem(
        shapes=shapes,
        wanted=wanted,
        sizes=sizes,
        usd_per_hour=np.array([head.usd_per_hour for head in heads], dtype=np.float64),
        row_limits=np.minimum(fits(sizes, shapes), wanted) * may,
        pools=tuple(head.pool for head in heads),
        parts=tuple(groups),
        members=tuple(kinds),
        groups=np.unique(may, axis=0, return_inverse=True)[1].reshape(-1),
        is_merged=merged,
        binding_dimensions=_checked(shapes, sizes),
        unused_capacity=(*(0 for _ in NAMES), *(true[key] - bounds[key] for key in true)),
    )


def _checked(shapes: Ints, sizes: Ints) -> tuple[int, ...]:
    """Dimensions that work may exhaust: without those of which a machine has enough for all that another dimension lets in."""
    kept = [d for d in range(shapes.shape[1]) if shapes[:, d].any()]
    for d in reversed(kept.copy()):
        others = [e for e in kept if e != d and (shapes[shapes[:, d] > 0, e] > 0).all()]
        if any(_implies(shapes, sizes, e, d) for e in others):
            kept.remove(d)
    return tuple(kept)


def _implies(shapes: Ints, sizes: Ints, e: int, d: int) -> bool:
    """Whether whatever has room in dimension `e` has room in `d`."""
    asks = shapes[:, d] > 0
    return bool((sizes[:, d, None] * shapes[asks, e] >= sizes[:, e, None] * shapes[asks, d]).all())


def _bounds(parts: Sequence[Part], keys: Sequence[Key]) -> dict[str, int]:
    """By class, how many pieces a machine may hold: the sum over the apps in the class."""
    apps: dict[str, dict[str, int]] = {}
    for part, key in zip(parts, keys, strict=True):
        if key[1] is not None:
            each = apps.setdefault(key[1], {})
            each[part.name] = max(each.get(part.name, 0), part.per_machine)
    return {key: sum(each.values()) for key, each in apps.items()}


def _may(
    templates: Sequence[Template], kinds: Sequence[tuple[int, ...]], key: Key, *, merged: bool
) -> list[bool]:
    """Which kinds a row may use."""
    return [
        (_likeness(templates[members[0]]) if merged else members[0]) in key[2] for members in kinds
    ]


def _kinds(
    templates: Sequence[Template], keys: Sequence[Key], *, merged: bool
) -> list[tuple[int, ...]]:
    """Templates that no row tells apart, without those that another one betters in everything."""
    sets = list(dict.fromkeys(key[2] for key in keys))
    kinds: dict[tuple[str, Shape, float, tuple[bool, ...]], list[int]] = {}
    for t, template in enumerate(templates):
        token = _likeness(template) if merged else t
        may = tuple(token in allowed for allowed in sets)
        if any(may):
            kinds.setdefault((*_likeness(template), may), []).append(t)
    sizes = np.array([key[1] for key in kinds], dtype=np.int64).reshape(len(kinds), -1)
    usd = np.array([key[2] for key in kinds])
    codes = {code: number for number, code in enumerate({(key[0], key[3]): None for key in kinds})}
    code = np.array([codes[key[0], key[3]] for key in kinds])
    kept = []
    for k, members in enumerate(kinds.values()):
        better = (code == code[k]) & (usd <= usd[k]) & (sizes >= sizes[k]).all(axis=1)
        if better.sum() == 1:  # itself
            kept.append(tuple(members))
    return kept


def fits(sizes: Ints, shapes: Ints) -> Ints:
    """How often each shape (R x D) goes into each size (K x D): K x R."""
    often = np.full((sizes.shape[0], shapes.shape[0]), 1_000_000_000, dtype=np.int64)
    for d in range(shapes.shape[1]):
        asks = shapes[:, d] > 0
        often[:, asks] = np.minimum(often[:, asks], sizes[:, d : d + 1] // shapes[asks, d])
    return np.maximum(often, 0)


def demand_share(shapes: Ints, wanted: Ints) -> Floats:
    """What serving one piece of each row is worth: the part it is of all that is wanted, summed over dimensions."""
    real = shapes[:, : len(NAMES)].astype(np.float64)
    totals = real.T @ wanted
    parts = np.divide(real, totals, out=np.zeros_like(real), where=totals > 0).sum(axis=1)
    return np.asarray(np.maximum(parts, 1e-12), dtype=np.float64)
