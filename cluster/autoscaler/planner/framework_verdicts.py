"""Verdicts on connected frameworks: what each wants, and why it gets it or not. Pure.

The state comes from the framework's adapter, else from inference. A framework of which all that it
wants fits on no type, or is refused for constraints, refuses what there is; the reasons of the
item's verdict name the nearest type and what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mesaform.autoscaler import demand
from mesaform.autoscaler.model.cluster_view import Framework
from mesaform.autoscaler.model.decision import Decision, DemandCount
from mesaform.autoscaler.model.framework_demand import (
    FrameworkDemand,
    FrameworkState,
    FrameworkVerdict,
)
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.planner.verdicts import Verdict

RENEWED_EVERY_S = 5.0
"""How often a verdict whose state stays is renewed (s): the planner state is written then."""

REPORTED_EVERY_S = 60.0
"""Least time between two decisions about one framework (s), so that none fills the ledger."""

EXECUTE_NAME = "mesos-execute"
"""Beginning of the name with which mesos-execute registers."""

UNCURABLE = frozenset({"impossible", "constraint"})
"""Refusals after which no machine that may be bought serves an item."""


def build(
    snapshot: Snapshot, verdicts: Sequence[Verdict], now: float
) -> tuple[FrameworkVerdict, ...]:
    """The verdict on each framework, ordered by name."""
    view = snapshot.cluster
    if view is None:
        return tuple(snapshot.state.frameworks.values())
    known = demand.of_frameworks(snapshot, now)
    by_framework: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_framework.setdefault(verdict.unit.framework_id, []).append(verdict)
    built = (
        _verdict(framework, known, by_framework.get(framework.framework_id, ()), snapshot, now)
        for framework in view.frameworks
    )
    return tuple(sorted(built, key=lambda verdict: (verdict.name, verdict.framework_id)))


def _verdict(
    framework: Framework,
    known: Mapping[str, FrameworkDemand],
    verdicts: Sequence[Verdict],
    snapshot: Snapshot,
    now: float,
) -> FrameworkVerdict:
    wanted = known.get(framework.framework_id)
    state, reasons = _state(framework, wanted, verdicts)
    answer = wanted if wanted is not None and wanted.is_answered else None
    failure = snapshot.adapter_failures.get(framework.framework_id)
    if failure is not None and answer is None:
        reasons = (*reasons, failure)
    built = FrameworkVerdict(
        framework_id=framework.framework_id,
        name=framework.name,
        state=state,
        since=now,
        at=now,
        pieces=sum(verdict.unit.count for verdict in verdicts),
        reasons=reasons,
    )
    if answer is not None:
        built = replace(built, adapter=answer.adapter, age_s=max(0.0, now - answer.at))
    return _continued(snapshot.state.frameworks.get(framework.framework_id), built)


def _continued(before: FrameworkVerdict | None, built: FrameworkVerdict) -> FrameworkVerdict:
    """A verdict with the time since when its state is so."""
    if before is None:
        return built
    built = replace(built, decided_at=before.decided_at)
    return replace(built, since=before.since) if before.state == built.state else built


def _state(
    framework: Framework, wanted: FrameworkDemand | None, verdicts: Sequence[Verdict]
) -> tuple[FrameworkState, tuple[Reason, ...]]:
    if not framework.active:
        return "unknown", (Reason.of(ReasonCode.FRAMEWORK_DISCONNECTED, framework=framework.name),)
    refused = _refusals(verdicts)
    if refused:
        return "refuses_offers", (*refused, *(wanted.evidence if wanted else ()))
    if framework.suppressed and not _has_answered_need(wanted):
        return "suppressed", _suppressed(framework)
    if wanted is None:
        return "unknown", (Reason.of(ReasonCode.FRAMEWORK_SILENT),)
    return _after_start(wanted, verdicts), wanted.evidence


def _has_answered_need(wanted: FrameworkDemand | None) -> bool:
    """Whether an adapter read that a framework wants more: it may ask for offers again soon."""
    return wanted is not None and wanted.is_answered and bool(wanted.wanted)


def _after_start(wanted: FrameworkDemand, verdicts: Sequence[Verdict]) -> FrameworkState:
    """The state of an answer. All that it wants may have started since it was read."""
    has_all = wanted.is_answered and wanted.state == "wants_more" and not verdicts
    return "satisfied" if has_all else wanted.state


def _refusals(verdicts: Sequence[Verdict]) -> tuple[Reason, ...]:
    """Why nothing that a framework wants can be served, if so."""
    refusals = [verdict.refusal for verdict in verdicts if verdict.refusal is not None]
    uncurable = [refusal for refusal in refusals if refusal.kind in UNCURABLE]
    if len(uncurable) < len(verdicts):
        return ()
    reasons = (reason for refusal in uncurable for reason in refusal.reasons)
    return tuple(dict.fromkeys(reasons))


def _suppressed(framework: Framework) -> tuple[Reason, ...]:
    """That a framework asks for no offers, and why mesos-execute does so."""
    reasons = (Reason.of(ReasonCode.FRAMEWORK_SUPPRESSED, framework=framework.name),)
    is_execute = framework.name.startswith(EXECUTE_NAME)
    return (*reasons, Reason.of(ReasonCode.EXECUTE_SUPPRESSED)) if is_execute else reasons


def stored(
    before: Mapping[str, FrameworkVerdict], built: Sequence[FrameworkVerdict]
) -> dict[str, FrameworkVerdict]:
    """The verdicts to keep: one whose state stays is renewed only now and then."""
    kept = {}
    for verdict in built:
        known = before.get(verdict.framework_id)
        is_same = known is not None and (known.state, known.pieces, known.decided_at) == (
            verdict.state,
            verdict.pieces,
            verdict.decided_at,
        )
        is_recent = known is not None and 0 <= verdict.at - known.at < RENEWED_EVERY_S
        kept[verdict.framework_id] = known if known and is_same and is_recent else verdict
    return kept


def changes(
    built: Sequence[FrameworkVerdict], now: float
) -> tuple[list[Decision], tuple[FrameworkVerdict, ...]]:
    """Decisions about frameworks whose state changed, and the verdicts with the time of those.

    There is none about a framework that is new and satisfied.
    """
    decisions, noted = [], []
    for verdict in built:
        is_news = _is_news(verdict, now)
        if is_news:
            decisions.append(_decision(verdict, now))
        noted.append(replace(verdict, decided_at=now) if is_news else verdict)
    return decisions, tuple(noted)


def _is_news(verdict: FrameworkVerdict, now: float) -> bool:
    if now - verdict.decided_at < REPORTED_EVERY_S:
        return False
    if not verdict.decided_at:
        return verdict.state in {"wants_more", "refuses_offers", "suppressed"}
    return verdict.since > verdict.decided_at


def _decision(verdict: FrameworkVerdict, now: float) -> Decision:
    return Decision(
        now,
        "framework",
        verdict.reasons,
        count=verdict.pieces,
        demand=(DemandCount(verdict.name, verdict.pieces),),
        policy=verdict.state,
    )
