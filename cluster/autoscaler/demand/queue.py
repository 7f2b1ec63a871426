"""Demand of work queues: exact shapes and counts. Pure.

Work that backs off after failures is no demand. Work that every offer was refused for may be
blocked. A rolling deployment is in the queue with what it may start now: nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.autoscaler.demand.labelled import with_labels
from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.autoscaler.model.demand_item import BlockedKind, DemandItem
from mesaform.autoscaler.model.reason import Reason, ReasonCode

NOT_CURED_BY_MACHINES: dict[str, BlockedKind] = {
    "UnfulfilledRole": "role",
    "NoCorrespondingReservationFound": "reservation",
    "AgentMaintenance": "maintenance",
}
"""Refusal reasons of the services' queue that a new machine of the same kind meets as well."""


def units(entries: Iterable[QueueEntry], now: float) -> list[DemandItem]:
    """Work that waits for an offer."""
    return [_unit(entry, now) for entry in entries if entry.overdue and entry.count > 0]


def _unit(entry: QueueEntry, now: float) -> DemandItem:
    wait_s = now - entry.since if 0 < entry.since <= now else 0.0
    reasons = [Reason.of(ReasonCode.DEMAND_QUEUED, app=entry.app, count=entry.count, wait_s=wait_s)]
    refusals = tuple(
        f"{reason} {count}" for reason, count in sorted(entry.rejections.items()) if count
    )
    if refusals:
        reasons.append(Reason.of(ReasonCode.OFFERS_REFUSED, refusals=refusals))
    blocked, kind = _incurable(entry)
    item = DemandItem(
        "services",
        entry.app,
        entry.shape,
        entry.count,
        tuple(reasons),
        entry.constraints,
        blocked,
        kind,
        role=entry.role,
        config=entry.config,
    )
    return with_labels(item, entry.labels, entry.since)


def _incurable(entry: QueueEntry) -> tuple[Reason | None, BlockedKind]:
    """The verdict if a new machine would be refused, as far as is known.

    A machine's resources are reserved for no role. Refused for one reason are all like it.
    """
    if not entry.accepts_unreserved:
        return Reason.of(ReasonCode.MATCHES_NO_OFFER, causes=("role",), role=entry.role), "role"
    refused = {reason for reason, count in entry.rejections.items() if count}
    if refused and refused <= NOT_CURED_BY_MACHINES.keys():
        kinds = sorted(NOT_CURED_BY_MACHINES[reason] for reason in refused)
        return (
            Reason.of(ReasonCode.MATCHES_NO_OFFER, causes=tuple(kinds), role=entry.role),
            kinds[0],
        )
    return None, ""
