"""Stops of purchases by unit of demand: what a stopped unit may buy, and what is remembered. Pure.

`purchase_outcomes` decides that a unit stops. Existing machines serve a stopped unit as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mesaform.autoscaler.demand import failing_apps
from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.demand_item import DemandItem, PurchaseStop, Source
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.purchase_record import UnitPurchases, WaitingPieces
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.planner.pass_context import PassContext

BOUGHT_AHEAD: frozenset[Source] = frozenset({"headroom", "hint", "calendar", "profile"})
"""Demand of which no work waits yet. Its machines are meant to be idle, so nothing is recorded."""

NOT_RECORDED = BOUGHT_AHEAD | {"framework"}
"""Purchases for inferred needs have records of their own (`demand.experiments`)."""


def restricted(item: DemandItem, record: UnitPurchases | None, now: float) -> DemandItem:
    """An item with the machines that it refused, and with its stop."""
    if record is None or item.blocked is not None:
        return item
    item = replace(item, refused_by=frozenset(record.refused_by))
    for reason in stop_reasons(record, now):
        stop = PurchaseStop("purchases_stopped", int(now >= record.until), reason)
        return replace(item, stop=stop)
    if record.refused_by and item.stop is None:
        refused = Reason.of(ReasonCode.AGENTS_REFUSED, agents=record.refused_by)
        return replace(item, stop=PurchaseStop("purchases_stopped", 1, refused))
    return item


def may_buy(items: Sequence[DemandItem], context: PassContext) -> dict[int, int]:
    """The pieces that fit nowhere, by index of the item, without those that a stop forbids."""
    placement = context.placement
    left = dict(placement.left)
    for index, count in placement.left.items():
        stop = items[index].stop
        if stop is not None:
            served = sum(placement.placed.get(index, {}).values())
            left[index] = min(count, max(0, stop.pieces - served))
    return left


def state_after(
    state: PlannerState, context: PassContext, purchases: Sequence[Purchase]
) -> PlannerState:
    """The state with the purchases of the pass, and with what waits for registered agents."""
    records = {**state.purchases, **_waiting(state, context)}
    failing = dict(state.failing_apps)
    for purchase in purchases:
        for item in (context.items[index] for index in purchase.load):
            if item.source in NOT_RECORDED:
                continue
            record = records.get(item.key) or new_record(item)
            launches = {**record.launches, purchase.request.token: context.now}
            records[item.key] = replace(record, launches=launches)
            if item.stop is not None and item.name in failing:
                failing[item.name] = failing_apps.after_purchase(failing[item.name], context.now)
    return replace(state, purchases=records, failing_apps=failing)


def new_record(item: DemandItem) -> UnitPurchases:
    """The record of a unit for which nothing was bought yet."""
    return UnitPurchases(item.name if item.source == "services" else "", item.config)


def stopped_units(state: PlannerState) -> dict[str, UnitPurchases]:
    """The units whose purchases stopped, by key."""
    return {key: record for key, record in state.purchases.items() if record.reason is not None}


def stop_reasons(record: UnitPurchases, now: float) -> tuple[Reason, ...]:
    """Why a unit stopped, with the time until the next machine is tried; empty if it did not."""
    if record.reason is None:
        return ()
    retry_s = max(0.0, record.until - now)
    return (Reason(record.reason.code, {**record.reason.params, "retry_s": retry_s}),)


def newly_stopped(before: PlannerState, after: PlannerState) -> Iterator[tuple[str, UnitPurchases]]:
    """Units that stopped, or stopped again, since an earlier state."""
    for key, record in stopped_units(after).items():
        known = before.purchases.get(key)
        if known is None or known.until < record.until:
            yield key, record


def resumed(before: PlannerState, after: PlannerState) -> list[str]:
    """Units that were stopped, still have a record, and are stopped no more."""
    stopped = stopped_units(after)
    return sorted(
        key for key in stopped_units(before) if key not in stopped and key in after.purchases
    )


def running_instances(snapshot: Snapshot, item: DemandItem) -> int:
    """The running instances of an item's app."""
    view = snapshot.cluster
    return sum(agent.apps.get(item.name, 0) for agent in (view.agents if view else ()))


def _waiting(state: PlannerState, context: PassContext) -> dict[str, UnitPurchases]:
    """The records of apps with what waits of them after this pass."""
    if not context.has_master:
        return {}
    waiting = {}
    for index, item in enumerate(context.items):
        if item.blocked is None and item.source == "services":
            record = state.purchases.get(item.key) or new_record(item)
            waiting[item.key] = replace(record, pieces=_pieces(index, item, record, context))
    return waiting


def _pieces(
    index: int, item: DemandItem, record: UnitPurchases, context: PassContext
) -> WaitingPieces:
    """What waits of an item after this pass; since when, if nothing changed."""
    kinds = {node.name: node.kind for node in context.supply.nodes}
    placed = context.placement.placed.get(index, {})
    agents = tuple(sorted(name for name in placed if kinds[name] in {"settled", "idle"}))
    present = WaitingPieces(
        item.count, running_instances(context.snapshot, item), context.now, agents
    )
    known = record.pieces
    if known is not None and replace(known, since=context.now) == present:
        return known
    return present
