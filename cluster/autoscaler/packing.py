"""Placing demand: first-fit-decreasing onto what is there, then onto offerings by how much they hold per dollar.

Equal pieces of work are placed together, so the cost depends on how many different shapes there are and not on how many pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.autoscaler.constraints import HOSTNAME, Usage, room
from cluster.autoscaler.demand import Unit
from cluster.autoscaler.shape import NAMES, NOTHING, Shape, contains, how_often, minus, plus, times
from cluster.autoscaler.supply import Node

DISSOLVE_AT_MOST = 200
"""Above this many new machines the pairwise improvement is left out: it is quadratic, and waste is small at that size."""

SINGLE_TYPES_TRIED = 8
"""How many answers that prefer one type are tried beside the mixed one."""


@dataclass(frozen=True, slots=True)
class Template:
    """A machine that could be bought. `hostname` is one that no existing agent has."""

    pool: str
    instance_type: str
    zone: str
    capacity: str
    usd_per_hour: float
    shape: Shape
    attributes: Mapping[str, str]
    hostname: str = "a new machine"


@dataclass(slots=True)
class NewNode:
    """A machine to buy with what is meant for it: pieces by the index of their unit."""

    template: Template
    load: dict[int, int]
    used: Shape


@dataclass(slots=True)
class Limits:
    """What may still be bought: machines by pool, and USD an hour (None: no limit)."""

    slots: dict[str, int]
    usd_per_hour: float | None = None

    def copy(self) -> Limits:
        return Limits(dict(self.slots), self.usd_per_hour)

    def how_many(self, template: Template) -> int:
        """How many of a template are allowed."""
        slots = self.slots.get(template.pool, 0)
        if self.usd_per_hour is None or template.usd_per_hour <= 0:
            return slots
        return max(0, min(slots, int((self.usd_per_hour + 1e-9) / template.usd_per_hour)))

    def take(self, template: Template, count: int) -> None:
        self.slots[template.pool] = self.slots.get(template.pool, 0) - count
        if self.usd_per_hour is not None:
            self.usd_per_hour -= template.usd_per_hour * count


@dataclass(slots=True)
class Placement:
    """Where the pieces of each unit went: by unit index, then node name."""

    placed: dict[int, dict[str, int]] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)


def decreasing(units: Sequence[Unit]) -> list[int]:
    """Unit indices, the most demanding shape first (by its largest part of all that is asked), constrained ones before free ones."""
    totals = [sum(unit.shape[d] * unit.count for unit in units) or 1 for d in range(len(NAMES))]

    def weight(index: int) -> tuple[bool, float, float, int]:
        parts = [amount / total for amount, total in zip(units[index].shape, totals, strict=True)]
        return (not units[index].constraints, -max(parts), -sum(parts), index)

    return sorted(range(len(units)), key=weight)


def place(units: Sequence[Unit], nodes: Iterable[Node], usage: Usage) -> Placement:
    """Put demand onto existing nodes, in the nodes' order. `usage` is updated."""
    result = Placement(left={index: unit.count for index, unit in enumerate(units) if not unit.blocked})
    free = [(node, node.free) for node in nodes]
    for index in (index for index in decreasing(units) if index in result.left):
        unit = units[index]
        for position, (node, capacity) in enumerate(free):
            if not result.left[index]:
                break
            count = min(result.left[index], how_often(unit.shape, capacity))
            if count and (count := min(count, room(unit.name, unit.constraints, node, usage))):
                free[position] = (node, minus(capacity, times(unit.shape, count)))
                usage.add(unit.name, unit.constraints, node, count)
                result.left[index] -= count
                result.placed.setdefault(index, {})[node.name] = count
    return result


def pack(units: Sequence[Unit], left: Mapping[int, int], templates: Sequence[Template], usage: Usage, limits: Limits) -> list[NewNode]:
    """The machines to buy for what is `left`: the best of several complete answers, most work served first, then cheapest.

    One answer mixes types greedily; the others prefer one type each. All are improved by right-sizing and dissolving.
    """
    wanted = {index: count for index, count in left.items() if count > 0}
    if not wanted or not templates:
        return []
    weights = _weights(units, wanted)
    choices: list[Sequence[Template]] = [templates]
    if len(templates) > 1:
        choices += [[template] for template in _promising(units, wanted, templates, usage, weights)]
    answers = [_improve(units, _greedy(units, wanted, choice, templates, usage, limits), templates, usage) for choice in choices]

    def quality(nodes: list[NewNode]) -> tuple[float, float, int]:
        served = sum(weights[index] * count for node in nodes for index, count in node.load.items())
        return (-round(served, 9), round(sum(node.template.usd_per_hour for node in nodes), 9), len(nodes))

    return min(answers, key=quality)


def _promising(
    units: Sequence[Unit], wanted: Mapping[int, int], templates: Sequence[Template], usage: Usage, weights: Mapping[int, float]
) -> list[Template]:
    """The templates whose first machine would hold most per dollar."""
    order = [index for index in decreasing(units) if index in wanted]

    def worth(template: Template) -> float:
        load = _fill(units, order, wanted, template, usage)
        return sum(weights[index] * count for index, count in load.items()) / max(template.usd_per_hour, 1e-6)

    return sorted(templates, key=worth, reverse=True)[:SINGLE_TYPES_TRIED]


def _weights(units: Sequence[Unit], wanted: Mapping[int, int]) -> dict[int, float]:
    """What serving one piece is worth: the part it is of all that is wanted, summed over dimensions."""
    totals = [sum(units[index].shape[d] * count for index, count in wanted.items()) for d in range(len(NAMES))]
    worth = {index: sum(units[index].shape[d] / total for d, total in enumerate(totals) if total) for index in wanted}
    return {index: value or 1e-9 for index, value in worth.items()}


def _greedy(
    units: Sequence[Unit],
    wanted: Mapping[int, int],
    preferred: Sequence[Template],
    templates: Sequence[Template],
    usage: Usage,
    limits: Limits,
) -> list[NewNode]:
    """Buy what holds most per dollar, again and again; `preferred` templates as long as any of them helps."""
    left, usage, limits = dict(wanted), usage.copy(), limits.copy()
    order = [index for index in decreasing(units) if index in left]
    weights = _weights(units, wanted)
    bought: list[NewNode] = []
    while left:
        best = _best(units, order, left, preferred, usage, limits, weights) or _best(units, order, left, templates, usage, limits, weights)
        if best is None:
            break
        template, load = best
        count = _repeats(units, left, load, limits.how_many(template))
        used = NOTHING
        for index, pieces in load.items():
            used = plus(used, times(units[index].shape, pieces))
            usage.add(units[index].name, [c for c in units[index].constraints if c.field not in HOSTNAME], template, pieces * count)
            left[index] -= pieces * count
            if not left[index]:
                del left[index]
        limits.take(template, count)
        bought.extend(NewNode(template, dict(load), used) for _ in range(count))
    return bought


def _best(
    units: Sequence[Unit],
    order: Sequence[int],
    left: Mapping[int, int],
    templates: Sequence[Template],
    usage: Usage,
    limits: Limits,
    weights: Mapping[int, float],
) -> tuple[Template, dict[int, int]] | None:
    """The template that holds most of what is left per dollar, with what it would hold."""
    found: tuple[Template, dict[int, int]] | None = None
    best = (0.0, 0.0)
    for template in templates:
        if limits.how_many(template) < 1:
            continue
        load = _fill(units, order, left, template, usage)
        served = sum(weights[index] * count for index, count in load.items())
        score = (served / max(template.usd_per_hour, 1e-6), -template.usd_per_hour)
        if load and (found is None or score > best):
            found, best = (template, load), score
    return found


def _fill(units: Sequence[Unit], order: Sequence[int], left: Mapping[int, int], template: Template, usage: Usage) -> dict[int, int]:
    """First-fit-decreasing of what is left into one machine."""
    free, load = template.shape, {}
    for index in order:
        count = min(left.get(index, 0), how_often(units[index].shape, free))
        if count and (count := min(count, room(units[index].name, units[index].constraints, template, usage))):
            load[index] = count
            free = minus(free, times(units[index].shape, count))
    return load


def _repeats(units: Sequence[Unit], left: Mapping[int, int], load: Mapping[int, int], allowed: int) -> int:
    """How often the same machine with the same load can be bought at once."""
    if any(constraint.field not in HOSTNAME for index in load for constraint in units[index].constraints):
        return 1
    return max(1, min(allowed, *(left[index] // count for index, count in load.items())))


def _improve(units: Sequence[Unit], nodes: list[NewNode], templates: Sequence[Template], usage: Usage) -> list[NewNode]:
    """Empty the emptiest machines into others' gaps, then take for each machine the cheapest of its pool that holds its load."""
    if 1 < len(nodes) <= DISSOLVE_AT_MOST:
        nodes = _dissolve(units, nodes)
    return [_right_size(units, node, templates, usage) for node in nodes]


def _dissolve(units: Sequence[Unit], nodes: list[NewNode]) -> list[NewNode]:
    kept = sorted(nodes, key=lambda node: node.template.usd_per_hour, reverse=True)
    for victim in sorted(nodes, key=lambda node: sum(node.load.values())):
        if any(units[index].constraints for index in victim.load):
            continue
        others = [node for node in kept if node is not victim]
        moved = _move(units, victim, others)
        if moved is not None:
            for node, index, count in moved:
                node.load[index] = node.load.get(index, 0) + count
                node.used = plus(node.used, times(units[index].shape, count))
            kept = others
    return kept


def _move(units: Sequence[Unit], victim: NewNode, others: list[NewNode]) -> list[tuple[NewNode, int, int]] | None:
    """Where all of a machine's load fits in others' gaps; None if it does not."""
    gaps = {id(node): minus(node.template.shape, node.used) for node in others}
    moves: list[tuple[NewNode, int, int]] = []
    for index, wanted in victim.load.items():
        left = wanted
        for node in others:
            count = min(left, how_often(units[index].shape, gaps[id(node)]))
            if count:
                gaps[id(node)] = minus(gaps[id(node)], times(units[index].shape, count))
                moves.append((node, index, count))
                left -= count
        if left:
            return None
    return moves


def _right_size(units: Sequence[Unit], node: NewNode, templates: Sequence[Template], usage: Usage) -> NewNode:
    best = node.template
    for template in templates:
        if template.pool == best.pool and template.zone == best.zone and template.usd_per_hour < best.usd_per_hour:
            fits = contains(template.shape, node.used)
            if fits and all(room(units[i].name, units[i].constraints, template, usage) >= n for i, n in node.load.items()):
                best = template
    return NewNode(best, node.load, node.used)
