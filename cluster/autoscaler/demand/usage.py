"""What is in use or about to be, by pool: what room for work to come is measured against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NOTHING, Shape, plus, times
from mesaform.autoscaler.model.snapshot import Snapshot

ALL = ""
"""The name under which all pools are counted together."""


@dataclass(frozen=True, slots=True)
class Use:
    """Resources of tasks that run or wait for an offer, and how many tasks that is."""

    amount: Shape = NOTHING
    pieces: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(plus(self.amount, other.amount), self.pieces + other.pieces)


def in_use(snapshot: Snapshot, waiting: Iterable[DemandItem]) -> dict[str, Use]:
    """By pool, and of all together. Work that may go to any pool counts for the first one that the spec names."""
    first = snapshot.spec.agents[0].name
    by_pool = {pool.name: Use() for pool in snapshot.spec.agents}
    total = Use()
    for agent in snapshot.cluster.agents if snapshot.cluster is not None else ():
        pool = agent.attributes.get("pool", first)
        total += (use := Use(agent.allocated, agent.tasks))
        by_pool[pool] = by_pool.get(pool, Use()) + use
    for unit in waiting:
        if not unit.blocked:
            pool = pool_of(unit) or first
            total += (use := Use(times(unit.shape, unit.count), unit.count))
            by_pool[pool] = by_pool.get(pool, Use()) + use
    return {**by_pool, ALL: total}


def pool_of(unit: DemandItem) -> str:
    """The pool that a unit is pinned to; empty when it is free."""
    pinned = (
        c.value
        for c in unit.constraints
        if c.field == "pool" and c.operator.upper() in {"IS", "CLUSTER"}
    )
    return next(pinned, "")
