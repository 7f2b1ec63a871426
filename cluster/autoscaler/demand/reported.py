"""Demand that adapters read of frameworks: exact shapes and counts. Pure.

Nothing is inferred of a framework that an adapter answers for. What a framework claims is limited
by the quota of its role, by stops of purchases and by spending limits, as all demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mesaform.autoscaler.model.cluster_view import Framework
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, WantedShape
from mesaform.autoscaler.model.shape import NOTHING
from mesaform.autoscaler.model.snapshot import Snapshot


def of(snapshot: Snapshot) -> Mapping[str, FrameworkDemand]:
    """What adapters read of connected frameworks, by framework id."""
    view = snapshot.cluster
    frameworks = view.frameworks if view is not None else ()
    return {
        framework.framework_id: demand
        for framework in frameworks
        if (demand := snapshot.framework_demand.get(framework.framework_id)) is not None
    }


def units(snapshot: Snapshot) -> list[DemandItem]:
    """The demand of all frameworks that an adapter answers for."""
    view, answers = snapshot.cluster, of(snapshot)
    return [
        item
        for framework in (view.frameworks if view is not None else ())
        if framework.framework_id in answers
        for item in _items(framework, answers[framework.framework_id])
    ]


def _items(framework: Framework, demand: FrameworkDemand) -> Iterator[DemandItem]:
    for wanted in demand.wanted:
        if wanted.count > 0 and wanted.shape != NOTHING:
            yield _item(framework, demand, wanted)


def _item(framework: Framework, demand: FrameworkDemand, wanted: WantedShape) -> DemandItem:
    return DemandItem(
        "reported",
        f"{framework.name}/{wanted.name}" if wanted.name else framework.name,
        wanted.shape,
        wanted.count,
        demand.evidence,
        (*framework.constraints, *wanted.constraints),
        framework_id=framework.framework_id,
        role=wanted.role or framework.roles[0],
    )
