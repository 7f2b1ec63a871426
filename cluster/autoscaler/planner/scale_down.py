"""Giving back, step by step, and when nothing may go at all. Which machines begin to go is for the policies, and for operators.

A machine goes in steps, one a pass: deactivate, look again, drain, terminate by id. Tasks are only moved where a policy or an operator
wanted that (`Removal.disturbs`), and none is killed by a deadline of ours unless the spec says so. Nothing that Terraform keeps is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.command import (
    Deactivate,
    Drain,
    MarkGone,
    Move,
    Reactivate,
    Terminate,
)
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import Removal, RemovalPhase
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import AgentNode, Supply
from mesaform.aws.overrides import in_force

MISSING_SHARE = 0.3
"""With more than this part of the agents not heard of, the fault is not theirs: nothing is removed."""

SETTLE_S = 1.0
"""How long between deactivating and looking again: what was offered before has been answered by then."""

DRAIN_SLACK_S = 60.0
"""How much longer than its grace a drain may take before the agent is marked gone."""

ASK_AGAIN_S = 15.0
"""How often EC2 is told again to terminate a machine that it still runs."""


def freeze(snapshot: Snapshot, supply: Supply) -> Reason | None:
    """Why nothing may be removed now; None when it may."""
    view = snapshot.cluster
    if view is None:
        return Reason.of(ReasonCode.NO_MASTER)
    if view.recovered:
        return Reason.of(ReasonCode.AGENTS_EXPECTED, count=view.recovered)
    if snapshot.queue is None:
        return Reason.of(ReasonCode.QUEUE_UNREADABLE)
    known = [
        unit
        for unit in supply.agent_nodes
        if unit.machine.instance_id in snapshot.state.registered_at and unit.removal is None
    ]
    lost = [unit for unit in known if unit.state == "lost"]
    if len(lost) > MISSING_SHARE * max(1, len(known)):
        return Reason.of(ReasonCode.AGENTS_MISSING, missing=len(lost), known=len(known))
    return None


def returned(supply: Supply, wanted: Iterable[str], homeless: Collection[str] = ()) -> list[Move]:
    """Take back machines on their way out that demand was placed on, that got a task too early, or whose tasks fit nowhere else.

    `homeless` are machines being emptied whose tasks find no other place any more.
    """
    names = set(wanted)
    moves = []
    for unit in supply.agent_nodes:
        removal, name = unit.removal, unit.machine.instance_id
        if (
            removal is None
            or removal.phase != "deactivated"
            or unit.agent is None
            or removal.is_lasting
        ):
            continue
        why: ReasonCode | None
        if name in names:
            why = ReasonCode.DEMAND_RETURNED
        elif removal.is_disruptive:
            why = ReasonCode.TASKS_FIT_NOWHERE if name in homeless else None
        else:
            why = None if unit.agent.is_empty else ReasonCode.TASK_STARTED
        if why is not None:
            moves.append(
                Move(
                    unit,
                    (Reactivate(name, unit.agent.agent_id),),
                    None,
                    (Reason.of(why),),
                    cooldown=removal.is_disruptive,
                )
            )
    return moves


def without(moves: Iterable[Move], others: Iterable[Move]) -> list[Move]:
    """The moves of machines that have none among the others."""
    taken = {move.unit.machine.instance_id for move in others}
    return [move for move in moves if move.unit.machine.instance_id not in taken]


def advance(snapshot: Snapshot, supply: Supply, kept: Iterable[str], now: float) -> list[Move]:
    """The next step of each removal under way; `kept` are machines that are taken back in this pass."""
    keep = set(kept)
    moves = []
    for unit in supply.agent_nodes:
        removal = unit.removal
        if removal is None or removal.is_waiting_for_notice or unit.machine.instance_id in keep:
            continue
        if unit.is_autoscaled or removal.is_lasting:
            moves += _next(unit, removal, snapshot, now)
    return moves


def ordered(snapshot: Snapshot, supply: Supply, now: float) -> list[Move]:
    """Agents that operators want empty: deactivated now, whoever made them, and taken back once no order wants it any more."""
    targets = {
        order.target: order for order in in_force(snapshot.overrides, now) if order.kind == "drain"
    }
    moves = []
    for unit in supply.agent_nodes:
        agent, removal, name = unit.agent, unit.removal, unit.machine.instance_id
        order = targets.get(name) or (targets.get(agent.agent_id) if agent else None)
        if agent is None or name in supply.quarantined:
            continue
        if order is not None and (
            removal is None or (removal.phase == "deactivated" and removal.policy != "operator")
        ):
            reason = Reason.of(
                ReasonCode.DRAIN_REQUESTED,
                target=order.target,
                by=order.by,
                until_epoch_s=order.until,
                note=order.reason,
            )
            becomes = Removal(agent.agent_id, "deactivated", now, reason, policy="operator")
            moves.append(Move(unit, (Deactivate(name, agent.agent_id),), becomes, (reason,)))
        elif (
            order is None
            and removal is not None
            and removal.policy == "operator"
            and _can_return(removal, agent)
        ):
            moves.append(
                Move(
                    unit,
                    (Reactivate(name, agent.agent_id),),
                    None,
                    (Reason.of(ReasonCode.DRAIN_REQUEST_ENDED),),
                )
            )
    return moves


def _can_return(removal: Removal, agent: Agent) -> bool:
    """The engine takes no agent back that is still draining."""
    return removal.phase == "deactivated" or (
        removal.phase == "draining" and agent.drain_state in {"", "DRAINED"}
    )


def give_up(snapshot: Snapshot, supply: Supply, now: float) -> list[Move]:
    """Machines whose agent never came, or went and did not come back, within `boot_timeout_s`."""
    limit = snapshot.spec.autoscaler.boot_timeout_s
    leader_since = snapshot.state.leader_since if snapshot.state.leader_since is not None else now
    moves = []
    for unit in supply.agent_nodes:
        if (
            unit.removal is not None
            or not unit.is_autoscaled
            or unit.machine.instance_id in supply.quarantined
        ):
            continue
        if unit.state in {"bought", "booting"}:
            waited, why = (
                now - max(unit.machine.launched_at, leader_since),
                ReasonCode.AGENT_NEVER_REGISTERED,
            )
        elif unit.state == "lost":
            lost_at = snapshot.state.lost_since.get(unit.machine.instance_id, now)
            waited, why = now - max(lost_at, leader_since), ReasonCode.AGENT_LOST
        else:
            continue
        if waited > limit:
            reason = Reason.of(why, wait_s=waited, boot_timeout_s=limit)
            moves.append(_terminate(unit, None, (reason,), now))
    return moves


def idle_since(
    snapshot: Snapshot, supply: Supply, needed: Iterable[str], now: float
) -> dict[str, float]:
    """Since when each machine has been idle. A machine that demand was placed on is not idle."""
    needed, before = set(needed), snapshot.state.idle_since
    idle = (unit.machine.instance_id for unit in supply.agent_nodes if unit.state == "idle")
    return {name: before.get(name, now) for name in idle if name not in needed}


def _next(unit: AgentNode, removal: Removal, snapshot: Snapshot, now: float) -> list[Move]:
    if removal.phase == "terminating":
        if now - removal.requested_at < ASK_AGAIN_S:
            return []
        return [
            Move(
                unit,
                (Terminate(unit.machine.instance_id),),
                _with_asked(removal, now),
                (Reason.of(ReasonCode.INSTANCE_STILL_RUNS),),
            )
        ]
    if removal.phase == "draining":
        return _drained(unit, removal, snapshot, now)
    if removal.phase == "abandoned":
        return _abandoned(unit, removal)
    if unit.agent is None:
        return []  # lost while deactivated: whether it comes back is for `freeze` and the next passes
    if now - removal.since < SETTLE_S or (unit.agent.active and not unit.agent.deactivated):
        return _again(unit, removal, now)
    if not unit.agent.is_empty and not removal.is_disruptive:
        return []
    return [
        Move(
            unit,
            (_drain(unit, unit.agent, removal, snapshot),),
            _in_phase(removal, "draining", now),
            (removal.reason,),
        )
    ]


def _drain(unit: AgentNode, agent: Agent, removal: Removal, snapshot: Snapshot) -> Drain:
    """An empty agent is gone at once; one with tasks may still be taken back, and its tasks get their own time to stop."""
    settings = snapshot.spec.autoscaler
    if not removal.is_disruptive:
        return Drain(unit.machine.instance_id, agent.agent_id, settings.drain_grace_s)
    grace_s = settings.drain_grace_s if settings.drain_timeout_kills else None
    return Drain(unit.machine.instance_id, agent.agent_id, grace_s, mark_gone=False)


def _abandoned(unit: AgentNode, removal: Removal) -> list[Move]:
    """A drain that was given up: the agent is taken back as soon as the engine allows it."""
    agent = unit.agent
    if agent is None or agent.drain_state == "DRAINING" or not agent.deactivated:
        return []
    return [
        Move(
            unit,
            (Reactivate(unit.machine.instance_id, agent.agent_id),),
            None,
            (removal.reason,),
            cooldown=True,
        )
    ]


def _again(unit: AgentNode, removal: Removal, now: float) -> list[Move]:
    """A deactivation that did not take (the call was lost, or a new leader never heard of it) is asked for again."""
    agent = unit.agent
    if agent is None or agent.deactivated or not agent.active or now - removal.since < SETTLE_S:
        return []
    if not agent.is_empty and not removal.is_disruptive:
        return []
    return [
        Move(
            unit,
            (Deactivate(unit.machine.instance_id, agent.agent_id),),
            _in_phase(removal, "deactivated", now),
            (removal.reason,),
        )
    ]


def _drained(unit: AgentNode, removal: Removal, snapshot: Snapshot, now: float) -> list[Move]:
    if removal.is_disruptive:
        return _emptied(unit, removal, snapshot, now)
    if unit.agent is None or unit.agent.drain_state == "DRAINED":
        return [_terminate(unit, removal, (removal.reason,), now)]
    waited = now - removal.since
    if not unit.agent.is_empty or waited < snapshot.spec.autoscaler.drain_grace_s + DRAIN_SLACK_S:
        if (
            not unit.agent.drain_state and waited >= SETTLE_S and unit.agent.is_empty
        ):  # the call was lost
            return [
                Move(
                    unit, (_drain(unit, unit.agent, removal, snapshot),), removal, (removal.reason,)
                )
            ]
        return []
    move = _terminate(
        unit,
        removal,
        (removal.reason, Reason.of(ReasonCode.DRAIN_UNCONFIRMED, wait_s=waited)),
        now,
    )
    return [
        Move(
            unit,
            (MarkGone(unit.machine.instance_id, unit.agent.agent_id), *move.actions),
            move.next_removal,
            move.reasons,
        )
    ]


def _emptied(unit: AgentNode, removal: Removal, snapshot: Snapshot, now: float) -> list[Move]:
    """A drain that had tasks to move: the machine goes once it is empty. What outlasts the deadline is only killed if the spec says so."""
    settings, agent, waited = snapshot.spec.autoscaler, unit.agent, now - removal.since
    if (
        agent is None
    ):  # out of reach, maybe with tasks that run: waited for as for any agent that is not heard of
        return (
            [
                _terminate(
                    unit,
                    removal,
                    (removal.reason, Reason.of(ReasonCode.AGENT_UNREACHABLE)),
                    now,
                )
            ]
            if waited > _lost_s(snapshot) and unit.is_autoscaled
            else []
        )
    if agent.drain_state == "DRAINED" and agent.is_empty:
        return [_gone(unit, agent, removal, (removal.reason,), now)] if unit.is_autoscaled else []
    if not agent.drain_state and waited >= SETTLE_S:  # the call was lost
        return [Move(unit, (_drain(unit, agent, removal, snapshot),), removal, (removal.reason,))]
    if waited <= settings.drain_timeout_s or removal.policy == "operator":
        return []
    late = Reason.of(
        ReasonCode.DRAIN_TIMED_OUT,
        tasks=agent.tasks,
        wait_s=waited,
        drain_timeout_s=settings.drain_timeout_s,
    )
    if settings.drain_timeout_kills and unit.is_autoscaled:
        return [
            _gone(
                unit,
                agent,
                removal,
                (removal.reason, late, Reason.of(ReasonCode.DRAIN_TIMEOUT_KILLS)),
                now,
            )
        ]
    return [
        Move(
            unit,
            (),
            _in_phase(removal, "abandoned", now),
            (late,),
            cooldown=True,
            kind="drain_timed_out",
        )
    ]


def _lost_s(snapshot: Snapshot) -> float:
    return max(snapshot.spec.autoscaler.boot_timeout_s, snapshot.spec.autoscaler.drain_timeout_s)


def _gone(
    unit: AgentNode, agent: Agent, removal: Removal, reasons: tuple[Reason, ...], now: float
) -> Move:
    move = _terminate(unit, removal, reasons, now)
    return Move(
        unit,
        (MarkGone(unit.machine.instance_id, agent.agent_id), *move.actions),
        move.next_removal,
        reasons,
    )


def _in_phase(removal: Removal, phase: RemovalPhase, now: float) -> Removal:
    return replace(removal, phase=phase, since=now)


def _terminate(
    unit: AgentNode, removal: Removal | None, reasons: tuple[Reason, ...], now: float
) -> Move:
    agent_id, policy = (removal.agent_id, removal.policy) if removal else ("", "")
    becomes = Removal(agent_id, "terminating", now, reasons[0], requested_at=now, policy=policy)
    return Move(unit, (Terminate(unit.machine.instance_id),), becomes, reasons)


def _with_asked(removal: Removal, now: float) -> Removal:
    return replace(removal, requested_at=now)
