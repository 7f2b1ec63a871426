"""What operators' orders come to at a moment: a pause, other bounds of a pool. Pure.

Hints become demand in `demand`, drains become removals in `scale_down`; both read the orders that this module says are in force.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.aws.overrides import Override, in_force
from mesaform.config.schema import ClusterSpec, Pool


def paused(orders: Iterable[Override], now: float) -> Reason | None:
    """Why nothing is bought or removed for now; None when no pause is in force.

    Of several pauses the one that lasts longest counts.
    """
    last = max(
        (order for order in in_force(orders, now) if order.kind == "pause"),
        key=lambda order: order.until,
        default=None,
    )
    if last is None:
        return None
    return Reason.of(ReasonCode.PAUSED, by=last.by, until_epoch_s=last.until, note=last.reason)


def with_bounds(spec: ClusterSpec, orders: Iterable[Override], now: float) -> ClusterSpec:
    """The spec with the bounds that are set for now; of two orders for one bound the later one counts.

    A minimum never asks for more than the maximum, and neither goes below what Terraform keeps.
    """
    given = [order for order in in_force(orders, now) if order.kind == "bound"]
    if not given:
        return spec
    return spec.model_copy(update={"agents": tuple(_bounded(pool, given) for pool in spec.agents)})


def _bounded(pool: Pool, orders: Iterable[Override]) -> Pool:
    bounds = {order.bound: order.count for order in orders if order.pool == pool.name}
    if not bounds:
        return pool
    most = max(pool.count, bounds.get("max", pool.max))
    least = min(most, max(pool.count, bounds.get("min", pool.floor)))
    return pool.model_copy(update={"min": least, "max": most})
