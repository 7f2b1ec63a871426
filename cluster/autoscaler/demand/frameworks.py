"""Demand of frameworks whose queue is not read, inferred from what the master shows. Pure.

`framework_judgement` says what a framework shows of its need, `experiments` what became of the
machines that were bought for it. A need counts once it lasts for `DRY_FOR_S`, not shortly after a
change of master, while agents are expected back, or while the allocator is late. One machine then
tests it, and only what was accepted makes the next purchase larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mesaform.autoscaler.demand import experiments, rates, shape_guess
from mesaform.autoscaler.demand.framework_judgement import Judgement, conclude
from mesaform.autoscaler.demand.labelled import with_labels
from mesaform.autoscaler.demand.open_agents import OpenAgents
from mesaform.autoscaler.demand.quota import applies
from mesaform.autoscaler.model.cluster_view import ClusterView, Framework
from mesaform.autoscaler.model.demand_item import BlockedKind, DemandItem, PurchaseStop
from mesaform.autoscaler.model.experiment import NO_EXPERIMENT, Experiment
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, WantedShape
from mesaform.autoscaler.model.planner_state import Finding, PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, contains, text
from mesaform.autoscaler.model.snapshot import Snapshot

DRY_FOR_S = 5.0
"""Time that a framework lacks offers before it counts (s): the default duration of a refusal."""

SETTLE_S = 30.0
"""Time after a change of master without inference (s): counters begin anew, agents return."""

LAG_MOST_S = 5.0
"""Lag of the allocator (s) above which every framework seems to lack offers."""


@dataclass(frozen=True, slots=True)
class Study:
    """The records of experiments and the judgements of one pass, by framework id."""

    experiments: dict[str, Experiment] = field(default_factory=dict)
    judgements: dict[str, Judgement] = field(default_factory=dict)


def study(snapshot: Snapshot, now: float) -> Study:
    """What the frameworks without an adapter show, and what became of purchases for them."""
    view = snapshot.cluster
    if view is None:
        return Study(snapshot.state.experiments)
    records = experiments.observe(snapshot, now)
    agents = OpenAgents(view.agents)
    judgements = {}
    for framework in _inferred(snapshot):
        record = records.get(framework.framework_id, NO_EXPERIMENT)
        judgement = conclude(framework, snapshot, agents, record, now)
        judgements[framework.framework_id] = judgement
        remembered = _with_judgement(record, judgement, now)
        if remembered != NO_EXPERIMENT:
            records[framework.framework_id] = remembered
    return Study(records, judgements)


def _with_judgement(record: Experiment, judgement: Judgement, now: float) -> Experiment:
    """The record that remembers long refusals, until they are no longer seen."""
    if judgement.is_satisfied_for_long == bool(record.satisfied_at):
        return record
    return replace(record, satisfied_at=now if judgement.is_satisfied_for_long else 0.0)


def _inferred(snapshot: Snapshot) -> Iterator[Framework]:
    """The frameworks that no adapter answers for."""
    view = snapshot.cluster
    for framework in view.frameworks if view is not None else ():
        if framework.framework_id not in snapshot.framework_demand:
            yield framework


def units(snapshot: Snapshot, now: float) -> list[DemandItem]:
    """The demand of all frameworks without an adapter."""
    view = snapshot.cluster
    if view is None:
        return []
    studied = study(snapshot, now)
    needs = (
        _Need(
            framework,
            studied.judgements[framework.framework_id],
            studied.experiments.get(framework.framework_id, NO_EXPERIMENT),
            snapshot,
            view,
            now,
        )
        for framework in _inferred(snapshot)
    )
    return [item for need in needs if (item := need.item()) is not None]


def dry_since(snapshot: Snapshot, now: float) -> dict[str, float]:
    """Since when each framework seems to lack offers (epoch s), by framework id."""
    memory = snapshot.state
    if snapshot.cluster is None:
        return memory.dry_since
    judgements = study(snapshot, now).judgements
    dry = (name for name, judgement in judgements.items() if judgement.is_dry)
    return {name: memory.dry_since.get(name, now) for name in dry}


def suspects(snapshot: Snapshot, now: float) -> tuple[Shape, ...]:
    """The shapes that the probe framework asks for."""
    judgements = study(snapshot, now).judgements.values()
    shapes = (judgement.shape for judgement in judgements if judgement.shape is not None)
    return tuple(dict.fromkeys(shapes))


def assess(snapshot: Snapshot, now: float) -> dict[str, FrameworkDemand]:
    """The state of each framework without an adapter, with the evidence, by framework id."""
    studied = study(snapshot, now)
    return {
        framework.framework_id: _assessed(framework, studied, snapshot, now)
        for framework in _inferred(snapshot)
    }


def _assessed(
    framework: Framework, studied: Study, snapshot: Snapshot, now: float
) -> FrameworkDemand:
    name = framework.framework_id
    judgement = studied.judgements[name]
    record = studied.experiments.get(name, NO_EXPERIMENT)
    state = judgement.state
    evidence: tuple[Reason, ...] = (judgement.reason,)
    if state == "wants_more" and experiments.is_paused(record, framework, now):
        refused = _refused(record, framework, now)
        state = "satisfied" if _has_shape(framework) else "refuses_offers"
        evidence = (refused, judgement.reason)
    is_lacking = state in {"wants_more", "refuses_offers"} and judgement.shape is not None
    since = snapshot.state.dry_since.get(name, now)
    wanted = (
        (WantedShape(judgement.shape, 1, constraints=framework.constraints, since=since),)
        if is_lacking and judgement.shape is not None
        else ()
    )
    return FrameworkDemand(name, state, now, wanted=wanted, evidence=evidence)


def _has_shape(framework: Framework) -> bool:
    """Whether a framework shows the size of its tasks, so that a refusal is not for its size."""
    return (framework.minimal or framework.task_shape) is not None


def _refused(record: Experiment, framework: Framework, now: float) -> Reason:
    return Reason.of(
        ReasonCode.EXPERIMENT_REFUSED,
        framework=framework.name,
        count=record.refusals,
        retry_s=max(0.0, record.until - now),
    )


@dataclass(frozen=True, slots=True)
class _Need:
    """The need of one framework in a pass."""

    framework: Framework
    judgement: Judgement
    record: Experiment
    snapshot: Snapshot
    view: ClusterView
    now: float

    def item(self) -> DemandItem | None:
        """Its demand; None without a need, or while it is not certain and nothing was bought."""
        if not self.framework.active or self.judgement.state in {"suppressed", "satisfied"}:
            return None
        if self.record.pending_pieces:
            return self._pending()
        shape, since = self.judgement.shape, self._dry_since
        if shape is None or self.now - since < DRY_FOR_S:
            return None
        if self.judgement.state == "refuses_offers":
            return self._blocked(shape, self.judgement.reason)
        return self._tested(shape, _finding_since(shape, self.snapshot.state, since))

    def _tested(self, shape: Shape, finding: Finding | None) -> DemandItem | None:
        """Demand for a test, unless the probe framework or a refusal speaks against it."""
        if self.judgement.needs_probe and not _has_no_offer(finding):
            return None
        if experiments.is_paused(self.record, self.framework, self.now):
            return self._paused(shape)
        return self._wanted(shape, finding)

    @property
    def _dry_since(self) -> float:
        return self.snapshot.state.dry_since.get(self.framework.framework_id, self.now)

    def _pending(self) -> DemandItem:
        """What was bought for it and is not tested: its machines are kept, no more are bought."""
        shape = max(launch.shape for launch in self.record.launches.values())
        pending = Reason.of(ReasonCode.PURCHASE_PENDING)
        item = self._demand(shape, self.record.pending_pieces, (self.judgement.reason, pending))
        return replace(item, stop=PurchaseStop("purchases_stopped", 0, pending))

    def _paused(self, shape: Shape) -> DemandItem | None:
        """Demand that a refusal forbids; none if it refused what holds its tasks."""
        if _has_shape(self.framework):
            return None
        return self._blocked(shape, _refused(self.record, self.framework, self.now))

    def _blocked(self, shape: Shape, reason: Reason) -> DemandItem:
        item = self._demand(shape, 1, (self.judgement.reason,))
        return replace(item, blocked=reason, blocked_kind="offer_declined")

    def _wanted(self, shape: Shape, finding: Finding | None) -> DemandItem:
        """Demand for the next test."""
        count = experiments.next_pieces(self.record)
        blocked, kind = _not_believed(self.view, self.snapshot.state, finding, self.now)
        if blocked is None:
            count, blocked, kind = self._within_limit(shape, count)
        item = self._demand(shape, count, self._reasons(finding))
        refused_by = self._agents_not_offered(shape) if self.judgement.needs_probe else frozenset()
        item = replace(item, refused_by=refused_by)
        return item if blocked is None else replace(item, blocked=blocked, blocked_kind=kind)

    def _agents_not_offered(self, shape: Shape) -> frozenset[str]:
        """The machines whose free resources are not offered, though they seem large enough."""
        return frozenset(
            agent.instance_id for agent in self.view.agents if contains(agent.free, shape)
        )

    def _demand(self, shape: Shape, count: int, reasons: tuple[Reason, ...]) -> DemandItem:
        item = DemandItem(
            "framework",
            self.framework.name,
            shape,
            count,
            reasons,
            self.framework.constraints,
            framework_id=self.framework.framework_id,
            role=_role_without_quota(self.framework, self.view),
        )
        return with_labels(item, self.framework.labels, self._dry_since)

    def _reasons(self, finding: Finding | None) -> tuple[Reason, ...]:
        """Why a framework seems to lack offers: what it finds, its rates, the probe framework."""
        reasons = [self.judgement.reason]
        lately = rates.of(self.framework, self.view, self.snapshot.state.marks, self.now)
        if lately is not None:
            reasons.append(lately.reason())
        if _has_no_offer(finding):
            reasons.append(Reason.of(ReasonCode.PROBE_NOT_OFFERED))
        if self.record.accepted:
            reasons.append(
                Reason.of(
                    ReasonCode.EXPERIMENT_ACCEPTED,
                    accepted=self.record.accepted,
                    bought=self.record.bought,
                )
            )
        else:
            reasons.append(Reason.of(ReasonCode.EXPERIMENT_FIRST))
        return tuple(reasons)

    def _within_limit(self, shape: Shape, count: int) -> tuple[int, Reason | None, BlockedKind]:
        """The pieces that the spending limit allows, or why it allows none."""
        limit_usd = self.snapshot.spec.autoscaler.inference.usd_per_hour
        spent_usd = experiments.spent_usd(self.record, self.now)
        cheapest_usd = shape_guess.cheapest_usd(shape, self.snapshot)
        if cheapest_usd is None or cheapest_usd <= 0:
            return count, None, ""
        affordable = int((limit_usd - spent_usd) / cheapest_usd + 1e-9)
        if affordable >= 1:
            return min(count, affordable), None, ""
        reason = Reason.of(
            ReasonCode.INFERENCE_LIMIT,
            limit_usd_per_hour=limit_usd,
            spent_usd_per_hour=spent_usd,
            cheapest_usd_per_hour=cheapest_usd,
        )
        return count, reason, "inference_limit"


def _finding_since(shape: Shape, memory: PlannerState, since: float) -> Finding | None:
    """What the probe framework was offered of a shape since a time (epoch s)."""
    finding = memory.findings.get(text(shape))
    return finding if finding is not None and finding.at >= since else None


def _has_no_offer(finding: Finding | None) -> bool:
    """Whether the probe framework asked for such an offer and got none."""
    return finding is not None and not finding.offered


def _role_without_quota(framework: Framework, view: ClusterView) -> str:
    """The first role of a framework that no quota limits, else its first role."""
    free = (
        role for role in framework.roles if not any(applies(quota, role) for quota in view.quotas)
    )
    return next(free, framework.roles[0])


def _not_believed(
    view: ClusterView, memory: PlannerState, finding: Finding | None, now: float
) -> tuple[Reason | None, BlockedKind]:
    """Why a framework's need is not certain yet, with its verdict."""
    changed_s = now - max(view.elected_at, memory.leader_since or 0.0)
    if changed_s < SETTLE_S:
        recent = Reason.of(ReasonCode.MASTER_ELECTED_RECENTLY, elected_s=max(0.0, changed_s))
        return recent, "failover"
    if view.recovered:
        return Reason.of(ReasonCode.AGENTS_EXPECTED, count=view.recovered), "recovering"
    if view.allocator_lag_s > LAG_MOST_S:
        return Reason.of(ReasonCode.ALLOCATOR_LATE, lag_s=view.allocator_lag_s), "allocator"
    if finding is not None and finding.offered:
        offered = Reason.of(ReasonCode.PROBE_OFFERED, agent=finding.where, age_s=now - finding.at)
        return offered, "offers_available"
    return None, ""
