"""From patterns to machines: template and pieces of each machine, within all limits.

Patterns of an exact problem are used as they are. Patterns of a merged problem are filled from the
parts: first those with the fewest permitted templates. What does not fit goes into free capacity,
or is returned as left over. Depends on `problem`, `partition`, `integral`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mesaform.autoscaler.model.shape import (
    MANY,
    NOTHING,
    Shape,
    contains,
    how_often,
    minus,
    plus,
    times,
)
from mesaform.autoscaler.packing.integral import Machines
from mesaform.autoscaler.packing.model import Floats, Ints, NewNode, Template
from mesaform.autoscaler.packing.partition import Part
from mesaform.autoscaler.packing.problem import Problem


@dataclass(slots=True)
class OpenNode:
    """A machine with the parts on it: pieces by the index of their part."""

    template: int
    load: dict[int, int]
    free: Shape
    allowed: frozenset[int]  # templates that every part on it may use
    apps: dict[str, int] = field(default_factory=dict)  # pieces of apps with a bound per machine

    def room(self, part: Part) -> int:
        """How many of a part its bound lets in."""
        return part.per_machine - self.apps.get(part.name, 0) if part.is_capped else MANY

    def put(self, index: int, part: Part, count: int) -> None:
        self.load[index] = self.load.get(index, 0) + count
        self.free = minus(self.free, times(part.shape, count))
        self.allowed &= part.templates
        if part.is_capped:
            self.apps[part.name] = self.apps.get(part.name, 0) + count

    def drop(self, index: int, part: Part) -> None:
        """Take one piece of a part away. Which templates would do is not widened again."""
        self.load[index] -= 1
        if not self.load[index]:
            del self.load[index]
        self.free = plus(self.free, part.shape)
        if part.is_capped:
            self.apps[part.name] -= 1

    def copy(self) -> OpenNode:
        return OpenNode(self.template, dict(self.load), self.free, self.allowed, dict(self.apps))


@dataclass(slots=True)
class RemainingPieces:
    """Pieces left of each part; parts of each row, those with the fewest templates first."""

    parts: Sequence[Part]
    left: list[int]
    rows: list[list[int]]
    apps: dict[str, int]  # pieces left of each app
    by_size: list[tuple[int, Shape]]  # rounded rows, largest first, with the smallest piece

    @classmethod
    def of(cls, problem: Problem, parts: Sequence[Part]) -> RemainingPieces:
        size = _relative(parts) if problem.is_rounded else [0.0] * len(parts)
        rows = [
            sorted(row, key=lambda index: (len(parts[index].templates), -size[index], index))
            for row in problem.parts
        ]
        apps: dict[str, int] = {}
        for part in parts:
            apps[part.name] = apps.get(part.name, 0) + part.count
        large = sorted(range(len(rows)), key=lambda row: -size[rows[row][0]])
        least = [(row, min((parts[index].shape for index in rows[row]), key=sum)) for row in large]
        by_size = least if problem.is_rounded else []
        return cls(parts, [part.count for part in parts], rows, apps, by_size)

    def take(self, index: int, count: int) -> None:
        self.left[index] -= count
        self.apps[self.parts[index].name] -= count


def _relative(parts: Sequence[Part]) -> list[float]:
    """How large pieces are beside all that is asked."""
    shapes = np.array([part.shape for part in parts], dtype=np.float64)
    totals = np.array([part.count for part in parts]) @ shapes
    shares = np.divide(shapes, totals, out=np.zeros_like(shapes), where=totals > 0)
    relative: list[float] = shares.sum(axis=1).tolist()
    return relative


def materialize(
    problem: Problem, parts: Sequence[Part], templates: Sequence[Template], machines: Machines
) -> tuple[list[OpenNode], list[int]]:
    """The machines with their pieces, and what is left of each part.

    Machines with the most pieces of limited apps come first, while there is a choice.
    """
    stock = RemainingPieces.of(problem, parts)
    capped = np.array([any(parts[index].is_capped for index in row) for row in problem.parts])
    open_nodes: list[OpenNode] = []
    for kind, pattern, count in sorted(machines, key=lambda item: -int(item[1][capped].sum())):
        rows = [(int(row), int(pattern[row])) for row in np.flatnonzero(pattern)]
        open_nodes += _open_copies(problem, stock, templates, (kind, rows), count)
    fill_gaps(stock, open_nodes)
    swap_in(stock, open_nodes)
    return open_nodes, stock.left


def _open_copies(
    problem: Problem,
    stock: RemainingPieces,
    templates: Sequence[Template],
    pattern: tuple[int, list[tuple[int, int]]],
    count: int,
) -> list[OpenNode]:
    """At most `count` machines of one pattern, as many as the remaining pieces fill."""
    kind, rows = pattern
    open_nodes: list[OpenNode] = []
    while count > 0:
        node = _open_node(problem, stock, templates, kind, rows)
        if not node.load:
            break
        repeats = min(
            count, *(stock.left[index] // pieces + 1 for index, pieces in node.load.items())
        )
        open_nodes += [node, *(node.copy() for _ in range(repeats - 1))]
        for index, pieces in node.load.items():
            stock.take(index, pieces * (repeats - 1))
        count -= repeats
    return open_nodes


def _open_node(
    problem: Problem,
    stock: RemainingPieces,
    templates: Sequence[Template],
    kind: int,
    rows: list[tuple[int, int]],
) -> OpenNode:
    """One machine of a kind with as much of its load as there is; taken from the stock."""
    members = problem.members[kind]
    template = members[0]
    if problem.is_merged and len(members) > 1:
        template = max(members, key=lambda t: (_claim(stock, rows, t), -t))
    node = OpenNode(template, {}, templates[template].shape, frozenset(range(len(templates))))
    for row, wanted in rows:
        _take(stock, node, row, wanted)
    if problem.is_rounded and node.load:
        _top_up(stock, node)
    return node


def _top_up(stock: RemainingPieces, node: OpenNode) -> None:
    """Use what rounding sizes up has wasted: more pieces, the largest that fit first."""
    for row, small in stock.by_size:
        if contains(node.free, small) and stock.left[stock.rows[row][-1]]:
            _take(stock, node, row, MANY)


def _claim(stock: RemainingPieces, rows: list[tuple[int, int]], template: int) -> int:
    """How much of these rows can only go where this template is."""
    fewest = 0
    for row, _ in rows:
        tightest = len(stock.parts[stock.rows[row][-1]].templates) if stock.rows[row] else 0
        for index in stock.rows[row]:
            part = stock.parts[index]
            if len(part.templates) < tightest and template in part.templates:
                fewest += stock.left[index]
    return fewest


def _take(stock: RemainingPieces, node: OpenNode, row: int, wanted: int) -> None:
    """Move up to `wanted` pieces of a row from the stock to a machine.

    Among limited apps the one with the most pieces left goes first: the others get other machines.
    """
    indices = stock.rows[row]
    if stock.parts[indices[0]].is_capped:
        indices = sorted(indices, key=lambda index: -stock.apps[stock.parts[index].name])
    exhausted = 0
    for index in indices:
        exhausted += not stock.left[index]
        wanted -= _move_pieces(stock, node, index, wanted)
        if not wanted:
            break
    if exhausted > MOST_EXHAUSTED:
        stock.rows[row] = [i for i in stock.rows[row] if stock.left[i]] or stock.rows[row][:1]


MOST_EXHAUSTED = 4
"""Exhausted parts that a row may list before they are removed from it."""


def _move_pieces(stock: RemainingPieces, node: OpenNode, index: int, wanted: int) -> int:
    """Move up to `wanted` pieces of a part to a machine; how many were moved."""
    left, part = stock.left[index], stock.parts[index]
    if not left or node.template not in part.templates:
        return 0
    count = min(wanted, left, node.room(part), how_often(part.shape, node.free))
    if count <= 0:
        return 0
    node.put(index, part, count)
    stock.take(index, count)
    return count


def fill_gaps(stock: RemainingPieces, open_nodes: list[OpenNode]) -> None:
    """First fit of what is left into free capacity of the machines, the largest pieces first."""
    waiting = sorted(
        (index for index, left in enumerate(stock.left) if left),
        key=lambda index: stock.parts[index].shape,
        reverse=True,
    )
    if not waiting or not open_nodes:
        return
    free = np.array([node.free for node in open_nodes], dtype=np.int64)
    template = np.array([node.template for node in open_nodes], dtype=np.int64)
    for index in waiting:
        part = stock.parts[index]
        candidates = _has_room(free, part) * np.isin(template, list(part.templates))
        _fill_gaps_with(stock, open_nodes, free, index, np.flatnonzero(candidates))


def _fill_gaps_with(
    stock: RemainingPieces, open_nodes: list[OpenNode], free: Ints, index: int, candidates: Ints
) -> None:
    """Put pieces of one part onto the candidate machines until none is left."""
    for position in candidates:
        if _move_pieces(stock, open_nodes[position], index, stock.left[index]):
            free[position] = open_nodes[position].free
        if not stock.left[index]:
            break


SWAPS_TRIED = 20_000


def swap_in(stock: RemainingPieces, open_nodes: list[OpenNode]) -> None:
    """Place pieces that fit nowhere by moving a piece of another machine into a gap.

    The case: a machine has free capacity for a piece but already holds one of the same app.
    """
    tries = SWAPS_TRIED
    with_gaps = [node for node in open_nodes if any(node.free[:2])]
    with_gaps.sort(key=lambda node: -sum(node.free[:2]))
    waiting = [index for index, left in enumerate(stock.left) if left]
    for index in sorted(waiting, key=lambda index: stock.parts[index].shape):
        hosts = _hosts_for(stock.parts[index], with_gaps)
        tries = _swap_pieces(stock, open_nodes, hosts, index, tries)


def _swap_pieces(
    stock: RemainingPieces,
    open_nodes: list[OpenNode],
    hosts: list[OpenNode],
    index: int,
    tries: int,
) -> int:
    """Swap in pieces of one part until none is left or `tries` machines were tried; tries left."""
    while stock.left[index] and tries > 0:
        is_placed, tried = _swap(stock.parts, open_nodes, hosts, index)
        tries -= tried
        if not is_placed:
            break
        stock.take(index, 1)
    return tries


def _hosts_for(part: Part, with_gaps: list[OpenNode]) -> list[OpenNode]:
    """Machines whose gap holds the part, else those with the largest gaps."""
    holding = [node for node in with_gaps if contains(node.free, part.shape)]
    return holding[:HOSTS_TRIED] or with_gaps[:HOSTS_TRIED]


HOSTS_TRIED = 8


def _swap(
    parts: Sequence[Part], open_nodes: list[OpenNode], hosts: list[OpenNode], index: int
) -> tuple[bool, int]:
    """Whether a piece found a place, and how many machines were tried."""
    part, tried = parts[index], 0
    for node in open_nodes:
        if node.template not in part.templates or node.room(part) < 1:
            continue
        tried += 1
        for other_index in node.load:
            other = parts[other_index]
            if not contains(plus(node.free, other.shape), part.shape):
                continue
            host = _host_of(other, hosts, node)
            if host is not None:
                node.drop(other_index, other)
                node.put(index, part, 1)
                host.put(other_index, other, 1)
                return True, tried
    return False, tried


def _host_of(part: Part, hosts: list[OpenNode], without: OpenNode) -> OpenNode | None:
    """The first host that takes a piece of the part."""
    return next(
        (
            host
            for host in hosts
            if host is not without
            and contains(host.free, part.shape)
            and host.template in part.templates
            and host.room(part) > 0
        ),
        None,
    )


def _has_room(free: Ints, part: Part) -> Ints:
    shape = np.array(part.shape, dtype=np.int64)
    asks = shape > 0
    return np.asarray((free[:, asks] >= shape[asks]).all(axis=1), dtype=np.int64)


def right_size(open_nodes: list[OpenNode], templates: Sequence[Template]) -> None:
    """Give each machine the cheapest template of its pool and zone that holds its pieces."""
    sizes = np.array([template.shape for template in templates], dtype=np.int64)
    usd = np.array([template.usd_per_hour for template in templates])
    codes = {(template.pool, template.zone): n for n, template in enumerate(templates)}
    location = np.array([codes[template.pool, template.zone] for template in templates])
    cheapest: dict[tuple[int, Shape, frozenset[int]], int] = {}
    for node in open_nodes:
        used = minus(templates[node.template].shape, node.free)
        key = (node.template, used, node.allowed)
        if key not in cheapest:
            fits = (sizes >= np.array(used)).all(axis=1) & (location == location[node.template])
            cheaper = np.flatnonzero(fits & (usd < usd[node.template]))
            cheapest[key] = _cheapest_allowed(node, cheaper, usd)
        node.template = cheapest[key]
        node.free = minus(templates[node.template].shape, used)


def _cheapest_allowed(node: OpenNode, cheaper: Ints, usd: Floats) -> int:
    """The cheapest template among `cheaper` that every part permits; else the present one."""
    candidates = [int(t) for t in cheaper if int(t) in node.allowed]
    return min(candidates, key=lambda t: usd[t], default=node.template)


DISSOLVE_AT_MOST = 200
"""Most new machines for which single ones are emptied: the work is quadratic in their number."""


def dissolve(
    open_nodes: list[OpenNode], parts: Sequence[Part], templates: Sequence[Template]
) -> list[OpenNode]:
    """Empty machines whose pieces all fit into gaps of others, the emptiest first."""
    if not 1 < len(open_nodes) <= DISSOLVE_AT_MOST:
        return open_nodes
    remaining = sorted(open_nodes, key=lambda node: -templates[node.template].usd_per_hour)
    for victim in sorted(open_nodes, key=lambda node: sum(node.load.values())):
        others = [node for node in remaining if node is not victim]
        moves = _moves(victim, others, parts)
        if moves is not None:
            for node, index, count in moves:
                node.put(index, parts[index], count)
            remaining = others
    return remaining


def _moves(
    victim: OpenNode, others: list[OpenNode], parts: Sequence[Part]
) -> list[tuple[OpenNode, int, int]] | None:
    """Machine, part and count of each move that empties a machine; None if not all of it fits."""
    after = {id(node): node.copy() for node in others}
    moves: list[tuple[OpenNode, int, int]] = []
    for index, wanted in victim.load.items():
        placed = _spread_over_gaps(index, parts[index], wanted, others, after)
        if sum(count for _, _, count in placed) < wanted:
            return None
        moves += placed
    return moves


def _spread_over_gaps(
    index: int,
    part: Part,
    wanted: int,
    others: list[OpenNode],
    after: dict[int, OpenNode],
) -> list[tuple[OpenNode, int, int]]:
    """Moves of up to `wanted` pieces of a part; `after` has the machines as they would be."""
    moves: list[tuple[OpenNode, int, int]] = []
    for node in others:
        trial = after[id(node)]
        if node.template not in part.templates or not contains(trial.free, part.shape):
            continue
        count = min(wanted, how_often(part.shape, trial.free), trial.room(part))
        if count > 0:
            trial.put(index, part, count)
            moves.append((node, index, count))
            wanted -= count
        if not wanted:
            break
    return moves


def new_nodes(
    open_nodes: Sequence[OpenNode], parts: Sequence[Part], templates: Sequence[Template]
) -> list[NewNode]:
    """As the planner wants them: pieces by unit."""
    nodes = []
    for node in open_nodes:
        load: dict[int, int] = {}
        used = NOTHING
        for index, count in node.load.items():
            part = parts[index]
            load[part.unit] = load.get(part.unit, 0) + count * part.each
            used = plus(used, times(part.shape, count))
        nodes.append(NewNode(templates[node.template], load, used))
    return nodes
