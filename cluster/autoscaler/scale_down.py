"""Giving back: which machines go, in which order, and when nothing may go at all.

A machine goes in steps, one a pass: deactivate, look again, drain, terminate by id. Nothing with a task is ever drained here,
and nothing that Terraform keeps is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.autoscaler.model import Removal, Snapshot
from cluster.autoscaler.supply import Supply, Unit

MISSING_SHARE = 0.3
"""With more than this part of the agents not heard of, the fault is not theirs: nothing is removed."""

SETTLE_S = 1.0
"""How long between deactivating and looking again: what was offered before has been answered by then."""

DRAIN_SLACK_S = 60.0
"""How much longer than its grace a drain may take before the agent is marked gone."""

ASK_AGAIN_S = 15.0
"""How often EC2 is told again to terminate a machine that it still runs."""


@dataclass(frozen=True, slots=True)
class Deactivate:
    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Reactivate:
    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Drain:
    instance_id: str
    agent_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class MarkGone:
    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Terminate:
    instance_id: str


Removing = Deactivate | Reactivate | Drain | MarkGone | Terminate


@dataclass(frozen=True, slots=True)
class Move:
    """A step of a machine's removal: what is done, what is remembered of it (None: forget it), and why."""

    unit: Unit
    does: tuple[Removing, ...]
    becomes: Removal | None
    why: str


def freeze(snapshot: Snapshot, supply: Supply) -> str:
    """Why nothing may be removed now; empty when it may."""
    view = snapshot.cluster
    if view is None:
        return "no master is elected"
    if view.recovered:
        return f"{view.recovered} agents are known and not back yet after a change of leader"
    if snapshot.queue is None:
        return "the services' queue cannot be read, so demand is not known"
    known = [unit for unit in supply.units if unit.machine.instance_id in snapshot.memory.registered and unit.removal is None]
    lost = [unit for unit in known if unit.state == "lost"]
    if len(lost) > MISSING_SHARE * max(1, len(known)):
        return f"{len(lost)} of {len(known)} agents are missing"
    return ""


def returned(supply: Supply, wanted: Iterable[str]) -> list[Move]:
    """Take back machines on their way out that demand was placed on, or that got a task before they were deactivated."""
    names = set(wanted)
    moves = []
    for unit in supply.units:
        if unit.removal is None or unit.removal.phase != "deactivated" or unit.agent is None:
            continue
        why = "demand returned" if unit.machine.instance_id in names else "" if unit.agent.is_empty else "a task had landed on it"
        if why:
            moves.append(Move(unit, (Reactivate(unit.machine.instance_id, unit.agent.agent_id),), None, why))
    return moves


def advance(snapshot: Snapshot, supply: Supply, kept: Iterable[str], now: float) -> list[Move]:
    """The next step of each removal under way; `kept` are machines that are taken back in this pass."""
    keep = set(kept)
    moves = []
    for unit in supply.units:
        if unit.removal is not None and unit.is_ours and unit.machine.instance_id not in keep:
            moves += _next(unit, unit.removal, snapshot, now)
    return moves


def begin(snapshot: Snapshot, supply: Supply, needed: Iterable[str], idle_since: Mapping[str, float], now: float) -> list[Move]:
    """Machines to start removing: idle for long enough, bought by the autoscaler, above the floor; dearest first, then longest idle."""
    settings, needed = snapshot.spec.autoscaler, set(needed)
    spare = {pool.name: supply.staying(pool.name) - pool.floor for pool in snapshot.spec.agents}
    moves = []
    for unit in sorted(supply.units, key=lambda unit: (-unit.usd_per_hour, idle_since.get(unit.machine.instance_id, now))):
        name, agent = unit.machine.instance_id, unit.agent
        if unit.state != "idle" or unit.removal is not None or agent is None or not unit.is_ours:
            continue
        idle_s = now - idle_since.get(name, now)
        if name in needed or name in supply.quarantined or not agent.active or idle_s < settings.idle_after_s:
            continue
        if unit.pool in spare and spare[unit.pool] <= 0:
            continue
        spare[unit.pool] = spare.get(unit.pool, 1) - 1
        why = f"no task for {idle_s:.0f} s (idle_after_s {settings.idle_after_s:g})"
        moves.append(Move(unit, (Deactivate(name, agent.agent_id),), Removal(agent.agent_id, "deactivated", now, why), why))
    return moves


def give_up(snapshot: Snapshot, supply: Supply, now: float) -> list[Move]:
    """Machines whose agent never came, or went and did not come back, within `boot_timeout_s`."""
    limit = snapshot.spec.autoscaler.boot_timeout_s
    leader_since = snapshot.memory.leader_since if snapshot.memory.leader_since is not None else now
    moves = []
    for unit in supply.units:
        if unit.removal is not None or not unit.is_ours or unit.machine.instance_id in supply.quarantined:
            continue
        if unit.state in {"bought", "booting"}:
            waited, why = now - max(unit.machine.launched_at, leader_since), "its agent never registered"
        elif unit.state == "lost":
            lost_at = snapshot.memory.lost_since.get(unit.machine.instance_id, now)
            waited, why = now - max(lost_at, leader_since), "its agent is not heard of"
        else:
            continue
        if waited > limit:
            why = f"{why} for {waited:.0f} s (boot_timeout_s {limit:g})"
            moves.append(_terminate(unit, "", why, now))
    return moves


def idle_since(snapshot: Snapshot, supply: Supply, needed: Iterable[str], now: float) -> dict[str, float]:
    """Since when each machine has been idle. A machine that demand was placed on is not idle."""
    needed, before = set(needed), snapshot.memory.idle_since
    idle = (unit.machine.instance_id for unit in supply.units if unit.state == "idle")
    return {name: before.get(name, now) for name in idle if name not in needed}


def _next(unit: Unit, removal: Removal, snapshot: Snapshot, now: float) -> list[Move]:
    if removal.phase == "terminating":
        if now - removal.asked_at < ASK_AGAIN_S:
            return []
        return [Move(unit, (Terminate(unit.machine.instance_id),), _with_asked(removal, now), "EC2 still runs it")]
    if removal.phase == "draining":
        return _drained(unit, removal, snapshot, now)
    if unit.agent is None:
        return []  # lost while deactivated: whether it comes back is for `freeze` and the next passes
    if not unit.agent.is_empty or now - removal.since < SETTLE_S or (unit.agent.active and not unit.agent.deactivated):
        return _again(unit, removal, now)
    grace_s = snapshot.spec.autoscaler.drain_grace_s
    becomes = Removal(unit.agent.agent_id, "draining", now, removal.reason)
    return [Move(unit, (Drain(unit.machine.instance_id, unit.agent.agent_id, grace_s),), becomes, removal.reason)]


def _again(unit: Unit, removal: Removal, now: float) -> list[Move]:
    """A deactivation that did not take (the call was lost, or a new leader never heard of it) is asked for again."""
    agent = unit.agent
    if agent is None or agent.deactivated or not agent.active or now - removal.since < SETTLE_S:
        return []
    again = Removal(agent.agent_id, "deactivated", now, removal.reason)
    return [Move(unit, (Deactivate(unit.machine.instance_id, agent.agent_id),), again, removal.reason)]


def _drained(unit: Unit, removal: Removal, snapshot: Snapshot, now: float) -> list[Move]:
    if unit.agent is None or unit.agent.drain_state == "DRAINED":
        return [_terminate(unit, removal.agent_id, removal.reason, now)]
    waited = now - removal.since
    if not unit.agent.is_empty or waited < snapshot.spec.autoscaler.drain_grace_s + DRAIN_SLACK_S:
        if not unit.agent.drain_state and waited >= SETTLE_S and unit.agent.is_empty:  # the call was lost
            grace_s = snapshot.spec.autoscaler.drain_grace_s
            return [Move(unit, (Drain(unit.machine.instance_id, unit.agent.agent_id, grace_s),), removal, removal.reason)]
        return []
    move = _terminate(unit, removal.agent_id, f"{removal.reason}; empty, but still not drained after {waited:.0f} s", now)
    return [Move(unit, (MarkGone(unit.machine.instance_id, unit.agent.agent_id), *move.does), move.becomes, move.why)]


def _terminate(unit: Unit, agent_id: str, why: str, now: float) -> Move:
    return Move(unit, (Terminate(unit.machine.instance_id),), Removal(agent_id, "terminating", now, why, asked_at=now), why)


def _with_asked(removal: Removal, now: float) -> Removal:
    return Removal(removal.agent_id, removal.phase, removal.since, removal.reason, asked_at=now)
