"""From loads of rows to machines with pieces of units: which template, which parts, and nothing above a bound.

Exact problems come out as they are. Loads of merged ones are filled from the parts that are there: those that can go nowhere else
first, then others; what does not fit is first put into gaps, then handed back as left.
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
from mesaform.autoscaler.packing.model import Ints, NewNode, Template
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
    """What is left of each part, and the parts of each row with those that can go to fewest templates first."""

    parts: Sequence[Part]
    left: list[int]
    rows: list[list[int]]
    apps: dict[str, int]  # pieces left of each app
    by_size: list[
        tuple[int, Shape]
    ]  # rows of rounded sizes, the largest first, with a small piece of each

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
        return cls(
            parts, [part.count for part in parts], rows, apps, least if problem.is_rounded else []
        )

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
    """The machines, and what is left of each part."""
    stock = RemainingPieces.of(problem, parts)
    drafts: list[OpenNode] = []
    capped = np.array([any(parts[index].is_capped for index in row) for row in problem.parts])
    for kind, load, wanted in sorted(
        machines, key=lambda item: -int(item[1][capped].sum())
    ):  # the choosiest while there is choice
        count, rows = wanted, [(int(r), int(load[r])) for r in np.flatnonzero(load)]
        while count > 0:
            draft = _draft(problem, stock, templates, kind, rows)
            if not draft.load:
                break
            repeats = min(
                count, *(stock.left[index] // pieces + 1 for index, pieces in draft.load.items())
            )
            drafts += [draft, *(draft.copy() for _ in range(repeats - 1))]
            for index, pieces in draft.load.items():
                stock.take(index, pieces * (repeats - 1))
            count -= repeats
    fill_gaps(stock, drafts)
    swap_in(stock, drafts)
    return drafts, stock.left


def _draft(
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
    draft = OpenNode(template, {}, templates[template].shape, frozenset(range(len(templates))))
    for row, wanted in rows:
        _take(stock, draft, row, wanted)
    if problem.is_rounded and draft.load:
        _top_up(stock, draft)
    return draft


def _top_up(stock: RemainingPieces, draft: OpenNode) -> None:
    """Use what rounding sizes up has wasted: more pieces, the largest that fit first."""
    for row, small in stock.by_size:
        if contains(draft.free, small) and stock.left[stock.rows[row][-1]]:
            _take(stock, draft, row, MANY)


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


def _take(stock: RemainingPieces, draft: OpenNode, row: int, wanted: int) -> None:
    exhausted = 0
    indices = stock.rows[row]
    if stock.parts[
        indices[0]
    ].is_capped:  # the app with most left first: the others get their turn on other machines
        indices = sorted(indices, key=lambda index: -stock.apps[stock.parts[index].name])
    for index in indices:
        left, part = stock.left[index], stock.parts[index]
        exhausted += not left
        if not left or draft.template not in part.templates:
            continue
        count = min(wanted, left, draft.room(part), how_often(part.shape, draft.free))
        if count > 0:
            draft.put(index, part, count)
            stock.take(index, count)
            wanted -= count
        if not wanted:
            break
    if exhausted > 4:
        stock.rows[row] = [index for index in stock.rows[row] if stock.left[index]] or stock.rows[
            row
        ][:1]


def fill_gaps(stock: RemainingPieces, drafts: list[OpenNode]) -> None:
    """First fit of what is left into machines that have room, the largest pieces first."""
    waiting = sorted(
        (index for index, left in enumerate(stock.left) if left),
        key=lambda index: stock.parts[index].shape,
        reverse=True,
    )
    if not waiting or not drafts:
        return
    free = np.array([draft.free for draft in drafts], dtype=np.int64)
    where = np.array([draft.template for draft in drafts], dtype=np.int64)
    for index in waiting:
        part = stock.parts[index]
        for at in np.flatnonzero(_room(free, part) * np.isin(where, list(part.templates))):
            draft = drafts[at]
            count = min(stock.left[index], how_often(part.shape, draft.free), draft.room(part))
            if count > 0:
                draft.put(index, part, count)
                free[at] = draft.free
                stock.take(index, count)
            if not stock.left[index]:
                break


SWAPS_TRIED = 20_000


def swap_in(stock: RemainingPieces, drafts: list[OpenNode]) -> None:
    """Pieces that fit nowhere as things are change places: one of machine B goes to machine A's gap, and the piece to B.

    The case it is for: a machine has room for a piece, but another of its app is there already.
    """
    tries = SWAPS_TRIED
    gaps = sorted(
        (draft for draft in drafts if any(draft.free[:2])), key=lambda draft: -sum(draft.free[:2])
    )
    for index in sorted(
        (index for index, left in enumerate(stock.left) if left),
        key=lambda index: stock.parts[index].shape,
    ):
        part = stock.parts[index]
        hosts = [draft for draft in gaps if contains(draft.free, part.shape)][:HOSTS_TRIED] or gaps[
            :HOSTS_TRIED
        ]
        while stock.left[index] and tries > 0:
            done, tried = _swapped(stock.parts, drafts, hosts, index)
            tries -= tried
            if not done:
                break
            stock.take(index, 1)


HOSTS_TRIED = 8


def _swapped(
    parts: Sequence[Part], drafts: list[OpenNode], hosts: list[OpenNode], index: int
) -> tuple[bool, int]:
    """Whether a piece found its place, and how many machines were looked at for it."""
    part, tried = parts[index], 0
    for other in drafts:
        if other.template not in part.templates or other.room(part) < 1:
            continue
        tried += 1
        for piece in other.load:
            mine = parts[piece]
            if not contains(plus(other.free, mine.shape), part.shape):
                continue
            for host in hosts:
                if (
                    host is not other
                    and contains(host.free, mine.shape)
                    and host.template in mine.templates
                    and host.room(mine) > 0
                ):
                    other.drop(piece, mine)
                    other.put(index, part, 1)
                    host.put(piece, mine, 1)
                    return True, tried
    return False, tried


def _room(free: Ints, part: Part) -> Ints:
    shape = np.array(part.shape, dtype=np.int64)
    asks = shape > 0
    return np.asarray((free[:, asks] >= shape[asks]).all(axis=1), dtype=np.int64)


def right_size(drafts: list[OpenNode], templates: Sequence[Template]) -> None:
    """For each machine the cheapest of its pool and zone that holds its load."""
    sizes = np.array([template.shape for template in templates], dtype=np.int64)
    usd = np.array([template.usd_per_hour for template in templates])
    places = {(template.pool, template.zone): n for n, template in enumerate(templates)}
    place = np.array([places[template.pool, template.zone] for template in templates])
    known: dict[tuple[int, Shape, frozenset[int]], int] = {}
    for draft in drafts:
        used = minus(templates[draft.template].shape, draft.free)
        key = (draft.template, used, draft.allowed)
        if key not in known:
            fits = (
                (sizes >= np.array(used)).all(axis=1)
                & (place == place[draft.template])
                & (usd < usd[draft.template])
            )
            fitting = [int(t) for t in np.flatnonzero(fits) if int(t) in draft.allowed]
            known[key] = min(fitting, key=lambda t: usd[t], default=draft.template)
        draft.template = known[key]
        draft.free = minus(templates[draft.template].shape, used)


DISSOLVE_AT_MOST = 200
"""Above this many new machines emptying single ones is left out: it is quadratic, and waste is small at that size."""


def dissolve(
    drafts: list[OpenNode], parts: Sequence[Part], templates: Sequence[Template]
) -> list[OpenNode]:
    """Empty machines into others' gaps where all that is on them fits there, the emptiest first."""
    if not 1 < len(drafts) <= DISSOLVE_AT_MOST:
        return drafts
    kept = sorted(drafts, key=lambda draft: -templates[draft.template].usd_per_hour)
    for victim in sorted(drafts, key=lambda draft: sum(draft.load.values())):
        others = [draft for draft in kept if draft is not victim]
        moves = _moves(victim, others, parts)
        if moves is not None:
            for draft, index, count in moves:
                draft.put(index, parts[index], count)
            kept = others
    return kept


def _moves(
    victim: OpenNode, others: list[OpenNode], parts: Sequence[Part]
) -> list[tuple[OpenNode, int, int]] | None:
    """Where all of a machine's load fits in others' gaps; None if it does not."""
    after = {id(draft): draft.copy() for draft in others}
    moves: list[tuple[OpenNode, int, int]] = []
    for index, wanted in victim.load.items():
        part, left = parts[index], wanted
        for draft in others:
            seen = after[id(draft)]
            if draft.template not in part.templates or not contains(seen.free, part.shape):
                continue
            count = min(left, how_often(part.shape, seen.free), seen.room(part))
            if count > 0:
                seen.put(index, part, count)
                moves.append((draft, index, count))
                left -= count
            if not left:
                break
        if left:
            return None
    return moves


def new_nodes(
    drafts: Sequence[OpenNode], parts: Sequence[Part], templates: Sequence[Template]
) -> list[NewNode]:
    """As the planner wants them: pieces by unit."""
    nodes = []
    for draft in drafts:
        load: dict[int, int] = {}
        used = NOTHING
        for index, count in draft.load.items():
            part = parts[index]
            load[part.unit] = load.get(part.unit, 0) + count * part.each
            used = plus(used, times(part.shape, count))
        nodes.append(NewNode(templates[draft.template], load, used))
    return nodes
