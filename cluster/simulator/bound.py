"""Lower bounds on the cost of a trace under any policy, with divisible and with whole machines.

A tariff is a least cost of a piece of each kind of work such that no load of a machine is worth
more than the machine. By any tariff, the work at a moment costs at least the sum over its pieces;
the bound uses the dearest of many tariffs at each moment. Tariffs are the prices of the linear
programme over machine loads of `autoscaler.packing`, which moves work for free.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import MANY, NAMES, Shape, contains, shape_of
from mesaform.autoscaler.packing import Limits, Template, solve
from mesaform.autoscaler.packing.columns import (
    TINY,
    Columns,
    initial_columns,
    scaled,
    solve_relaxation,
)
from mesaform.autoscaler.packing.patterns import pattern_bound
from mesaform.autoscaler.packing.problem import Problem, fits
from mesaform.autoscaler.packing.search import best_load
from mesaform.aws.ports import Offering
from mesaform.placement.constraints import InstanceCounts
from mesaform.simulator.trace import Task, Trace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WAITS_AT_MOST_S = 120.0
"""Longest wait in seconds. Work counts from this long after arrival to its end without waiting."""

TARIFFS = 120
"""How many moments get a tariff of their own. More would tell more, and take longer."""

EXACT = 250
"""How many of the longest mixes of work are looked at one by one."""

KINDS_OF_WORK = 40
"""More shapes than this are rounded down until so few are left, which only lowers the bound."""

ROUNDS = 40
STATES = 200
CLOSE = 1e-4


@dataclass(frozen=True, slots=True)
class Bound:
    """Lower bounds in USD: with `divisible` machines, and with `whole` machines and paid boots."""

    divisible: float
    whole: float


def bound_of(trace: Trace, catalogue: Iterable[Offering], boot_s: float) -> Bound:
    """Return the lower bounds of a trace with these offerings, without tasks that fit none."""
    usd_of: dict[Shape, float] = {}
    for offering in catalogue:
        shape = shape_of(offering.resources)
        usd_of[shape] = min(offering.usd_per_hour, usd_of.get(shape, offering.usd_per_hour))
    tasks = [
        task
        for task in trace.tasks
        if task.runs_s > 0 and any(contains(size, task.shape) for size in usd_of)
    ]
    if not tasks:
        return Bound(0.0, 0.0)
    divisible = _divisible(tasks, usd_of)
    rows = _rows(tasks)
    levels = _Levels.of(tasks, rows, WAITS_AT_MOST_S)
    shapes = list(dict.fromkeys(rows.values()))
    tariffs = _tariffs(_problem(shapes, usd_of), levels)
    rates = _with_exact((tariffs @ levels.counts).max(axis=0), shapes, usd_of, levels)
    core_usd = float(rates @ levels.seconds) / 3600
    rest_usd = float((tariffs @ levels.rest_s).min()) / 3600
    boots_usd = _boots(levels.starts, rates, boot_s) / 3600
    return Bound(round(divisible, 4), round(max(divisible, core_usd + rest_usd + boots_usd), 4))


def _divisible(tasks: Sequence[Task], usd_of: Mapping[Shape, float]) -> float:
    """The value of the linear programme over cpus and memory, by the corners of its dual."""
    demand = [sum(task.shape[d] * task.runs_s for task in tasks) / 3600 for d in (0, 1)]
    rows = sorted((shape[0], shape[1], usd) for shape, usd in usd_of.items())
    allowed = [corner for corner in _corners(rows) if _is_feasible(corner, rows)]
    return max(demand[0] * corner[0] + demand[1] * corner[1] for corner in allowed)


Row = tuple[float, float, float]
"""Cpus, memory and price of a machine type."""


def _corners(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Prices of cpus and memory at which two types, or one type alone, cost what they are worth."""
    corners = [
        (min(usd / cpus for cpus, _, usd in rows), 0.0),
        (0.0, min(usd / mem for _, mem, usd in rows)),
    ]
    for (cpus, mem, usd), (other_cpus, other_mem, other_usd) in itertools.combinations(rows, 2):
        if determinant := cpus * other_mem - mem * other_cpus:
            price_of_cpus = (usd * other_mem - mem * other_usd) / determinant
            price_of_mem = (cpus * other_usd - usd * other_cpus) / determinant
            corners.append((price_of_cpus, price_of_mem))
    return corners


def _is_feasible(corner: tuple[float, float], rows: Sequence[Row]) -> bool:
    """Whether no type is worth more than its price at these prices of cpus and memory."""
    return min(corner) >= 0 and all(
        cpus * corner[0] + mem * corner[1] <= usd * (1 + 1e-9) for cpus, mem, usd in rows
    )


def _rows(tasks: Sequence[Task]) -> dict[Shape, Shape]:
    """By a task's shape the one it counts as: its own, or where there are many a smaller one."""
    shapes = sorted({task.shape for task in tasks})
    step = 1.0
    while True:
        row_of = {shape: _down(shape, step) for shape in shapes}
        if len(set(row_of.values())) <= KINDS_OF_WORK:
            return row_of
        step *= 1.25


def _down(shape: Shape, step: float) -> Shape:
    """A shape with each amount cut to a power of `step`."""
    if step <= 1.0:
        return shape
    cut = [
        int(step ** np.floor(np.log(amount) / np.log(step))) if amount else 0 for amount in shape
    ]
    return (cut[0], cut[1], cut[2], cut[3], cut[4])


@dataclass(frozen=True, slots=True)
class _Levels:
    """Count the pieces of each row that certainly run (R x T) from `starts` for `seconds`.

    `rest_s` are their seconds at unknown moments.
    """

    starts: Floats
    seconds: Floats
    counts: Ints
    rest_s: Floats

    @classmethod
    def of(cls, tasks: Sequence[Task], rows: Mapping[Shape, Shape], wait_s: float) -> _Levels:
        number = {shape: index for index, shape in enumerate(dict.fromkeys(rows.values()))}
        row = np.array([number[rows[task.shape]] for task in tasks])
        begin = np.array([task.at + wait_s for task in tasks])
        end = np.array([task.at + task.runs_s for task in tasks])
        rest_s = np.zeros(len(number))
        np.add.at(rest_s, row, np.minimum(wait_s, end - begin + wait_s))
        sure = end > begin
        edges = np.unique(np.concatenate([begin[sure], end[sure], [0.0]]))
        counts = np.zeros((len(number), edges.size), dtype=np.int64)
        np.add.at(counts, (row[sure], np.searchsorted(edges, begin[sure])), 1)
        np.add.at(counts, (row[sure], np.searchsorted(edges, end[sure])), -1)
        return cls(edges, np.append(np.diff(edges), 0.0), counts.cumsum(axis=1), rest_s)


def _problem(shapes: Sequence[Shape], usd_of: Mapping[Shape, float]) -> Problem:
    """One piece of each row, and machines that may hold as many of it as fit."""
    sizes, asked = np.array(list(usd_of), dtype=np.int64), np.array(shapes, dtype=np.int64)
    pools, usd = ("",) * len(usd_of), np.array(list(usd_of.values()))
    members, parts = (
        tuple((k,) for k in range(len(usd_of))),
        tuple((r,) for r in range(len(shapes))),
    )
    ones, same = np.ones(len(shapes), dtype=np.int64), np.zeros(len(usd_of), dtype=np.int64)
    return Problem(
        asked,
        ones,
        sizes,
        usd,
        fits(sizes, asked),
        pools,
        parts,
        members,
        same,
        unused_capacity=(0,) * len(NAMES),
    )


def _tariffs(problem: Problem, levels: _Levels) -> Floats:
    """Tariffs (J x R) of the moments that weigh most, and one for all of the work."""
    columns = initial_columns(problem)
    every = levels.counts @ levels.seconds + levels.rest_s
    tariffs = [_tariff(problem, columns, every / 3600)]
    unlike = np.ones(levels.seconds.size)
    for _ in range(TARIFFS):
        weight = (np.array(tariffs) @ levels.counts).max(axis=0) * levels.seconds * unlike
        at = int(weight.argmax())
        if weight[at] <= 0:
            break
        unlike = np.minimum(unlike, _unlike(levels.counts, at))
        tariffs.append(_tariff(problem, columns, levels.counts[:, at].astype(np.float64)))
    return np.array(tariffs)


def _with_exact(
    rates: Floats, shapes: Sequence[Shape], usd_of: Mapping[Shape, float], levels: _Levels
) -> Floats:
    """Raise rates where a load cannot hold more pieces than exist, for the longest moments."""
    machines = [
        Template("", str(number), "", "on-demand", usd, size, {})
        for number, (size, usd) in enumerate(usd_of.items())
    ]
    states, which = np.unique(levels.counts, axis=1, return_inverse=True)
    seconds = np.bincount(which.ravel(), weights=levels.seconds)
    raised = rates.copy()
    for at in np.argsort(-seconds, kind="stable")[:EXACT]:
        counts = states[:, at]
        if not counts.any() or seconds[at] <= 0:
            continue
        left = {row: int(count) for row, count in enumerate(counts) if count}
        units = [
            DemandItem("services", str(row), shape, left.get(row, 0))
            for row, shape in enumerate(shapes)
        ]
        bound = solve(
            units, left, machines, InstanceCounts(), Limits({"": MANY})
        ).bound_usd_per_hour
        raised = np.where(
            (levels.counts >= counts[:, None]).all(axis=0), np.maximum(raised, bound), raised
        )
    return raised


def _unlike(counts: Ints, at: int) -> Floats:
    """How far each moment's mix of work is from the one at `at`, 0 to 1."""
    length = np.maximum(np.linalg.norm(counts, axis=0), 1.0)
    apart = 1.0 - (counts[:, at] / length[at]) @ (counts / length)
    return np.where(apart > CLOSE, apart, 0.0)


def _tariff(problem: Problem, columns: Columns, wanted: Floats) -> Floats:
    """Return the piece prices of greatest cost at which no load exceeds its machine's price.

    `columns`, loads of machines, are found as they are needed and kept for the next tariff.
    """
    best = np.zeros(wanted.size)
    for _ in range(ROUNDS):
        relaxed = solve_relaxation(problem, *columns.matrix(), wanted, {"": 1_000_000_000})  # type: ignore[arg-type]
        if relaxed is None:
            break
        worth, added = relaxed.dual_prices, 0
        top = pattern_bound(problem, worth)
        value = top.value.copy()
        for k in np.flatnonzero(value > problem.usd_per_hour * (1 + CLOSE)):
            result = best_load(
                problem,
                int(k),
                worth,
                top.prices[k],
                float(problem.usd_per_hour[k]) * (1 + CLOSE),
                STATES,
            )
            value[k] = result.ceiling
            if result.load is not None and result.load @ worth > problem.usd_per_hour[k] * (
                1 + TINY
            ):
                added += columns.add(int(k), result.load)
        proven = scaled(problem, worth, value)
        if proven @ wanted > best @ wanted:
            best = proven
        if not added:
            break
    return best


def _boots(starts: Floats, rates: Floats, boot_s: float) -> float:
    """Return USD times seconds per hour to follow `rates`.

    Each rise pays a boot, unless the dip before it was paid for.
    """
    total, level = 0.0, 0.0
    left: list[
        tuple[float, float, float]
    ] = []  # bands of the rate that are not needed now: from, to, since when; the lowest last
    for at, rate in zip(starts.tolist(), rates.tolist(), strict=True):
        if rate < level:
            left.append((rate, level, at))
        while level < rate and left:
            low, high, since = left.pop()
            top = min(high, rate)
            total += (top - low) * min(at - since, boot_s)
            if top < high:
                left.append((top, high, since))
            level = top
        total += max(0.0, rate - level) * boot_s
        level = rate
    return total
