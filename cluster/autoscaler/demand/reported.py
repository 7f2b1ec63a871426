"""Demand that adapters read of frameworks: exact shapes and counts. Pure.

Nothing is inferred of a framework that an adapter answers for. What a framework claims is limited
by the quota of its role, by stops of purchases and by spending limits, as all demand. Tasks that
started since the answer was read are no more wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mesaform.autoscaler.demand.labelled import with_labels
from mesaform.autoscaler.model.cluster_view import Framework
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, WantedShape
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import NOTHING, contains, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot

PRICE_TOLERANCE = 1.01
"""Of machines with almost the cheapest cpus, the smallest gives the size of a piece."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """An offering: its whole cpus, and their price in USD an hour."""

    cpus: int
    usd_per_cpu: float


def of(snapshot: Snapshot) -> Mapping[str, FrameworkDemand]:
    """What adapters read of connected frameworks, by framework id."""
    return {
        framework.framework_id: snapshot.framework_demand[framework.framework_id]
        for framework in _connected(snapshot)
    }


def units(snapshot: Snapshot) -> list[DemandItem]:
    """The demand of all frameworks that an adapter answers for."""
    return [
        item
        for framework in _connected(snapshot)
        for item in _items(framework, snapshot.framework_demand[framework.framework_id], snapshot)
    ]


def _connected(snapshot: Snapshot) -> list[Framework]:
    view = snapshot.cluster
    frameworks = view.frameworks if view is not None else ()
    answered = snapshot.framework_demand
    return [item for item in frameworks if item.active and item.framework_id in answered]


def _items(
    framework: Framework, demand: FrameworkDemand, snapshot: Snapshot
) -> Iterator[DemandItem]:
    started = 0 if demand.tasks is None else max(0, framework.tasks - demand.tasks)
    for wanted in demand.wanted:
        if wanted.count > 0 and wanted.shape != NOTHING:
            pieces = _in_pieces(wanted, snapshot) if wanted.divisible else wanted
            left = max(0, pieces.count - started)
            taken, started = pieces.count - left, max(0, started - pieces.count)
            if left:
                yield _item(framework, demand, replace(pieces, count=left), taken)


def _item(
    framework: Framework, demand: FrameworkDemand, wanted: WantedShape, taken: int
) -> DemandItem:
    reasons = demand.evidence
    if taken:
        reasons = (*reasons, Reason.of(ReasonCode.ALREADY_STARTED, count=taken))
    item = DemandItem(
        "reported",
        f"{framework.name}/{wanted.name}" if wanted.name else framework.name,
        wanted.shape,
        wanted.count,
        reasons,
        (*framework.constraints, *wanted.constraints),
        framework_id=framework.framework_id,
        role=wanted.role or framework.roles[0],
    )
    return with_labels(item, framework.labels.joined(wanted.labels), wanted.since)


def _in_pieces(wanted: WantedShape, snapshot: Snapshot) -> WantedShape:
    """A divisible shape as pieces of the cpus of one machine, with the memory of one piece.

    The size is that of the smallest machine among those with the cheapest cpus. What does not exist
    for the shape stays as it is, so that its verdict names the nearest type.
    """
    fitting = list(_machines_for(wanted, snapshot))
    if not fitting:
        return wanted
    most_usd = min(machine.usd_per_cpu for machine in fitting) * PRICE_TOLERANCE
    cpus = min(machine.cpus for machine in fitting if machine.usd_per_cpu <= most_usd)
    cpus = min(cpus, wanted.count)
    shape = (cpus * 1000, *wanted.shape[1:])
    return replace(wanted, shape=shape, count=math.ceil(wanted.count / cpus))


def _machines_for(wanted: WantedShape, snapshot: Snapshot) -> Iterable[_Machine]:
    for offered in snapshot.offerings.values():
        for offering in offered:
            shape = shape_of(offering.resources)
            cpus = shape[0] // 1000
            if cpus and contains(shape, wanted.shape):
                yield _Machine(cpus, offering.usd_per_hour / cpus)
