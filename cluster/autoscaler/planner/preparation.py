"""Stage "prepare": the effective snapshot, the supply, and reasons why a pass does not act.

Pure.
"""

from __future__ import annotations

from dataclasses import replace

from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import Replacement
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LISTING_LAG_S, LIVE, Supply
from mesaform.autoscaler.model.supply_builder import build_supply
from mesaform.autoscaler.planner import (
    advertised_capacity,
    architectures,
    launch_failures,
    overrides,
)
from mesaform.autoscaler.planner.pass_context import Holds, Prepared
from mesaform.topology.names import Tag

REPLACEMENT_GRACE_S = 5.0
"""Seconds after its decision that a replacement may be without an order in the journal."""

LEADER_SETTLE_S = 30.0
"""Seconds after a change of leader that purchases wait for agents which have not returned yet."""

MAX_MISSING_SHARE = 0.3
"""Share of known agents that may be missing. Above it the fault is not theirs: none is removed."""


def prepare(snapshot: Snapshot, now: float) -> Prepared:
    """Apply overrides, advertised capacity and the leader's timers, and build the supply."""
    state = replace(
        _with_leader(replace(snapshot, state=launch_failures.observe(snapshot, now)), now),
        replacements=_replacements_in_progress(snapshot, now),
    )
    spec = overrides.with_bounds(snapshot.spec, snapshot.overrides, now)
    offerings = advertised_capacity.as_advertised(snapshot.offerings, state.advertised, spec)
    prepared = architectures.with_implied_constraints(
        replace(snapshot, state=state, spec=spec, offerings=offerings)
    )
    supply = build_supply(prepared, now)
    holds = Holds(
        freeze=_freeze(prepared),
        paused=overrides.paused(snapshot.overrides, now),
        waiting=_waiting(prepared, now),
        removals_blocked=_removals_blocked(prepared, supply),
    )
    return Prepared(prepared, snapshot.offerings, supply, holds, now, snapshot.state)


def _with_leader(snapshot: Snapshot, now: float) -> PlannerState:
    """Since when a master leads, as far as the autoscaler saw it. Timers stop without a master."""
    state = snapshot.state
    if snapshot.cluster is None:
        return replace(state, leader_since=None)
    return state if state.leader_since is not None else replace(state, leader_since=now)


def _replacements_in_progress(snapshot: Snapshot, now: float) -> dict[str, Replacement]:
    """Replacements whose machines are ordered, boot or run, and of which an old machine lives."""
    live = [machine for machine in snapshot.machines if machine.state in LIVE]
    names = {machine.instance_id for machine in live}
    tokens = {machine.tags.get(Tag.LAUNCH, "") for machine in live}
    tokens |= {intent.request.token for intent in snapshot.intents}

    def is_in_progress(token: str, replacement: Replacement) -> bool:
        if names.isdisjoint(replacement.old_instance_ids):
            return False
        return token in tokens or now - replacement.at < REPLACEMENT_GRACE_S

    return {
        token: replacement
        for token, replacement in snapshot.state.replacements.items()
        if is_in_progress(token, replacement)
    }


def _freeze(snapshot: Snapshot) -> Reason | None:
    """Why nothing is bought or removed at all."""
    if snapshot.freeze_reason is not None:
        return Reason.of(ReasonCode.FROZEN, note=snapshot.freeze_reason)
    if not snapshot.spec.autoscaler.enabled:
        return Reason.of(ReasonCode.AUTOSCALER_DISABLED)
    return None


def _waiting(snapshot: Snapshot, now: float) -> Reason | None:
    """Why nothing is bought yet."""
    view = snapshot.cluster
    if view is None:
        return Reason.of(ReasonCode.NO_MASTER)
    if view.recovered and now - (snapshot.state.leader_since or now) < LEADER_SETTLE_S:
        return Reason.of(ReasonCode.AGENTS_EXPECTED, count=view.recovered)
    return _lost_launch(snapshot, now)


def _lost_launch(snapshot: Snapshot, now: float) -> Reason | None:
    """Why nothing is bought after the record of a launch was set aside."""
    lost_at = snapshot.launches_lost_at
    if lost_at is None or not 0 <= now - lost_at < LISTING_LAG_S:
        return None
    return Reason.of(ReasonCode.LAUNCH_SET_ASIDE, wait_s=round(LISTING_LAG_S - (now - lost_at)))


def _removals_blocked(snapshot: Snapshot, supply: Supply) -> Reason | None:
    """Why nothing may be removed now."""
    view = snapshot.cluster
    if view is None:
        return Reason.of(ReasonCode.NO_MASTER)
    if view.recovered:
        return Reason.of(ReasonCode.AGENTS_EXPECTED, count=view.recovered)
    if snapshot.queue is None:
        return Reason.of(ReasonCode.QUEUE_UNREADABLE)
    if view.unreadable:
        return Reason.of(ReasonCode.REPORTS_UNREADABLE, count=view.unreadable)
    return _too_many_missing(snapshot, supply)


def _too_many_missing(snapshot: Snapshot, supply: Supply) -> Reason | None:
    known = [
        node
        for node in supply.agent_nodes
        if node.name in snapshot.state.registered_at and node.removal is None
    ]
    missing = sum(1 for node in known if node.state == "lost")
    if missing <= MAX_MISSING_SHARE * max(1, len(known)):
        return None
    return Reason.of(ReasonCode.AGENTS_MISSING, missing=missing, known=len(known))
