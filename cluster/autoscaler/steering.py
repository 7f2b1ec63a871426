"""What operators' orders come to at a moment: a pause, other bounds of a pool, and words for people. Pure.

Hints become demand in `demand`, drains become removals in `scale_down`; both read the orders that this module says are in force.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from cluster.cloud.port import Order
from cluster.spec import ClusterSpec, Pool


def in_force(orders: Iterable[Order], now: float) -> tuple[Order, ...]:
    """The orders that have not run out, oldest first."""
    return tuple(sorted((order for order in orders if order.is_in_force(now)), key=lambda order: (order.at, order.id)))


def paused(orders: Iterable[Order], now: float) -> str:
    """Why nothing is bought or removed for now; empty when no pause is in force. The pause that lasts longest counts."""
    last = max((order for order in in_force(orders, now) if order.kind == "pause"), key=lambda order: order.until, default=None)
    return "" if last is None else describe(last)


def with_bounds(spec: ClusterSpec, orders: Iterable[Order], now: float) -> ClusterSpec:
    """The spec with the bounds that are set for now; of two orders for one bound the later one counts.

    A minimum never asks for more than the maximum, and neither goes below what Terraform keeps.
    """
    given = [order for order in in_force(orders, now) if order.kind == "bound"]
    if not given:
        return spec
    return spec.model_copy(update={"agents": tuple(_bounded(pool, given) for pool in spec.agents)})


def _bounded(pool: Pool, orders: Iterable[Order]) -> Pool:
    bounds = {order.bound: order.count for order in orders if order.pool == pool.name}
    if not bounds:
        return pool
    most = max(pool.count, bounds.get("max", pool.max))
    least = min(most, max(pool.count, bounds.get("min", pool.floor)))
    return pool.model_copy(update={"min": least, "max": most})


def describe(order: Order) -> str:
    """An order in one line: what, by whom, until when, why."""
    what = {
        "pause": "paused",
        "bound": f"{order.bound} of pool {order.pool} is {order.count}",
        "hint": f"room for {order.count} x ({order.cpus:g} cpus, {order.mem_mib:g} MiB)" + (f" in pool {order.pool}" if order.pool else ""),
        "drain": f"{order.target} is drained",
    }[order.kind]
    until = datetime.fromtimestamp(order.until, UTC).strftime("%m-%d %H:%M:%S UTC")
    return f"{what}, by {order.by} until {until}" + (f": {order.reason}" if order.reason else "")
