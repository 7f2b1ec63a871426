"""The spending limit of inferred needs, applied to packed machines. Pure.

Demand for a framework is cut to what its limit allows at the cheapest machine's price. Packing may
choose a dearer one, because the cheapest is not available or serves other demand too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mesaform.autoscaler.demand.experiments import spent_usd
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.experiment import NO_EXPERIMENT
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.packing import NewNode, Packing


def within(
    packing: Packing, items: Sequence[DemandItem], snapshot: Snapshot, now: float
) -> Packing:
    """The packing without pieces of frameworks whose limit their machine exceeds."""
    if not any(item.source == "framework" for item in items):
        return packing
    left_usd = _left_usd(items, snapshot, now)
    nodes = tuple(_affordable(packing.nodes, items, left_usd))
    if nodes == packing.nodes:
        return packing
    usd = round(sum(node.template.usd_per_hour for node in nodes), 9)
    bound_usd = min(usd, packing.bound_usd_per_hour)
    return replace(packing, nodes=nodes, usd_per_hour=usd, bound_usd_per_hour=bound_usd)


def _left_usd(items: Iterable[DemandItem], snapshot: Snapshot, now: float) -> dict[str, float]:
    """What each framework's limit leaves, by framework id."""
    limit_usd = snapshot.spec.autoscaler.inference.usd_per_hour
    records = snapshot.state.experiments
    return {
        item.framework_id: limit_usd - spent_usd(records.get(item.framework_id, NO_EXPERIMENT), now)
        for item in items
        if item.source == "framework"
    }


def _affordable(
    nodes: Iterable[NewNode], items: Sequence[DemandItem], left_usd: dict[str, float]
) -> Iterable[NewNode]:
    for node in nodes:
        usd = node.template.usd_per_hour
        load = {
            index: pieces
            for index, pieces in node.load.items()
            if items[index].source != "framework"
            or left_usd[items[index].framework_id] >= usd - 1e-9
        }
        for name in _frameworks_of(load, items):
            left_usd[name] -= usd
        if load == dict(node.load):
            yield node
        elif load:
            yield replace(node, load=load)


def _frameworks_of(load: Mapping[int, int], items: Sequence[DemandItem]) -> set[str]:
    return {items[index].framework_id for index in load if items[index].source == "framework"}
