"""Stage "assemble": the plan, and the one merge of the stages' parts of the planner state. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler.demand import experiments
from mesaform.autoscaler.model.cluster_view import ClusterView
from mesaform.autoscaler.model.command import Command, Purchase, launch_command
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.experiment import NO_EXPERIMENT, Experiment
from mesaform.autoscaler.model.framework_demand import FrameworkVerdict
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.packing import Packing
from mesaform.autoscaler.planner import framework_verdicts, purchase_stops, timers
from mesaform.autoscaler.planner.observed_state import with_lifetimes
from mesaform.autoscaler.planner.pass_context import CollectedDemand, PassContext, Prepared
from mesaform.autoscaler.planner.purchases import PurchasePlan
from mesaform.autoscaler.planner.removals import RemovalPlan
from mesaform.autoscaler.planner.reports import Reports, report
from mesaform.autoscaler.planner.verdicts import Verdict
from mesaform.aws.overrides import Override, in_force


@dataclass(frozen=True, slots=True)
class Packed:
    """The machines packed in a pass: their price, its lower bound, the gap, and the method.

    Prices are those that machines were sized by; a pool's spot share may make purchases cheaper.
    """

    machines: int
    usd_per_hour: float
    bound_usd_per_hour: float
    gap_percent: float
    method: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of a pass.

    `state` is what the next pass needs to know; commands change it further once they are carried
    out (`apply_command`). `next_pass_at` is when the planner's first own timer runs out, in epoch
    seconds: until then, or an event, the same world gives no other plan. `usd_per_hour` and
    `after_usd_per_hour` are the cluster's rates before and after the plan.
    """

    at: float
    verdicts: tuple[Verdict, ...]
    commands: tuple[Command, ...]
    state: PlannerState
    usd_per_hour: float
    after_usd_per_hour: float
    removals_blocked: Reason | None = None
    freeze: Reason | None = None
    waiting: Reason | None = None
    quarantined: Mapping[str, str] | None = None
    paused: Reason | None = None
    overrides: tuple[Override, ...] = ()
    packed: Packed | None = None
    next_pass_at: float | None = None
    frameworks: tuple[FrameworkVerdict, ...] = ()


def assemble(
    prepared: Prepared,
    collected: CollectedDemand,
    context: PassContext,
    purchases: PurchasePlan,
    removals: RemovalPlan,
) -> Plan:
    """The plan: reports first, then purchases, replacements and removals."""
    reports = report(context, prepared, purchases, collected.state)
    usd, now = context.supply.usd_per_hour, context.now
    packed = _packed(purchases.packing)
    acting = [_buy(purchase, context.items, packed) for purchase in purchases.purchases]
    acting += [*removals.replacement_commands, *removals.commands]
    commands = [*reports.announced, *(command.at(now, usd) for command in acting)]
    commands += reports.observed
    state = _merge(collected, context, purchases, removals, reports)
    after_usd = usd + sum(purchase.usd_per_hour for purchase in purchases.purchases)
    has_acted = any(command.actions or command.next_removal for command in commands)
    return Plan(
        at=now,
        verdicts=reports.verdicts,
        commands=(*commands, *reports.refused),
        state=state,
        usd_per_hour=usd,
        after_usd_per_hour=round(after_usd - removals.saved_usd_per_hour, 6),
        removals_blocked=context.holds.removals_blocked,
        freeze=context.holds.freeze,
        waiting=context.holds.waiting,
        quarantined=context.supply.quarantined,
        paused=context.holds.paused,
        overrides=in_force(context.snapshot.overrides, now),
        packed=packed,
        next_pass_at=timers.next_pass_at(
            context, state, has_unmet=_has_unmet(reports.verdicts), has_acted=has_acted
        ),
        frameworks=reports.frameworks,
    )


def apply_command(state: PlannerState, command: Command) -> PlannerState:
    """The state once a command was carried out: its machine's removal begins, advances or ends."""
    if not command.instance_id:
        return state
    removals = {
        name: removal for name, removal in state.removals.items() if name != command.instance_id
    }
    if command.next_removal is not None:
        removals[command.instance_id] = command.next_removal
    return replace(state, removals=removals)


def _merge(
    collected: CollectedDemand,
    context: PassContext,
    purchases: PurchasePlan,
    removals: RemovalPlan,
    reports: Reports,
) -> PlannerState:
    """The planner state after the pass. Each stage contributes the fields that it decides."""
    view, observed = context.snapshot.cluster or ClusterView(), context.observed
    state = purchase_stops.state_after(collected.state, context, purchases.purchases)
    return replace(
        with_lifetimes(state, view),
        idle_since=observed.idle_since,
        idle_s=observed.idle_s,
        underused_since=observed.underused_since,
        registered_at=observed.registered_at,
        lost_since=observed.lost_since,
        removals=observed.removals,
        history=context.supply.history,
        billed_machines=observed.billed_machines,
        experiments=_experiments(collected.state, context, purchases.purchases),
        replacements=removals.replacements,
        cooldown_until=removals.cooldown_until,
        moves=removals.moves,
        last_reported=reports.last_reported,
        notices=reports.notices,
        advertised=reports.advertised,
        anomalies=reports.anomalies,
        frameworks=framework_verdicts.stored(context.state.frameworks, reports.frameworks),
    )


def _experiments(
    state: PlannerState, context: PassContext, purchases: Sequence[Purchase]
) -> dict[str, Experiment]:
    """The records of purchases for inferred needs, with those of this pass."""
    records = dict(state.experiments)
    for purchase in purchases:
        for index, pieces in purchase.load.items():
            item = context.items[index]
            if item.source == "framework":
                records[item.framework_id] = experiments.after_purchase(
                    records.get(item.framework_id, NO_EXPERIMENT),
                    purchase,
                    pieces,
                    item.shape,
                    context.now,
                )
    return records


def _has_unmet(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.unmet for verdict in verdicts)


def _packed(packing: Packing) -> Packed | None:
    if not packing.nodes:
        return None
    usd, bound_usd = round(packing.usd_per_hour, 6), round(packing.bound_usd_per_hour, 6)
    return Packed(len(packing.nodes), usd, bound_usd, round(packing.gap * 100, 2), packing.method)


def _buy(purchase: Purchase, items: Sequence[DemandItem], packed: Packed | None) -> Command:
    """A purchase as a command; one for demand says how well its pass was packed."""
    reasons = tuple(reason for index in purchase.load for reason in items[index].reasons)
    minimum = Reason.of(ReasonCode.POOL_MINIMUM, pool=purchase.request.pool)
    command = launch_command(purchase, reasons or (minimum,), items)
    if packed is None or not purchase.load:
        return command
    decision = replace(
        command.decision,
        packed_usd=packed.usd_per_hour,
        bound_usd=packed.bound_usd_per_hour,
        gap_percent=packed.gap_percent,
        method=packed.method,
    )
    return replace(command, decision=decision)
