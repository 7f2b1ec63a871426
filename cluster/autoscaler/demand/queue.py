"""Work queues: exact. What backs off after failures is no demand; what every offer was refused for, a machine may not cure.

A deployment that rolls is in the queue with what it may start now, beside what still runs: nothing of it is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.autoscaler.model.demand_item import BlockedKind, DemandItem

NOT_CURED_BY_MACHINES: dict[str, BlockedKind] = {
    "UnfulfilledRole": "role",
    "NoCorrespondingReservationFound": "reservation",
    "AgentMaintenance": "maintenance",
}
"""Reasons of the services' queue that another machine of the same kind cannot change."""


def units(entries: Iterable[QueueEntry], now: float) -> list[DemandItem]:
    """What waits for an offer."""
    return [_unit(entry, now) for entry in entries if entry.overdue and entry.count > 0]


def _unit(entry: QueueEntry, now: float) -> DemandItem:
    waiting = f"for {now - entry.since:.0f} s" if 0 < entry.since <= now else "for an offer"
    refusals = ", ".join(
        f"{reason} {count}" for reason, count in sorted(entry.rejections.items()) if count
    )
    these = "1 instance" if entry.count == 1 else f"{entry.count} instances"
    reason = f"{entry.app}: {these} waiting {waiting}" + (
        f"; offers refused: {refusals}" if refusals else ""
    )
    blocked, kind = _incurable(entry)
    return DemandItem(
        entry.source,
        entry.app,
        entry.shape,
        entry.count,
        reason,
        entry.constraints,
        blocked,
        kind,
        role=entry.role,
    )


def _incurable(entry: QueueEntry) -> tuple[str, BlockedKind]:
    """Whether every refusal so far had a reason that a new machine would meet with as well."""
    refused = {reason for reason, count in entry.rejections.items() if count}
    if refused and refused <= NOT_CURED_BY_MACHINES.keys():
        kinds = sorted(NOT_CURED_BY_MACHINES[reason] for reason in refused)
        return (
            f"its {' and '.join(kinds)} ({entry.role}) matches no offer; a new machine would offer the same",
            kinds[0],
        )
    return "", ""
