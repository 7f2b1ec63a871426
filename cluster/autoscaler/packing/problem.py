"""Demand and machines as matrices. Depends on `partition`, `buckets` and numpy.

A row is a shape of work; a kind is a machine that differs in size, price, pool or permitted rows. A
limit per machine (UNIQUE on the hostname, for example) is one more dimension: a piece takes one
unit of it, a machine has as many units as the limit allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mesaform.autoscaler.model.shape import NAMES, Shape
from mesaform.autoscaler.packing.buckets import round_up_sizes
from mesaform.autoscaler.packing.model import Floats, Ints, Template
from mesaform.autoscaler.packing.partition import Part

Key = tuple[Shape, str | None, frozenset[Any]]
"""Identity of a row: shape, class of its limit per machine, and permitted templates.

Merged rows have likenesses (pool, size, price) in place of template indices.
"""

CLASSES_AT_MOST = 8
"""Limits per machine that stay separate in merged rows."""

OF_MERGED = 0.6
"""Used part of a merged limit: the apps behind it differ in number, so plans rarely fill it all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """R rows in D dimensions against K kinds; `parts[r]` and `members[k]` state what they mean.

    A merged problem relaxes the exact one: its lower bound holds, and its patterns may need repair
    when machines are materialized. `lower_prices` are prices of pieces at which no pattern is worth
    more than its machine; they sum to a lower bound and exist once `bounds` has computed them.
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
    unused_capacity: tuple[int, ...] = ()  # D: true capacity beyond the size here; for bounds
    lower_prices: Floats = field(default_factory=lambda: np.zeros(0))  # R: mean over the pieces
    lower_prices_by_part: Floats = field(default_factory=lambda: np.zeros(0))  # by part
    # G x D: by group of kinds, the prices of dimensions behind `lower_prices`
    price_directions: Floats = field(default_factory=lambda: np.zeros((0, 0)))

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
    """The problem with one row per zone and app if few, merged rows otherwise.

    Merged rows still differ in shape; above `rows_at_most` of those, sizes are rounded up to
    buckets.
    """
    exact: list[Key] = [
        (part.shape, part.name if part.is_capped else None, part.templates) for part in parts
    ]
    if len(set(exact)) <= rows_at_most:
        return _assemble(parts, templates, exact, merged=False)
    merged = _merged_keys(parts, templates)
    if len(set(merged)) <= rows_at_most:
        return _assemble(parts, templates, merged, merged=True)
    rounded = _rounded_keys(parts, merged, rows_at_most)
    return replace(_assemble(parts, templates, rounded, merged=True), is_rounded=True)


def _merged_keys(parts: Sequence[Part], templates: Sequence[Template]) -> list[Key]:
    """Row keys that ignore zone and app where templates are alike in pool, size and price."""
    classes = _classes(parts)
    alike: dict[frozenset[int], frozenset[tuple[str, Shape, float]]] = {}
    for part in parts:
        if part.templates not in alike:
            alike[part.templates] = frozenset(_likeness(templates[t]) for t in part.templates)
    return [
        (part.shape, classes.get(part.name) if part.is_capped else None, alike[part.templates])
        for part in parts
    ]


def _rounded_keys(parts: Sequence[Part], keys: Sequence[Key], rows_at_most: int) -> list[Key]:
    """Row keys whose shapes are rounded up to those of buckets."""
    counts: dict[Key, int] = {}
    for key, part in zip(keys, parts, strict=True):
        counts[key] = counts.get(key, 0) + part.count
    distinct = list(counts)
    shapes = round_up_sizes(
        [key[0] for key in distinct],
        [counts[key] for key in distinct],
        [key[1:] for key in distinct],
        rows_at_most,
    )
    bucket: dict[Key, Key] = {
        key: (shape, key[1], key[2]) for key, shape in zip(distinct, shapes, strict=True)
    }
    return [bucket[key] for key in keys]


def _likeness(template: Template) -> tuple[str, Shape, float]:
    return (template.pool, template.shape, template.usd_per_hour)


def _classes(parts: Sequence[Part]) -> dict[str, str]:
    """Classes of apps with a limit per machine: apps that need about as many machines share one."""
    needs = _machines_needed(parts)
    order = sorted(needs, key=lambda name: (-needs[name], name))
    if len(order) <= CLASSES_AT_MOST // 2:
        return {name: name for name in order}
    merged: dict[str, str] = {}
    head = ""
    for name in order:
        may_open = len(set(merged.values())) < CLASSES_AT_MOST
        if not head or (may_open and needs[name] < needs[head] / 2):
            head = name
        merged[name] = head
    return merged


def _machines_needed(parts: Sequence[Part]) -> dict[str, float]:
    """Machines that each app with a limit per machine needs at least, by app."""
    needs: dict[str, float] = {}
    for part in parts:
        if part.is_capped:
            needs[part.name] = needs.get(part.name, 0.0) + part.count / part.per_machine
    return needs


def _assemble(
    parts: Sequence[Part], templates: Sequence[Template], keys: Sequence[Key], *, merged: bool
) -> Problem:
    """The matrices of a problem whose rows are the distinct `keys`."""
    rows: dict[Key, list[int]] = {}
    for index, key in enumerate(keys):
        rows.setdefault(key, []).append(index)
    full_limits = _limits_per_machine(parts, keys)
    limits = _usable_limits(parts, keys, full_limits) if merged else full_limits
    kinds = _kinds(templates, list(rows), merged=merged)
    heads = [templates[members[0]] for members in kinds]
    unused = [full_limits[name] - limits[name] for name in limits]
    shapes = _row_shapes(list(rows), limits)
    sizes = _kind_sizes(heads, limits)
    wanted = _row_demand(parts, rows)
    may = _permissions(templates, kinds, list(rows), merged=merged)
    return Problem(
        shapes=shapes,
        wanted=wanted,
        sizes=sizes,
        usd_per_hour=np.array([head.usd_per_hour for head in heads], dtype=np.float64),
        row_limits=np.minimum(fits(sizes, shapes), wanted) * may,
        pools=tuple(head.pool for head in heads),
        parts=tuple(tuple(group) for group in rows.values()),
        members=tuple(kinds),
        groups=np.unique(may, axis=0, return_inverse=True)[1].reshape(-1),
        is_merged=merged,
        binding_dimensions=_binding_dimensions(shapes, sizes),
        unused_capacity=(*[0] * len(NAMES), *unused),
    )


def _row_demand(parts: Sequence[Part], rows: Mapping[Key, Sequence[int]]) -> Ints:
    """Pieces that each row wants (R)."""
    counts = [sum(parts[index].count for index in group) for group in rows.values()]
    return np.array(counts, dtype=np.int64)


def _usable_limits(
    parts: Sequence[Part], keys: Sequence[Key], full_limits: dict[str, int]
) -> dict[str, int]:
    """The part of each merged limit that plans use; the limit of a single app is used whole."""
    apps: dict[str, set[str]] = {name: set() for name in full_limits}
    for part, key in zip(parts, keys, strict=True):
        if key[1] is not None:
            apps[key[1]].add(part.name)
    return {
        name: limit if len(apps[name]) < 2 else max(1, int(limit * OF_MERGED))
        for name, limit in full_limits.items()
    }


def _row_shapes(rows: Sequence[Key], limits: dict[str, int]) -> Ints:
    """Shapes of rows, with one more dimension for each limit per machine (R x D)."""
    shapes = [(*key[0], *(int(key[1] == name) for name in limits)) for key in rows]
    return np.array(shapes, dtype=np.int64).reshape(len(rows), -1)


def _kind_sizes(heads: Sequence[Template], limits: dict[str, int]) -> Ints:
    """Sizes of kinds, with one more dimension for each limit per machine (K x D)."""
    sizes = [(*head.shape, *limits.values()) for head in heads]
    return np.array(sizes, dtype=np.int64).reshape(len(heads), -1)


def _permissions(
    templates: Sequence[Template],
    kinds: Sequence[tuple[int, ...]],
    rows: Sequence[Key],
    *,
    merged: bool,
) -> Ints:
    """1 where a kind may hold a row, else 0 (K x R)."""
    may = [_may(templates, kinds, key, merged=merged) for key in rows]
    return np.array(may, dtype=np.int64).reshape(len(rows), len(kinds)).T


def _binding_dimensions(shapes: Ints, sizes: Ints) -> tuple[int, ...]:
    """Dimensions that can be exhausted before every other one, given what is asked."""
    binding = [d for d in range(shapes.shape[1]) if shapes[:, d].any()]
    for d in reversed(binding.copy()):
        if any(_implies(shapes, sizes, e, d) for e in binding if _covers(shapes, e, d)):
            binding.remove(d)
    return tuple(binding)


def _covers(shapes: Ints, e: int, d: int) -> bool:
    """Whether every row that asks for dimension `d` asks for the other dimension `e` too."""
    return e != d and bool((shapes[shapes[:, d] > 0, e] > 0).all())


def _implies(shapes: Ints, sizes: Ints, e: int, d: int) -> bool:
    """Whether whatever has room in dimension `e` has room in `d`."""
    asks = shapes[:, d] > 0
    return bool((sizes[:, d, None] * shapes[asks, e] >= sizes[:, e, None] * shapes[asks, d]).all())


def _limits_per_machine(parts: Sequence[Part], keys: Sequence[Key]) -> dict[str, int]:
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
    """Templates that no row distinguishes, without those that another kind dominates."""
    kinds = _equivalent_templates(templates, keys, merged=merged)
    sizes = np.array([key[1] for key in kinds], dtype=np.int64).reshape(len(kinds), -1)
    usd = np.array([key[2] for key in kinds])
    codes = {code: number for number, code in enumerate({(key[0], key[3]): None for key in kinds})}
    code = np.array([codes[key[0], key[3]] for key in kinds])
    undominated = []
    for k, members in enumerate(kinds.values()):
        at_least_as_good = (code == code[k]) & (usd <= usd[k]) & (sizes >= sizes[k]).all(axis=1)
        if at_least_as_good.sum() == 1:  # itself
            undominated.append(tuple(members))
    return undominated


def _equivalent_templates(
    templates: Sequence[Template], keys: Sequence[Key], *, merged: bool
) -> dict[tuple[str, Shape, float, tuple[bool, ...]], list[int]]:
    """Indices of templates by pool, size, price and the rows that they may hold."""
    sets = list(dict.fromkeys(key[2] for key in keys))
    kinds: dict[tuple[str, Shape, float, tuple[bool, ...]], list[int]] = {}
    for t, template in enumerate(templates):
        token = _likeness(template) if merged else t
        may = tuple(token in allowed for allowed in sets)
        if any(may):
            kinds.setdefault((*_likeness(template), may), []).append(t)
    return kinds


def fits(sizes: Ints, shapes: Ints) -> Ints:
    """How often each shape (R x D) goes into each size (K x D): K x R."""
    often = np.full((sizes.shape[0], shapes.shape[0]), 1_000_000_000, dtype=np.int64)
    for d in range(shapes.shape[1]):
        asks = shapes[:, d] > 0
        often[:, asks] = np.minimum(often[:, asks], sizes[:, d : d + 1] // shapes[asks, d])
    return np.maximum(often, 0)


def demand_share(shapes: Ints, wanted: Ints) -> Floats:
    """The part of all demand that one piece of each row is, summed over dimensions (R)."""
    asked = shapes[:, : len(NAMES)].astype(np.float64)
    totals = asked.T @ wanted
    shares = np.divide(asked, totals, out=np.zeros_like(asked), where=totals > 0).sum(axis=1)
    return np.asarray(np.maximum(shares, 1e-12), dtype=np.float64)
