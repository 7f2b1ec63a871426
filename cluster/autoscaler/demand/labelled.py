"""What the labels of work (`placement.task_labels`) change of its demand. Pure.

Constraints of labels are among the constraints of an item already. Here items get the labels as a
reason, a verdict for a label that cannot be read, and the wait that the work allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mesaform.autoscaler.model.demand_item import DemandItem, PurchaseStop
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.placement.task_labels import TaskLabels


def with_labels(item: DemandItem, labels: TaskLabels, since: float) -> DemandItem:
    """An item of work with labels that waits since a time (epoch s; 0: not known, so no wait)."""
    if labels.stated:
        stated = Reason.of(ReasonCode.DEMAND_LABELS, labels=labels.stated)
        item = replace(item, reasons=(*item.reasons, stated))
    if labels.max_wait_s and since:
        item = replace(item, buy_at=since + labels.max_wait_s)
    if labels.problems and item.blocked is None:
        invalid = Reason.of(ReasonCode.LABEL_INVALID, problem=labels.problem)
        item = replace(item, blocked=invalid, blocked_kind="label")
    return item


def restrict(items: Iterable[DemandItem], now: float) -> tuple[DemandItem, ...]:
    """The items, with a stop for those that may wait for capacity that exists."""
    return tuple(
        replace(item, stop=_stop(item, now)) if item.blocked is None and item.buy_at > now else item
        for item in items
    )


def _stop(item: DemandItem, now: float) -> PurchaseStop:
    return PurchaseStop("max_wait", 0, Reason.of(ReasonCode.MAX_WAIT, left_s=item.buy_at - now))
