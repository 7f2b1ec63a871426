"""Machines without a task for `idle_after_s` go; nobody is disturbed. Dearest first, then longest idle."""

from __future__ import annotations

from mesaform.autoscaler.disruption.policy import DisruptionCommand, PolicyInput, deactivate
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import PolicyName
from mesaform.autoscaler.model.supply import AgentNode, is_protected


class Idle:
    name: PolicyName = "idle"

    def propose(self, view: PolicyInput) -> list[DisruptionCommand]:
        settings = view.snapshot.spec.autoscaler
        changes = []
        for unit in sorted(
            view.supply.agent_nodes, key=lambda unit: (-unit.usd_per_hour, self._since(unit, view))
        ):
            idle_s = view.now - self._since(unit, view)
            if not self._may_go(unit, view) or idle_s < settings.idle_after_s:
                continue
            if unit.pool in view.spare and view.spare[unit.pool] <= 0:
                continue
            view.take(unit, disturbs=False)
            reason = Reason.of(ReasonCode.IDLE, idle_s=idle_s, idle_after_s=settings.idle_after_s)
            changes.append(
                DisruptionCommand("idle", reason, (deactivate(unit, "idle", reason, view.now),))
            )
        return changes

    @staticmethod
    def _since(unit: AgentNode, view: PolicyInput) -> float:
        return view.idle_since.get(unit.machine.instance_id, view.now)

    @staticmethod
    def _may_go(unit: AgentNode, view: PolicyInput) -> bool:
        name, agent = unit.machine.instance_id, unit.agent
        if (
            unit.state != "idle"
            or unit.removal is not None
            or agent is None
            or not unit.is_autoscaled
            or is_protected(unit)
        ):
            return False
        return agent.active and name not in view.needed and name not in view.supply.quarantined
