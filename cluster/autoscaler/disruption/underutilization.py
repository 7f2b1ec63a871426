"""A machine that has been little used for `underused_after_s` goes when all its tasks fit on machines that stay."""

from __future__ import annotations

from mesaform.autoscaler.disruption.policy import (
    DisruptionCommand,
    PolicyInput,
    deactivate,
    disturbable,
    disturbance_usd,
    pays,
    saving_lasts_s,
)
from mesaform.autoscaler.disruption.rescheduling import names_of, work_of
from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import PolicyName


def share_used(agent: Agent) -> float:
    """The used part of an agent's cpus or memory, whichever is greater, 0 to 1."""
    pairs = zip(agent.allocated[:2], agent.total[:2], strict=True)
    return max((used / total for used, total in pairs if total), default=0.0)


class Underused:
    name: PolicyName = "underused"

    def propose(self, view: PolicyInput) -> list[DisruptionCommand]:
        changes = []
        for unit in disturbable(view):
            since = view.underused_since.get(unit.machine.instance_id)
            if view.disturbances <= 0:
                break
            if (
                since is None
                or view.now - since < view.settings.underused_after_s
                or unit.agent is None
            ):
                continue
            if view.spare.get(unit.pool, 1) <= 0 or unit.machine.instance_id in view.room.hosts:
                continue  # what was just promised a place there would have to move on
            cost = disturbance_usd([unit], view)
            if not pays(
                unit.usd_per_hour,
                unit.usd_per_hour,
                cost,
                saving_lasts_s([unit], view),
                view.settings,
            ):
                continue
            work = work_of(unit.agent, view.snapshot.app_constraints)
            if view.room.fit(work, {*view.leaving, unit.machine.instance_id}) is None:
                continue
            reason = Reason.of(
                ReasonCode.UNDERUSED,
                used_percent=share_used(unit.agent) * 100,
                underused_s=view.now - since,
                underused_percent=view.settings.underused_percent,
                apps=tuple(names_of(work)),
                cost_usd=cost,
            )
            view.take(unit, disturbs=True)
            changes.append(
                DisruptionCommand(
                    "underused", reason, (deactivate(unit, "underused", reason, view.now),)
                )
            )
        return changes
