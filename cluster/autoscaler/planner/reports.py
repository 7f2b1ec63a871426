"""Reports of a pass beside commands: verdicts, announcements, anomalies, refusals. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler.interruption import announcements, controller
from mesaform.autoscaler.model.command import Command
from mesaform.autoscaler.model.decision import Decision, DemandCount
from mesaform.autoscaler.model.framework_demand import FrameworkVerdict
from mesaform.autoscaler.model.notice import Notice
from mesaform.autoscaler.model.planner_state import Advertised, PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.planner import (
    advertised_capacity,
    framework_verdicts,
    launch_failures,
    purchase_stops,
)
from mesaform.autoscaler.planner.pass_context import PassContext, Prepared
from mesaform.autoscaler.planner.purchases import PurchasePlan
from mesaform.autoscaler.planner.verdicts import Verdict, VerdictBuilder


@dataclass(frozen=True, slots=True)
class Reports:
    """Verdicts and decisions without actions, and their part of the planner state.

    `last_reported`, `notices`, `advertised` and `anomalies` are fields of `PlannerState`: each fact
    is reported once.
    """

    verdicts: tuple[Verdict, ...]
    announced: tuple[Command, ...]
    observed: tuple[Command, ...]
    frameworks: tuple[FrameworkVerdict, ...]
    refused: tuple[Command, ...]
    last_reported: dict[str, str]
    notices: dict[str, Notice]
    advertised: dict[str, Advertised]
    anomalies: dict[str, Reason]


def report(
    context: PassContext, prepared: Prepared, purchases: PurchasePlan, state: PlannerState
) -> Reports:
    """The reports of a pass. While purchases are held, refusals are not reported.

    `state` is the planner state after demand was collected.
    """
    snapshot, supply, now = context.snapshot, context.supply, context.now
    held = context.holds.of_purchases
    builder = VerdictBuilder(snapshot, supply, context.placement, purchases.purchases, held, now)
    verdicts = tuple(builder.verdict(index, item) for index, item in enumerate(context.items))
    announced = announcements.unreported(snapshot, supply.usd_per_hour, now)
    learned = advertised_capacity.learn(snapshot, prepared.stated_offerings, supply, now)
    reported = context.state.last_reported
    changed, frameworks = _frameworks(context, verdicts)
    refused = () if held else _new_refusals(verdicts, reported, supply.usd_per_hour, now)
    return Reports(
        verdicts=verdicts,
        announced=tuple(map(Command, (*announced, *_stops(context, prepared, state)))),
        observed=tuple(map(Command, (*learned.decisions, *changed))),
        frameworks=frameworks,
        refused=refused,
        last_reported=reported if held else _refusal_kinds(verdicts),
        notices=controller.notices_after(snapshot, announced, now),
        advertised=learned.advertised,
        anomalies=learned.anomalies,
    )


def _frameworks(
    context: PassContext, verdicts: Sequence[Verdict]
) -> tuple[list[Decision], tuple[FrameworkVerdict, ...]]:
    """The verdicts on frameworks, and decisions about those that changed."""
    usd, now = context.supply.usd_per_hour, context.now
    decisions, built = framework_verdicts.changes(
        framework_verdicts.build(context.snapshot, verdicts, now), now
    )
    return [replace(item, before_usd=usd, after_usd=usd) for item in decisions], built


def _stops(context: PassContext, prepared: Prepared, state: PlannerState) -> Iterator[Decision]:
    """Decisions about pools and units of demand that stopped or resumed since the last pass."""
    usd, now = context.supply.usd_per_hour, context.now
    before = prepared.state_before
    for decision in (*_pool_stops(before, state, now), *_unit_stops(before, state, now)):
        yield replace(decision, before_usd=usd, after_usd=usd)


def _pool_stops(before: PlannerState, after: PlannerState, now: float) -> Iterator[Decision]:
    for failures in launch_failures.newly_stopped(before, after):
        yield Decision(
            now,
            "pool_stopped",
            (launch_failures.reason(failures, now),),
            pool=failures.pool,
            machines=(failures.instance_id,),
        )
    for pool in launch_failures.resumed(before, after):
        reasons = (Reason.of(ReasonCode.AGENTS_REGISTER_AGAIN),)
        yield Decision(now, "pool_resumed", reasons, pool=pool)


def _unit_stops(before: PlannerState, after: PlannerState, now: float) -> Iterator[Decision]:
    for key, record in purchase_stops.newly_stopped(before, after):
        reasons = purchase_stops.stop_reasons(record, now)
        refused = tuple(str(r.params["instance_id"]) for r in reasons if "instance_id" in r.params)
        count = record.pieces.waiting if record.pieces else 1
        demand = (DemandCount(record.app or key, count),)
        yield Decision(now, "purchases_stopped", reasons, machines=refused, demand=demand)
    for key in purchase_stops.resumed(before, after):
        demand = (DemandCount(after.purchases[key].app or key, 1),)
        of_use = (Reason.of(ReasonCode.PURCHASE_OF_USE),)
        yield Decision(now, "purchases_resumed", of_use, demand=demand)


def _refusal_kinds(verdicts: Sequence[Verdict]) -> dict[str, str]:
    return {
        verdict.unit.key: verdict.refusal.kind
        for verdict in verdicts
        if verdict.refusal is not None
    }


def _new_refusals(
    verdicts: Sequence[Verdict], reported: Mapping[str, str], usd_per_hour: float, now: float
) -> tuple[Command, ...]:
    """Decisions about items newly refused, or refused with another verdict than before."""
    return tuple(
        Command(
            Decision(
                now,
                "unschedulable",
                (*verdict.refusal.reasons, *verdict.unit.reasons),
                count=verdict.unmet,
                demand=(DemandCount(verdict.unit.name, verdict.unmet),),
                before_usd=usd_per_hour,
                after_usd=usd_per_hour,
            )
        )
        for verdict in verdicts
        if verdict.refusal is not None and reported.get(verdict.unit.key) != verdict.refusal.kind
    )
