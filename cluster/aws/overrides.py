"""Operators' orders: which are in force, and how they read. Pure; what they lead to is the autoscaler's business."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from mesaform.aws.ports import Override


def in_force(orders: Iterable[Override], now: float) -> tuple[Override, ...]:
    """The orders that have not run out, oldest first."""
    return tuple(
        sorted(
            (order for order in orders if order.is_in_force(now)),
            key=lambda order: (order.at, order.id),
        )
    )


def describe(order: Override) -> str:
    """An order in one line: what, by whom, until when, why."""
    what = {
        "pause": "paused",
        "bound": f"{order.bound} of pool {order.pool} is {order.count}",
        "hint": f"room for {order.count} x ({order.cpus:g} cpus, {order.mem_mib:g} MiB)"
        + (f" in pool {order.pool}" if order.pool else ""),
        "drain": f"{order.target} is drained",
    }[order.kind]
    until = datetime.fromtimestamp(order.until, UTC).strftime("%m-%d %H:%M:%S UTC")
    return f"{what}, by {order.by} until {until}" + (f": {order.reason}" if order.reason else "")
