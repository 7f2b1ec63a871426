"""JSON of the autoscaler's page: the present state, and the last day in points. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from mesaform.autoscaler.model.framework_demand import FrameworkVerdict
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LIVE
from mesaform.autoscaler.planner.overrides import with_bounds
from mesaform.autoscaler.planner.planner import Plan
from mesaform.autoscaler.planner.verdicts import Verdict
from mesaform.autoscaler.reporting.decision_text import decision_view, render_state
from mesaform.autoscaler.reporting.reason_text import reason_view
from mesaform.autoscaler.reporting.verdict_text import render_verdict
from mesaform.aws.overrides import describe as describe_override
from mesaform.aws.overrides import in_force
from mesaform.config.schema import Pool
from mesaform.topology.names import Tag

Json = dict[str, Any]

POINT_EVERY_S = 10.0
KEPT_S = 86_400.0
POINTS_SHOWN = 720
"""Points of a plot: more than it has pixels."""


class Ring:
    """The points of the last day, the newest last.

    A point is a set of totals with its time, and with the highest demand since the point before.
    """

    def __init__(self) -> None:
        self._points: deque[Json] = deque()
        self._peak: Json = {}

    def add(self, at: float, level: Mapping[str, Any]) -> None:
        """Add totals (at epoch s). If the last point is too young, only demand is merged."""
        self._peak = _most(self._peak, level.get("demand", {}))
        if not self._points or at - self._points[-1]["at"] >= POINT_EVERY_S:
            self._points.append({"at": round(at, 1), **level, "demand": self._peak})
            self._peak = {}
            while self._points[0]["at"] < at - KEPT_S:
                self._points.popleft()

    def backfill(self, points: Iterable[tuple[float, Mapping[str, Any]]]) -> None:
        """Add points older than all others, oldest first."""
        first = self._points[0]["at"] if self._points else float("inf")
        self._points.extendleft(
            reversed([{"at": round(at, 1), **level} for at, level in points if at < first])
        )

    def thinned(self, since: float, until: float) -> list[Json]:
        """At most `POINTS_SHOWN` points of a time span: the last of each equal part.

        Parts begin at the same times for every request.
        """
        wide = max(POINT_EVERY_S, (until - since) / POINTS_SHOWN)
        parts: dict[float, Json] = {}
        for point in self._points:
            if since <= point["at"] <= until + 1:
                part = point["at"] // wide
                before = parts.get(part, {}).get("demand", {})
                parts[part] = (
                    {**point, "demand": _most(before, point.get("demand", {}))} if before else point
                )
        return list(parts.values())


def _most(first: Mapping[str, int], second: Mapping[str, int]) -> Json:
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in {**first, **second}}


def describe(plan: Plan) -> Json:
    """A plan as JSON: demand with verdicts, steps, dollars. Also `mesaform plan --json`."""
    return {
        "at": plan.at,
        "usd_per_hour": plan.usd_per_hour,
        "after_usd_per_hour": plan.after_usd_per_hour,
        "freeze": reason_view(plan.freeze),
        "paused": reason_view(plan.paused),
        "waiting": reason_view(plan.waiting),
        "removals_blocked": reason_view(plan.removals_blocked),
        "overrides": [describe_override(override) for override in plan.overrides],
        "quarantined": dict(plan.quarantined or {}),
        "demand": [verdict_view(verdict) for verdict in plan.verdicts],
        "frameworks": [framework_view(verdict) for verdict in plan.frameworks],
        "next_pass_at": plan.next_pass_at,
        "packed": None if plan.packed is None else asdict(plan.packed),
        "commands": [decision_view(command.decision.record()) for command in plan.commands],
    }


def framework_view(verdict: FrameworkVerdict) -> Json:
    """The verdict on a framework."""
    return {
        "id": verdict.framework_id,
        "name": verdict.name,
        "verdict": verdict.state,
        "text": render_state(verdict.state),
        "adapter": verdict.adapter,
        "age_s": round(verdict.age_s, 1),
        "pieces": verdict.pieces,
        "since": verdict.since,
        "reasons": [reason_view(reason) for reason in verdict.reasons],
    }


def verdict_view(verdict: Verdict) -> Json:
    """An item of demand with its verdict."""
    refusal = verdict.refusal
    return {
        "name": verdict.unit.name,
        "source": verdict.unit.source,
        "count": verdict.unit.count,
        "reasons": [reason_view(reason) for reason in verdict.unit.reasons],
        "fits_now": verdict.fits_now,
        "arriving": verdict.arriving,
        "buying": verdict.buying,
        "unmet": verdict.unmet,
        "fits_on": list(verdict.fits_on),
        "waits_for": list(verdict.waits_for),
        "buys": list(verdict.buys),
        "text": render_verdict(verdict),
        "verdict": refusal.kind if refusal else "",
        "refusal_reasons": [reason_view(reason) for reason in refusal.reasons] if refusal else [],
    }


def pools(snapshot: Snapshot, now: float) -> list[Json]:
    """Each pool with its present bounds, its machines, and those that boot or leave."""
    spec = with_bounds(snapshot.spec, snapshot.overrides, now)
    own = {pool.name: pool for pool in snapshot.spec.agents}
    return [_pool_view(pool, own[pool.name], snapshot) for pool in spec.agents]


def _pool_view(pool: Pool, own: Pool, snapshot: Snapshot) -> Json:
    """A pool with its bounds of this moment; `own` has those of the spec."""
    names = {
        machine.instance_id
        for machine in snapshot.machines
        if machine.state in LIVE and machine.tags.get(Tag.POOL) == pool.name
    }
    agents = [agent for name, agent in snapshot.agents_by_instance.items() if name in names]
    return {
        "name": pool.name,
        "min": pool.floor,
        "max": pool.max,
        "overridden": (pool.floor, pool.max) != (own.floor, own.max),
        "machines": len(names),
        "registered": len(agents),
        "leaving": len(names & set(snapshot.state.removals)),
        "cpus": sum(agent.total[0] for agent in agents) / 1000,
        "cpus_used": sum(agent.allocated[0] for agent in agents) / 1000,
        "types": list(pool.types),
    }


def removals(snapshot: Snapshot, plan: Plan) -> list[Json]:
    """Machines that are being removed."""
    machines = {machine.instance_id: machine for machine in snapshot.machines}
    return [
        {
            "instance_id": name,
            "instance_type": machines[name].instance_type if name in machines else "",
            "phase": removal.phase,
            "since": removal.since,
            "reason": reason_view(removal.reason),
            "policy": removal.policy or "idle",
        }
        for name, removal in sorted(plan.state.removals.items(), key=lambda item: item[1].since)
    ]


def overrides(snapshot: Snapshot, now: float) -> list[Json]:
    """Operators' overrides in force."""
    return [
        {
            "id": order.id,
            "what": describe_override(order),
            "by": order.by,
            "until": order.until,
            "reason": order.reason,
        }
        for order in in_force(snapshot.overrides, now)
    ]
