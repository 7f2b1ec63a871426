"""Steps of removals: what the next one of each machine is. Pure.

A machine leaves in steps, one a pass: deactivate, check, drain, terminate by id. Tasks are moved
only for removals that are disruptive. No deadline kills a task unless `drain_timeout_kills` is
true. Terraform's machines are drained on request and never terminated.

Which machines begin to leave is decided by the policies in `disruption` and by operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.command import (
    Command,
    Deactivate,
    Drain,
    MarkGone,
    Reactivate,
    RemovalAction,
    Terminate,
    removal_command,
)
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import Removal, RemovalPhase
from mesaform.autoscaler.model.supply import AgentNode
from mesaform.autoscaler.planner.pass_context import PassContext
from mesaform.aws.overrides import Override, in_force
from mesaform.config.schema import Autoscaler

SETTLE_S = 1.0
"""Seconds between a deactivation and the check: offers made before have been answered by then."""

DRAIN_SLACK_S = 60.0
"""Seconds that a drain may take beyond its grace before the agent is marked gone."""

TERMINATE_AGAIN_S = 15.0
"""Seconds after which EC2 is asked again to terminate a machine that still runs."""


def reactivations(context: PassContext) -> Iterator[Command]:
    """Deactivated machines that are needed again.

    Demand was placed on the machine, a task started on it before it was deactivated, or its tasks
    fit nowhere else any more.
    """
    for node in context.supply.agent_nodes:
        removal, agent = node.removal, node.agent
        if removal is None or agent is None or removal.is_lasting:
            continue
        code = _return_code(node, agent, removal, context)
        if code is not None and removal.phase == "deactivated":
            yield _reactivate(node, agent, Reason.of(code), has_cooldown=removal.is_disruptive)


def _return_code(
    node: AgentNode, agent: Agent, removal: Removal, context: PassContext
) -> ReasonCode | None:
    if node.name in context.demanded:
        return ReasonCode.DEMAND_RETURNED
    if removal.is_disruptive:
        is_stuck = node.name in context.reservations.unschedulable
        return ReasonCode.TASKS_FIT_NOWHERE if is_stuck else None
    return None if agent.is_empty else ReasonCode.TASK_STARTED


def requested_drains(context: PassContext) -> Iterator[Command]:
    """Deactivate agents that operators drain; reactivate them when no override asks for it."""
    targets = _drain_targets(context)
    for node in context.supply.agent_nodes:
        if node.agent is None or node.name in context.supply.quarantined:
            continue
        override = targets.get(node.name) or targets.get(node.agent.agent_id)
        if override is None:
            yield from _end_requested_drain(node, node.agent)
        elif _may_take_over(node.removal):
            yield _requested_drain(node, node.agent, override, context.now)


def _end_requested_drain(node: AgentNode, agent: Agent) -> Iterator[Command]:
    """Reactivate an agent that no override drains any more."""
    if _is_request_ended(node.removal, agent):
        yield _reactivate(node, agent, Reason.of(ReasonCode.DRAIN_REQUEST_ENDED))


def _drain_targets(context: PassContext) -> dict[str, Override]:
    """Overrides that drain something, by instance or agent id."""
    return {
        override.target: override
        for override in in_force(context.snapshot.overrides, context.now)
        if override.kind == "drain"
    }


def _requested_drain(node: AgentNode, agent: Agent, override: Override, now: float) -> Command:
    reason = Reason.of(
        ReasonCode.DRAIN_REQUESTED,
        target=override.target,
        by=override.by,
        until_epoch_s=override.until,
        note=override.reason,
    )
    removal = Removal(agent.agent_id, "deactivated", now, reason, policy="operator")
    return removal_command(node, (Deactivate(node.name, agent.agent_id),), removal, (reason,))


def _may_take_over(removal: Removal | None) -> bool:
    """Whether an operator's drain replaces what is in progress."""
    if removal is None:
        return True
    return removal.phase == "deactivated" and removal.policy != "operator"


def _is_request_ended(removal: Removal | None, agent: Agent) -> bool:
    """Whether an operator's drain can be undone; the engine reactivates no draining agent."""
    if removal is None or removal.policy != "operator":
        return False
    if removal.phase == "draining":
        return agent.drain_state in {"", "DRAINED"}
    return removal.phase == "deactivated"


def lost_machines(context: PassContext) -> Iterator[Command]:
    """Machines whose agent never registered, or was lost, for longer than `boot_timeout_s`."""
    limit_s = context.snapshot.spec.autoscaler.boot_timeout_s
    for node in context.supply.agent_nodes:
        if node.removal is not None or not node.is_autoscaled:
            continue
        if node.name in context.supply.quarantined:
            continue
        absence = _absence(node, context)
        if absence is not None and absence[1] > limit_s:
            code, wait_s = absence
            reason = Reason.of(code, wait_s=wait_s, boot_timeout_s=limit_s)
            yield _terminate(node, None, (reason,), context.now)


def _absence(node: AgentNode, context: PassContext) -> tuple[ReasonCode, float] | None:
    """Why a machine has no agent, and for how many seconds under the present leader."""
    state = context.state
    if node.state in {"bought", "booting"}:
        since, code = node.machine.launched_at, ReasonCode.AGENT_NEVER_REGISTERED
    elif node.state == "lost":
        since, code = state.lost_since.get(node.name, context.now), ReasonCode.AGENT_LOST
    else:
        return None
    leader_since = state.leader_since if state.leader_since is not None else context.now
    return code, context.now - max(since, leader_since)


def removals_in_progress(context: PassContext) -> Iterator[Command]:
    """The next step of each removal, except those that `interruption` takes."""
    for node in context.supply.agent_nodes:
        removal = node.removal
        if removal is None or removal.is_waiting_for_notice:
            continue
        if node.is_autoscaled or removal.is_lasting:
            command = _next_step(node, removal, context)
            if command is not None:
                yield command


def _next_step(node: AgentNode, removal: Removal, context: PassContext) -> Command | None:
    if removal.phase == "terminating":
        return _terminate_again(node, removal, context.now)
    if removal.phase == "draining":
        step = _disruptive_drain if removal.is_disruptive else _empty_drain
        return step(node, removal, context)
    if node.agent is None:
        return None  # lost: whether it returns is decided by `lost_machines` in later passes
    if removal.phase == "abandoned":
        return _end_abandoned(node, node.agent, removal)
    return _check_deactivated(node, node.agent, removal, context)


def _terminate_again(node: AgentNode, removal: Removal, now: float) -> Command | None:
    if now - removal.requested_at < TERMINATE_AGAIN_S:
        return None
    reason = Reason.of(ReasonCode.INSTANCE_STILL_RUNS)
    return removal_command(
        node, (Terminate(node.name),), replace(removal, requested_at=now), (reason,)
    )


def _end_abandoned(node: AgentNode, agent: Agent, removal: Removal) -> Command | None:
    """Reactivate after a drain was given up, as soon as the engine allows it."""
    if agent.drain_state == "DRAINING" or not agent.deactivated:
        return None
    return _reactivate(node, agent, removal.reason, has_cooldown=True)


def _check_deactivated(
    node: AgentNode, agent: Agent, removal: Removal, context: PassContext
) -> Command | None:
    """Drain once the deactivation has settled; deactivate again when the call was lost.

    Apache Mesos drains no agent that is in a maintenance schedule. An empty one, which takes no
    work, is marked gone after the time that a drain may take.
    """
    wait_s = context.now - removal.since
    if wait_s < SETTLE_S:
        return None
    if not agent.is_empty and not removal.is_disruptive:
        return None
    if agent.deactivated and _is_drain_refused(agent, removal, wait_s, context):
        late = Reason.of(ReasonCode.DRAIN_UNCONFIRMED, wait_s=wait_s)
        return _terminate(node, removal, (removal.reason, late), context.now, gone=agent)
    if agent.active and not agent.deactivated:
        action: RemovalAction = Deactivate(node.name, agent.agent_id)
        next_removal = _in_phase(removal, "deactivated", context.now)
    else:
        action = _drain(node, agent, removal, context.snapshot.spec.autoscaler)
        next_removal = _in_phase(removal, "draining", context.now)
    return removal_command(node, (action,), next_removal, (removal.reason,))


def _is_drain_refused(agent: Agent, removal: Removal, wait_s: float, context: PassContext) -> bool:
    """Whether an empty agent, to be removed for good, has not begun to drain for too long."""
    if removal.is_disruptive or removal.policy == "operator" or agent.drain_state:
        return False
    limit_s = context.snapshot.spec.autoscaler.drain_grace_s + DRAIN_SLACK_S
    return agent.is_empty and wait_s >= limit_s


def _empty_drain(node: AgentNode, removal: Removal, context: PassContext) -> Command | None:
    """A drain of an empty agent: terminate it once drained, or once its grace is long over."""
    agent, wait_s = node.agent, context.now - removal.since
    if agent is None or agent.drain_state == "DRAINED":
        return _terminate(node, removal, (removal.reason,), context.now)
    settings = context.snapshot.spec.autoscaler
    if not agent.is_empty:
        return None
    if wait_s >= settings.drain_grace_s + DRAIN_SLACK_S:
        late = Reason.of(ReasonCode.DRAIN_UNCONFIRMED, wait_s=wait_s)
        return _terminate(node, removal, (removal.reason, late), context.now, gone=agent)
    return _drain_again(node, agent, removal, context)


def _disruptive_drain(node: AgentNode, removal: Removal, context: PassContext) -> Command | None:
    """A drain of an agent with tasks: its machine is terminated once it is empty."""
    agent = node.agent
    if agent is None:
        return _end_unreachable(node, removal, context)
    if agent.drain_state == "DRAINED" and agent.is_empty:
        if not node.is_autoscaled:
            return None
        return _terminate(node, removal, (removal.reason,), context.now, gone=agent)
    return _drain_again(node, agent, removal, context) or _time_out(node, agent, removal, context)


def _end_unreachable(node: AgentNode, removal: Removal, context: PassContext) -> Command | None:
    """Its tasks may still run, so it is waited for as long as for any lost agent."""
    settings = context.snapshot.spec.autoscaler
    limit_s = max(settings.boot_timeout_s, settings.drain_timeout_s)
    if context.now - removal.since <= limit_s or not node.is_autoscaled:
        return None
    reasons = (removal.reason, Reason.of(ReasonCode.AGENT_UNREACHABLE))
    return _terminate(node, removal, reasons, context.now)


def _drain_again(
    node: AgentNode, agent: Agent, removal: Removal, context: PassContext
) -> Command | None:
    """Drain again when the agent does not drain: the call was lost."""
    if agent.drain_state or context.now - removal.since < SETTLE_S:
        return None
    drain = _drain(node, agent, removal, context.snapshot.spec.autoscaler)
    return removal_command(node, (drain,), removal, (removal.reason,))


def _time_out(
    node: AgentNode, agent: Agent, removal: Removal, context: PassContext
) -> Command | None:
    """After `drain_timeout_s` give the drain up, or kill its tasks if the spec says so."""
    settings, wait_s = context.snapshot.spec.autoscaler, context.now - removal.since
    if wait_s <= settings.drain_timeout_s or removal.policy == "operator":
        return None
    late = Reason.of(
        ReasonCode.DRAIN_TIMED_OUT,
        tasks=agent.tasks,
        wait_s=wait_s,
        drain_timeout_s=settings.drain_timeout_s,
    )
    if settings.drain_timeout_kills and node.is_autoscaled:
        reasons = (removal.reason, late, Reason.of(ReasonCode.DRAIN_TIMEOUT_KILLS))
        return _terminate(node, removal, reasons, context.now, gone=agent)
    return removal_command(
        node,
        (),
        _in_phase(removal, "abandoned", context.now),
        (late,),
        kind="drain_timed_out",
        has_cooldown=True,
    )


def _drain(node: AgentNode, agent: Agent, removal: Removal, settings: Autoscaler) -> Drain:
    """An empty agent is marked gone; the tasks of others get their own time to stop."""
    if not removal.is_disruptive:
        return Drain(node.name, agent.agent_id, settings.drain_grace_s)
    grace_s = settings.drain_grace_s if settings.drain_timeout_kills else None
    return Drain(node.name, agent.agent_id, grace_s, mark_gone=False)


def _reactivate(
    node: AgentNode, agent: Agent, reason: Reason, *, has_cooldown: bool = False
) -> Command:
    action = Reactivate(node.name, agent.agent_id)
    return removal_command(node, (action,), None, (reason,), has_cooldown=has_cooldown)


def _terminate(
    node: AgentNode,
    removal: Removal | None,
    reasons: tuple[Reason, ...],
    now: float,
    *,
    gone: Agent | None = None,
) -> Command:
    """Terminate the machine; its agent, where given as `gone`, is marked gone first."""
    agent_id, policy = (removal.agent_id, removal.policy) if removal else ("", "")
    next_removal = Removal(
        agent_id, "terminating", now, reasons[0], requested_at=now, policy=policy
    )
    mark: tuple[RemovalAction, ...] = (MarkGone(node.name, gone.agent_id),) if gone else ()
    return removal_command(node, (*mark, Terminate(node.name)), next_removal, reasons)


def _in_phase(removal: Removal, phase: RemovalPhase, now: float) -> Removal:
    return replace(removal, phase=phase, since=now)
