"""When the planner decides something new though nothing happens: the first of its own timers. Pure.

Callers of the planner (the daemon, the simulator) need not know the timers; events wake them
independently. Each time is a moment late rather than early, so that the timer has expired when the
pass begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mesaform.autoscaler.demand import experiments, failing_apps, frameworks, rates, scheduled
from mesaform.autoscaler.disruption.drift import max_age_hours
from mesaform.autoscaler.forecasting.weekly_profile import SLOT_S
from mesaform.autoscaler.interruption import controller
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LISTING_LAG_S
from mesaform.autoscaler.planner import purchase_outcomes, removal_steps
from mesaform.autoscaler.planner.pass_context import PassContext
from mesaform.autoscaler.planner.preparation import LEADER_SETTLE_S, REPLACEMENT_GRACE_S
from mesaform.config import calendar
from mesaform.config.schema import Autoscaler

LATENESS_S = 0.001
"""Seconds added to each timer."""


def next_pass_at(
    context: PassContext, state: PlannerState, *, has_unmet: bool, has_acted: bool
) -> float | None:
    """The time in epoch seconds; None when only an event can change the plan.

    `state` is the state after the pass. After a pass that acted it is the next interval at the
    latest; demand that is unmet waits for the end of launch back-offs.
    """
    now, settings = context.now, context.snapshot.spec.autoscaler
    times = [at + LATENESS_S for at in _timers(context, state) if at + LATENESS_S > now]
    if has_unmet:
        times += [end for end in _ends_of_waits(state) if end > now]
    if has_acted:
        times.append(now + settings.interval_s)
    return min(times, default=None)


def _ends_of_waits(state: PlannerState) -> Iterator[float]:
    """When offerings and stopped pools are tried again."""
    yield from (backoff.until + LATENESS_S for backoff in state.backoffs.values())
    yield from (failures.until + LATENESS_S for failures in state.launch_failures.values())
    yield from (record.until + LATENESS_S for record in state.purchases.values())
    yield from (failing.until + LATENESS_S for failing in state.failing_apps.values())


def _timers(context: PassContext, state: PlannerState) -> Iterator[float]:
    snapshot, settings = context.snapshot, context.snapshot.spec.autoscaler
    yield from (since + settings.idle_after_s for since in state.idle_since.values())
    yield from (override.until for override in snapshot.overrides)
    yield from _machines(context, state)
    yield from _launches(snapshot, state)
    yield from controller.timers(snapshot, state)
    yield from _consolidation(context, state)
    yield from _drift(context)
    yield from _leader(snapshot, state)
    yield from _frameworks(state)
    yield from _predictions(snapshot, context.now)
    yield from _refusals(state)
    yield from (item.buy_at for item in context.items)


def _machines(context: PassContext, state: PlannerState) -> Iterator[float]:
    """Removals in progress, machines that boot, machines that are lost."""
    settings, leader_since = context.snapshot.spec.autoscaler, state.leader_since or 0.0
    for node in context.supply.agent_nodes:
        removal = state.removals.get(node.name)
        if removal is not None:
            yield from _removal(removal, settings)
        elif node.state in {"bought", "booting"}:
            yield max(node.machine.launched_at, leader_since) + settings.boot_timeout_s
        elif node.name in state.lost_since:
            yield max(state.lost_since[node.name], leader_since) + settings.boot_timeout_s


def _removal(removal: Removal, settings: Autoscaler) -> Iterator[float]:
    if removal.phase == "terminating":
        yield removal.requested_at + removal_steps.TERMINATE_AGAIN_S
        return
    yield removal.since + removal_steps.SETTLE_S
    if removal.phase != "draining":
        return
    if removal.is_disruptive:
        yield removal.since + settings.drain_timeout_s
        yield removal.since + max(settings.boot_timeout_s, settings.drain_timeout_s)
    else:
        yield removal.since + settings.drain_grace_s + removal_steps.DRAIN_SLACK_S


def _launches(snapshot: Snapshot, state: PlannerState) -> Iterator[float]:
    """How long orders that EC2 does not list are believed."""
    yield from (intent.at + LISTING_LAG_S for intent in snapshot.intents)
    yield from (replacement.at + REPLACEMENT_GRACE_S for replacement in state.replacements.values())


def _consolidation(context: PassContext, state: PlannerState) -> Iterator[float]:
    settings = context.snapshot.spec.autoscaler.consolidation
    if not settings.enabled:
        return
    yield from (since + settings.underused_after_s for since in state.underused_since.values())
    yield from state.cooldown_until.values()
    yield from (
        node.machine.launched_at + settings.payback_s
        for node in context.supply.agent_nodes
        if node.is_autoscaled
    )
    windows = ((window.days, window.hours) for window in settings.windows)
    yield from _changes(windows, context.now)


def _drift(context: PassContext) -> Iterator[float]:
    for node in context.supply.agent_nodes:
        most_hours = max_age_hours(context.snapshot.spec, node.pool)
        if node.is_autoscaled and most_hours is not None:
            yield node.machine.launched_at + most_hours * 3600


def _leader(snapshot: Snapshot, state: PlannerState) -> Iterator[float]:
    """When counters and agents of a new leader are complete."""
    view = snapshot.cluster
    if view is not None and (view.recovered or view.frameworks):
        since = max(view.elected_at, state.leader_since or 0.0)
        yield since + max(LEADER_SETTLE_S, frameworks.SETTLE_S)


def _frameworks(state: PlannerState) -> Iterator[float]:
    """When a framework counts as starved, when rates say more, and when a test is over."""
    yield from (since + frameworks.DRY_FOR_S for since in state.dry_since.values())
    for marks in state.marks.values():
        yield marks[0].at + rates.ROUND_S
        yield marks[-1].at + rates.MARK_EVERY_S
    for record in state.experiments.values():
        yield record.until
        for seen in record.agents.values():
            yield seen.at + experiments.OFFERED_S
            yield seen.at + experiments.UNOFFERED_S


def _refusals(state: PlannerState) -> Iterator[float]:
    """When work that fits on agents counts as refused by them, and when failing apps have lived."""
    yield from (
        record.pieces.since + purchase_outcomes.REFUSED_AFTER_S
        for record in state.purchases.values()
        if record.pieces is not None and record.pieces.agents
    )
    yield from (
        failing.backed_off_at + failing_apps.LIVED_S for failing in state.failing_apps.values()
    )


def _predictions(snapshot: Snapshot, now: float) -> Iterator[float]:
    """When predicted demand changes, and when machines are bought ahead of it."""
    settings = snapshot.spec.autoscaler
    has_profile = settings.profile.enabled and snapshot.profile is not None
    if not settings.calendar and not has_profile:
        return
    lead_s = scheduled.lead(snapshot)
    entries = [(entry.days, entry.hours) for entry in settings.calendar]
    yield from _changes(entries, now)
    yield from (at - lead_s for at in _changes(entries, now + lead_s))
    if settings.profile.enabled:
        yield (now // SLOT_S + 1) * SLOT_S
        yield ((now + lead_s) // SLOT_S + 1) * SLOT_S - lead_s


def _changes(parts: Iterable[tuple[str, str]], now: float) -> Iterator[float]:
    yield from (
        at for days, hours in parts if (at := calendar.next_change(days, hours, now)) is not None
    )
