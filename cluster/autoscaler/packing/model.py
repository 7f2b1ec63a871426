"""Input and output of packing: templates, limits, effort, and the nodes with their bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mesaform.autoscaler.model.shape import Shape
from mesaform.common.resources import Range

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Template:
    """A machine that could be bought, with the host `ports` that its agent will offer.

    `hostname` is one that no existing agent has.
    """

    pool: str
    instance_type: str
    zone: str
    capacity: str
    usd_per_hour: float
    shape: Shape
    attributes: Mapping[str, str]
    hostname: str = "a new machine"
    ports: tuple[Range, ...] = ()


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


@dataclass(slots=True)
class EffortBudget:
    """Remaining budget, in rows considered for a machine: some twenty million per second."""

    left: int

    def spend(self, amount: int) -> None:
        self.left -= amount

    @property
    def is_spent(self) -> bool:
        return self.left <= 0


@dataclass(frozen=True, slots=True)
class Effort:
    """Effort limits. They are counts, not times, so equal input gives equal results.

    `work` in all, after which the best answer so far is given, at worst that of first fit; `rounds`
    of column generation (0: first fit only), each with as many `fills`; `kinds` that are searched
    where filling finds nothing, with as many `states`; `dives` from the fractional answer to a
    whole one, with as many `refills` rounds in each; `nodes` of branch and bound of the
    whole-number programme; `rows` at most, above which demand is merged that differs only in zone
    or app, then in size; `loads` that are enumerated at most: small answers are exact.
    """

    budget: int = 60_000_000
    rounds: int = 60
    fills: int = 6
    kinds: int = 6
    states: int = 200
    dives: int = 40
    refills: int = 2
    nodes: int = 200
    rows: int = 100
    patterns: int = 1_500


USUAL = Effort()
QUICK = Effort(rounds=0)
GOOD_ENOUGH = 0.001
"""A plan within this part of its lower bound is not worked on any more."""


Method = Literal["first fit", "columns", "exact"]


@dataclass(frozen=True, slots=True)
class Packing:
    """Machines to buy.

    `bound_usd_per_hour` is what serving the same pieces costs at least, whatever is bought.

    `method` is the way that found it: `first fit`, `columns`, or `exact` when every load was
    considered and nothing is cheaper. `cut_short`: the budget of work ran out before the search for
    better ones ended.
    """

    nodes: tuple[NewNode, ...] = ()
    usd_per_hour: float = 0.0
    bound_usd_per_hour: float = 0.0
    method: Method = "first fit"
    cut_short: bool = False

    @property
    def gap(self) -> float:
        """By how large a part the price may be above the cheapest possible.

        0 when it is the cheapest.
        """
        return (
            max(0.0, self.usd_per_hour / self.bound_usd_per_hour - 1)
            if self.bound_usd_per_hour > 0
            else 0.0
        )
