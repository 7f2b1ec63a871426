"""Resources in use or about to be, by pool. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NOTHING, Shape, plus, times
from mesaform.autoscaler.model.snapshot import Snapshot

ALL = ""
"""The key of all pools together."""


@dataclass(frozen=True, slots=True)
class Use:
    """Resources of tasks that run or wait for an offer, and the number of these tasks."""

    amount: Shape = NOTHING
    pieces: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(plus(self.amount, other.amount), self.pieces + other.pieces)


def in_use(snapshot: Snapshot, waiting: Iterable[DemandItem]) -> dict[str, Use]:
    """Use by pool and of all pools. Work for any pool counts for the first pool of the spec."""
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
    """The pool that an item is pinned to; empty for none."""
    pinned = (
        c.value for c in unit.constraints if c.field == "pool" and c.operator in {"IS", "CLUSTER"}
    )
    return next(pinned, "")
