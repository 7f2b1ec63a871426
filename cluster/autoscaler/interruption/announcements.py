"""How announced ends of machines are told: as decisions when they are heard of, as rows of the ledger when they have come. Pure."""

from __future__ import annotations

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.notice import Notice, has_time_to_finish
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag

ENDED_BY_EC2 = "Server.SpotInstanceTermination"


def told(snapshot: Snapshot, usd_per_hour: float, now: float) -> list[Decision]:
    """A decision for each notice not told yet: what was announced, what is on the machine, and what will be done."""
    machines = {machine.instance_id: machine for machine in snapshot.machines}
    agents = (
        {agent.instance_id: agent for agent in snapshot.cluster.agents} if snapshot.cluster else {}
    )
    return [
        _telling(notice, machines[name], agents.get(name), snapshot, usd_per_hour, now)
        for name, notice in snapshot.state.notices.items()
        if not notice.is_reported and name in machines
    ]


def _telling(
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
        what=f"{machine.instance_id} ({machine.instance_type}, {machine.capacity}) {_announced(notice, now)}",
        reasons=(
            _heard_from(notice),
            _on_it(agent, notice),
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


def _announced(notice: Notice, now: float) -> str:
    return {
        "interruption": f"is interrupted: it ends in {max(0.0, notice.ends_at - now):.0f} s",
        "scheduled": f"has a scheduled event ({notice.what}) in {_span(notice.ends_at - now)}",
        "rebalance": "is at risk: AWS recommends to move its work",
    }[notice.kind]


def _span(seconds: float) -> str:
    """A stretch of time as people say it."""
    if seconds < 600:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _heard_from(notice: Notice) -> str:
    return {
        "queue": "told by EventBridge",
        "machine": "told by the machine itself",
        "ec2": "told by EC2",
    }.get(notice.source, "told")


def _on_it(agent: Agent | None, notice: Notice) -> str:
    if agent is None:
        return "its agent is not registered"
    if agent.is_empty:
        return "no task is on it"
    alone = sum(1 for work in agent.work if has_time_to_finish(work, notice))
    tasks = "1 task is on it" if agent.tasks == 1 else f"{agent.tasks} tasks are on it"
    return tasks + (f", {alone} of them will be done before" if alone else "")


def _what_follows(notice: Notice, machine: Machine, snapshot: Snapshot) -> str:
    if machine.tags.get(Tag.ROLE) == "master":
        return "IT IS A MASTER: nothing is done about it here; replace it with `mesaform up` once it is gone, before another one goes"
    if snapshot.freeze_reason or not snapshot.spec.autoscaler.enabled:
        return "nothing is done: the autoscaler is fenced or switched off"
    if notice.kind == "rebalance":
        if snapshot.spec.autoscaler.interruption.on_rebalance == "ignore":
            return "nothing is done (autoscaler.interruption.on_rebalance: ignore); its offering is avoided for a while"
        return "it is replaced if its tasks may move and it is old enough to have paid back"
    if machine.tags.get(Tag.MANAGED_BY) != "autoscaler":
        return "its tasks move; the machine is Terraform's, so run `mesaform up` for another once it is gone"
    return "it gets no more work, what its tasks need is bought at once, and it is emptied in time"


def ends(
    before: PlannerState, after: PlannerState, snapshot: Snapshot, now: float
) -> list[dict[str, object]]:
    """The ledger's rows of machines that ended since the last pass as the cloud announced, or by its hand without a word."""
    by_ec2 = {
        machine.instance_id for machine in snapshot.machines if machine.ended_by == ENDED_BY_EC2
    }
    agents = (
        {agent.instance_id: agent for agent in snapshot.cluster.agents} if snapshot.cluster else {}
    )
    rows = []
    for name, rented in before.billed_machines.items():
        notice = before.notices.get(name)
        if name not in after.billed_machines and (
            name in by_ec2 or (notice is not None and notice.kind == "interruption")
        ):
            rows.append(_row(name, rented, notice, agents.get(name), now))
    return rows


def _row(
    name: str, rented: BilledMachine, notice: Notice | None, agent: Agent | None, now: float
) -> dict[str, object]:
    """How long it lived and what it cost, what warning there was, and what it took along."""
    heard = (
        {"told_at": notice.at, "told_by": notice.source, "warned_s": round(now - notice.at, 1)}
        if notice
        else {"warned_s": 0.0}
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
        **heard,
        "tasks_lost": agent.tasks if agent else 0,
        "lived_s": round(now - rented.launched_at, 1),
        "usd_per_hour": rented.usd_per_hour,
        "usd": round((now - rented.launched_at) / 3600 * rented.usd_per_hour, 6),
    }
