"""Demand of the tasks on machines with a notice, before a queue shows it. Pure."""

from __future__ import annotations

from collections import Counter

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.notice import reason_of, tasks_to_move
from mesaform.autoscaler.model.planner_state import is_terminating
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot


def units(snapshot: Snapshot, now: float) -> list[DemandItem]:
    """The tasks that have to move, as demand.

    Once a queue shows a task, its agent no longer does. It does not matter who owns the machine.
    """
    return [
        unit
        for agent in (snapshot.cluster.agents if snapshot.cluster else ())
        if is_terminating(snapshot.state, agent.instance_id, now)
        for unit in _moving_off(agent, snapshot, now)
    ]


def _moving_off(agent: Agent, snapshot: Snapshot, now: float) -> list[DemandItem]:
    notice, apps = snapshot.state.notices.get(agent.instance_id), snapshot.app_constraints or {}
    counts = Counter(
        (work.name, work.shape, work.constraints) for work in tasks_to_move(agent, notice)
    )
    announced = reason_of(notice, now) if notice else Reason.of(ReasonCode.REMOVAL_ANNOUNCED)
    return [
        DemandItem(
            "displaced",
            name,
            shape,
            count,
            (
                Reason.of(ReasonCode.DEMAND_DISPLACED, app=name, instance_id=agent.instance_id),
                announced,
            ),
            (*apps.get(name, ()), *constraints),
            leaves=agent.instance_id,
        )
        for (name, shape, constraints), count in counts.items()
    ]
