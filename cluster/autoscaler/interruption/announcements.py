"""Decisions that report notices, and ledger rows of machines that ended as announced. Pure."""

from __future__ import annotations

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.notice import Notice, has_time_to_finish, reason_of
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag

ENDED_BY_EC2 = "Server.SpotInstanceTermination"


def unreported(snapshot: Snapshot, usd_per_hour: float, now: float) -> list[Decision]:
    """A decision for each notice that is not reported yet.

    It says what is announced, what runs on the machine and what follows.
    """
    machines = {machine.instance_id: machine for machine in snapshot.machines}
    agents = snapshot.agents_by_instance
    return [
        _decision_of(notice, machines[name], agents.get(name), snapshot, usd_per_hour, now)
        for name, notice in snapshot.state.notices.items()
        if not notice.is_reported and name in machines
    ]


def _decision_of(
    notice: Notice,
    machine: Machine,
    agent: Agent | None,
    snapshot: Snapshot,
    usd_per_hour: float,
    now: float,
) -> Decision:
    return Decision(
        at=now,
        kind="notice",
        reasons=(
            reason_of(notice, now),
            Reason.of(ReasonCode.NOTICE_SOURCE, source=notice.source),
            _work_on(agent, notice),
            _what_follows(notice, machine, snapshot),
        ),
        pool=machine.tags.get(Tag.POOL, ""),
        offering=f"{machine.instance_type}/{machine.zone}/{machine.capacity}",
        machines=(machine.instance_id,),
        agents=(agent.agent_id,) if agent else (),
        before_usd=usd_per_hour,
        after_usd=usd_per_hour,
        policy=notice.kind,
    )


def _work_on(agent: Agent | None, notice: Notice) -> Reason:
    """What runs on the machine."""
    if agent is None:
        return Reason.of(ReasonCode.AGENT_NOT_REGISTERED)
    if agent.is_empty:
        return Reason.of(ReasonCode.AGENT_EMPTY)
    ending_before = sum(1 for work in agent.work if has_time_to_finish(work, notice))
    return Reason.of(ReasonCode.TASKS_RUNNING, tasks=agent.tasks, ending_before=ending_before)


def _what_follows(notice: Notice, machine: Machine, snapshot: Snapshot) -> Reason:
    """What the autoscaler does about the notice."""
    if machine.tags.get(Tag.ROLE) == "master":
        return Reason.of(ReasonCode.ACTION_NONE_MASTER)
    if snapshot.freeze_reason or not snapshot.spec.autoscaler.enabled:
        return Reason.of(ReasonCode.ACTION_NONE_FROZEN)
    if notice.kind == "rebalance":
        is_ignored = snapshot.spec.autoscaler.interruption.on_rebalance == "ignore"
        return Reason.of(
            ReasonCode.ACTION_NONE_IGNORED if is_ignored else ReasonCode.ACTION_REPLACE_IF_PAID_BACK
        )
    if machine.tags.get(Tag.MANAGED_BY) != "autoscaler":
        return Reason.of(ReasonCode.ACTION_MOVE_TASKS)
    return Reason.of(ReasonCode.ACTION_REPLACE_AND_DRAIN)


def ends(
    before: PlannerState, after: PlannerState, snapshot: Snapshot, now: float
) -> list[dict[str, object]]:
    """Ledger rows of machines that ended since the last pass with a notice, or by EC2 without."""
    by_ec2 = {
        machine.instance_id for machine in snapshot.machines if machine.ended_by == ENDED_BY_EC2
    }
    interrupted = {name for name, notice in before.notices.items() if notice.kind == "interruption"}
    agents = snapshot.agents_by_instance
    return [
        _row(name, machine, before.notices.get(name), agents.get(name), now)
        for name, machine in before.billed_machines.items()
        if name not in after.billed_machines and name in by_ec2 | interrupted
    ]


def _row(
    name: str, rented: BilledMachine, notice: Notice | None, agent: Agent | None, now: float
) -> dict[str, object]:
    """The row of a machine that ended: lifetime, cost, warning time (s) and lost tasks."""
    announcement = (
        {
            "reported_at": notice.at,
            "reported_by": notice.source,
            "warning_s": round(now - notice.at, 1),
        }
        if notice
        else {"warning_s": 0.0}
    )
    return {
        "kind": "interruption",
        "at": now,
        "instance_id": name,
        "instance_type": rented.instance_type,
        "zone": rented.zone,
        "capacity": rented.capacity,
        "pool": rented.pool,
        "managed_by": rented.managed_by,
        **announcement,
        "tasks_lost": agent.tasks if agent else 0,
        "lived_s": round(now - rented.launched_at, 1),
        "usd_per_hour": rented.usd_per_hour,
        "usd": round((now - rented.launched_at) / 3600 * rented.usd_per_hour, 6),
    }
