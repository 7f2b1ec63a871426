"""When the planner should look again though nothing happens: the first of its own timers to run out. Pure.

Whoever asks the planner (the daemon, the simulator) need not know them. Events in the world are not here: they wake it by themselves.
Each timer is told a moment late rather than early, so that a look at that moment finds it run out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mesaform.autoscaler.demand import frameworks, rates, scheduled
from mesaform.autoscaler.forecasting.weekly_profile import SLOT_S
from mesaform.autoscaler.interruption import controller
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LISTING_LAG_S, Supply
from mesaform.autoscaler.planner import scale_down
from mesaform.autoscaler.planner.planner_state import REPLACEMENT_SEEN_S
from mesaform.autoscaler.planner.verdicts import Verdict
from mesaform.config import calendar

MOMENT_S = 0.001
SETTLE_AFTER_LEADER_S = 30.0
"""How long recovered agents are waited for after a change of leader before anything is bought without them."""


def look_again_at(
    snapshot: Snapshot,
    supply: Supply,
    memory: PlannerState,
    verdicts: Sequence[Verdict],
    now: float,
    *,
    acted: bool,
) -> float | None:
    """The moment (epoch s); None when only an event can change anything. After a pass that acted: the next interval.

    `snapshot` has the bounds in force; `memory` is what the pass remembers.
    """
    times = [now + snapshot.spec.autoscaler.interval_s] if acted else []
    times += [
        at + MOMENT_S for at in _all(snapshot, supply, memory, verdicts, now) if at + MOMENT_S > now
    ]
    return min(times, default=None)


def _all(
    snapshot: Snapshot,
    supply: Supply,
    memory: PlannerState,
    verdicts: Sequence[Verdict],
    now: float,
) -> Iterator[float]:
    settings = snapshot.spec.autoscaler
    yield from (since + settings.idle_after_s for since in memory.idle_since.values())
    yield from (order.until for order in snapshot.overrides)
    yield from _machines(snapshot, supply, memory)
    yield from _launches(snapshot, memory)
    yield from controller.timers(snapshot, memory)
    if settings.consolidation.enabled:
        yield from _consolidation(snapshot, supply, memory, now)
    if any(verdict.unmet for verdict in verdicts):
        yield from (backoff.until for backoff in memory.backoffs.values())
    if settings.drift.max_age_hours is not None:
        yield from (
            unit.machine.launched_at + settings.drift.max_age_hours * 3600
            for unit in supply.agent_nodes
            if unit.is_autoscaled
        )
    yield from _demand(snapshot, memory, now)


def _machines(snapshot: Snapshot, supply: Supply, memory: PlannerState) -> Iterator[float]:
    """Removals under way, machines that boot, machines that are lost."""
    settings, leader_since = snapshot.spec.autoscaler, memory.leader_since or 0.0
    for unit in supply.agent_nodes:
        name = unit.machine.instance_id
        if (removal := memory.removals.get(name)) is not None:
            yield from _removal(removal, snapshot)
        elif unit.state in {"bought", "booting"}:
            yield max(unit.machine.launched_at, leader_since) + settings.boot_timeout_s
        elif unit.state == "lost" and name in memory.lost_since:
            yield max(memory.lost_since[name], leader_since) + settings.boot_timeout_s


def _removal(removal: Removal, snapshot: Snapshot) -> Iterator[float]:
    settings = snapshot.spec.autoscaler
    if removal.phase == "terminating":
        yield removal.requested_at + scale_down.ASK_AGAIN_S
        return
    yield removal.since + scale_down.SETTLE_S
    if removal.phase == "draining" and not removal.is_disruptive:
        yield removal.since + settings.drain_grace_s + scale_down.DRAIN_SLACK_S
    elif removal.phase == "draining":
        yield removal.since + settings.drain_timeout_s
        yield removal.since + max(settings.boot_timeout_s, settings.drain_timeout_s)


def _launches(snapshot: Snapshot, memory: PlannerState) -> Iterator[float]:
    """How long orders that EC2 does not show are believed."""
    yield from (intent.at + LISTING_LAG_S for intent in snapshot.intents)
    yield from (one.at + REPLACEMENT_SEEN_S for one in memory.replacements.values())


def _consolidation(
    snapshot: Snapshot, supply: Supply, memory: PlannerState, now: float
) -> Iterator[float]:
    settings = snapshot.spec.autoscaler.consolidation
    yield from (since + settings.underused_after_s for since in memory.underused_since.values())
    yield from memory.cooldown_until.values()
    yield from (
        unit.machine.launched_at + settings.payback_s
        for unit in supply.agent_nodes
        if unit.is_autoscaled
    )
    yield from _changes(((window.days, window.hours) for window in settings.windows), now)


def _demand(snapshot: Snapshot, memory: PlannerState, now: float) -> Iterator[float]:
    """What is believed only after a while, and what is bought ahead of its time."""
    settings, view = snapshot.spec.autoscaler, snapshot.cluster
    if view is not None and (view.recovered or view.frameworks):
        since = max(view.elected_at, memory.leader_since or 0.0)
        yield since + max(SETTLE_AFTER_LEADER_S, frameworks.SETTLE_S)
    yield from (since + frameworks.DRY_FOR_S for since in memory.dry_since.values())
    yield from (marks[0].at + rates.MARK_EVERY_S for marks in memory.marks.values() if marks)
    if settings.calendar or (settings.profile.enabled and snapshot.profile is not None):
        lead_s = scheduled.lead(snapshot)
        yield from _changes(((entry.days, entry.hours) for entry in settings.calendar), now)
        yield from (
            at - lead_s
            for at in _changes(
                ((entry.days, entry.hours) for entry in settings.calendar), now + lead_s
            )
        )
        if settings.profile.enabled:
            yield (now // SLOT_S + 1) * SLOT_S
            yield ((now + lead_s) // SLOT_S + 1) * SLOT_S - lead_s


def _changes(parts: Iterable[tuple[str, str]], now: float) -> Iterator[float]:
    yield from (
        at for days, hours in parts if (at := calendar.next_change(days, hours, now)) is not None
    )
