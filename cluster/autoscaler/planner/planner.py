"""One pass of the autoscaler: `plan(snapshot, now)`, as a sequence of stages. Pure.

| Stage | Module | Output |
|---|---|---|
| prepare | `preparation` | `Prepared`: snapshot with overrides, supply, holds |
| collect demand | `demand`, `purchase_outcomes` | `CollectedDemand`: demand items, stops |
| fit onto existing capacity | `fitting` | `PassContext`: placement, free capacity, reservations |
| plan purchases | `purchases` | `PurchasePlan` |
| plan removals | `removals` | `RemovalPlan`, by one order of precedence |
| assemble | `assembly` | `Plan`: commands, verdicts and the merged planner state |

The daemon carries a plan out, `mesaform plan` prints one, and tests and the simulator drive worlds
with it.
"""

from __future__ import annotations

from dataclasses import replace

from mesaform.autoscaler import demand
from mesaform.autoscaler.demand import failing_apps, labelled
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.planner import architectures, purchase_outcomes, purchase_stops
from mesaform.autoscaler.planner.assembly import Packed, Plan, apply_command, assemble
from mesaform.autoscaler.planner.fitting import fit
from mesaform.autoscaler.planner.pass_context import CollectedDemand, PassContext, Prepared
from mesaform.autoscaler.planner.preparation import prepare
from mesaform.autoscaler.planner.purchases import NO_PURCHASES, PurchasePlan, plan_purchases
from mesaform.autoscaler.planner.removals import plan_removals

__all__ = ["Packed", "Plan", "apply_command", "plan"]


def plan(snapshot: Snapshot, now: float) -> Plan:
    """The plan of a pass. The same snapshot at the same moment gives the same plan."""
    prepared = prepare(snapshot, now)
    collected = _collect_demand(prepared)
    context = fit(prepared, collected)
    purchases = _plan_purchases(context)
    removals = plan_removals(context, is_buying=bool(purchases.purchases))
    return assemble(prepared, collected, context, purchases, removals)


def _collect_demand(prepared: Prepared) -> CollectedDemand:
    snapshot, now = prepared.snapshot, prepared.now
    collected = architectures.restrict(demand.collect(snapshot, now), snapshot.spec)
    state = demand.remember(snapshot.state, snapshot, now)
    restricted = failing_apps.restrict(collected, state.failing_apps, snapshot.cluster, now)
    outcomes = purchase_outcomes.observe(prepared, restricted)
    items = labelled.restrict(outcomes.items, now)
    return CollectedDemand(items, replace(state, purchases=outcomes.purchases))


def _plan_purchases(context: PassContext) -> PurchasePlan:
    if context.holds.of_purchases is not None:
        return NO_PURCHASES
    may_buy = purchase_stops.may_buy(context.items, context)
    return plan_purchases(context.snapshot, context.supply, context.items, may_buy, context.now)
