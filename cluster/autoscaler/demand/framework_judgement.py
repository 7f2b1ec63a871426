"""What a framework without an adapter shows of its need. Pure.

A framework is judgement by the first of these that holds:

- suppressed: it takes no offers in any role. Disconnected: nothing is known.
- holds offers: it keeps offers for long without an answer.
- offers suffice: an agent has free what its tasks take, and it takes nothing.
- declines all: its largest task is larger than all that it is offered.
- unserved: it gets no offer although enough seems free and no refusal is in force.
- refuses the largest: it declines all, runs nothing, and no type is larger than what it declines.
- repeats refusals: it declines what is too small, and asks again with the default filter (5 s).
- refuses for long: it declines with longer filters, as one that has all that it wants.
- starving: nothing is free for it, and its last refusals were not long.

`demand.experiments` decides what is bought on such a judgement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mesaform.autoscaler.demand import open_agents, rates, shape_guess
from mesaform.autoscaler.demand.open_agents import Free, OpenAgents
from mesaform.autoscaler.demand.rates import Rates
from mesaform.autoscaler.model.cluster_view import Framework
from mesaform.autoscaler.model.experiment import Experiment
from mesaform.autoscaler.model.framework_demand import FrameworkState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import NOTHING, Shape, maximum, text
from mesaform.autoscaler.model.snapshot import Snapshot

REPEATED_S = rates.ROUND_S + 1.0
"""Time after it took something in which refusals from before end (s)."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a framework shows. `shape` is what it lacks, if it lacks something.

    `is_dry` means that nothing is free that it can use, so that its need may be watched. A
    `needs_probe` judgement counts only if the probe framework gets no such offer either.
    `is_satisfied_for_long` is remembered until it takes something or revives offers.
    """

    state: FrameworkState
    reason: Reason
    shape: Shape | None = None
    is_dry: bool = False
    needs_probe: bool = False
    is_satisfied_for_long: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    framework: Framework
    free: Free
    record: Experiment
    lately: Rates | None
    new_agents: int
    snapshot: Snapshot
    now: float

    def judgement(
        self, state: FrameworkState, code: ReasonCode, shape: Shape | None = None, **params: float
    ) -> Judgement:
        """A judgement whose reason has the framework's name, and the shape if there is one."""
        name = self.framework.name
        if shape is None:
            return Judgement(state, Reason.of(code, framework=name, **params))
        wait_s = self.now - self.snapshot.state.dry_since.get(self.framework.framework_id, self.now)
        reason = Reason.of(code, framework=name, resources=text(shape), wait_s=wait_s)
        return Judgement(state, reason, shape, is_dry=True)


def conclude(
    framework: Framework, snapshot: Snapshot, agents: OpenAgents, record: Experiment, now: float
) -> Judgement:
    """What a framework of the snapshot's cluster shows at this moment (epoch s)."""
    view = snapshot.cluster
    lately = None
    if view is not None:
        lately = rates.of(framework, view, snapshot.state.marks, now)
    new_agents = 0 if lately is None else agents.new_since(now - lately.window_s)
    case = _Case(framework, agents.free_for(framework), record, lately, new_agents, snapshot, now)
    if not framework.active:
        return case.judgement("unknown", ReasonCode.FRAMEWORK_DISCONNECTED)
    if framework.suppressed:
        return case.judgement("suppressed", ReasonCode.FRAMEWORK_SUPPRESSED)
    if _holds_offers(framework, lately):
        return case.judgement("satisfied", ReasonCode.FRAMEWORK_HOLDS_OFFERS, held=framework.held)
    return _conclude_asking(case)


def _holds_offers(framework: Framework, lately: Rates | None) -> bool:
    """Whether a framework keeps offers without an answer."""
    return framework.held > 0 and lately is not None and not lately.accepted and not lately.declined


def _conclude_asking(case: _Case) -> Judgement:
    """The judgement of a framework that takes offers and answers them."""
    shape = _known_shape(case.framework)
    if shape is None:
        return _conclude_without_shape(case)
    if not open_agents.holds(case.free, shape):
        return _conclude_refusals(case, shape)
    larger = case.framework.task_shape
    if larger and not open_agents.holds(case.free, larger):
        refusals = _conclude_refusals(case, larger)
        if refusals.state == "wants_more":
            return case.judgement("wants_more", ReasonCode.FRAMEWORK_DECLINES_ALL, larger)
    return _unserved(case, shape) or case.judgement("satisfied", ReasonCode.OFFERS_SUFFICE)


def _conclude_without_shape(case: _Case) -> Judgement:
    """The judgement of a framework that runs nothing and declares no smallest offer."""
    if case.free:
        unserved = _unserved(case, shape_guess.larger_than(case.record.refused, case.snapshot))
        if unserved is not None:
            return unserved
    refused = maximum(open_agents.largest(case.free), case.record.refused)
    shape = shape_guess.larger_than(refused, case.snapshot)
    judgement = _conclude_refusals(case, shape or refused)
    if judgement.state != "wants_more" or not case.free:
        return judgement
    if shape is None:
        return case.judgement("refuses_offers", ReasonCode.FRAMEWORK_REFUSES_LARGEST, refused)
    return case.judgement("wants_more", ReasonCode.FRAMEWORK_REFUSES_SIZES, shape)


def _unserved(case: _Case, shape: Shape | None) -> Judgement | None:
    """That a framework is offered nothing although no refusal of its own explains that."""
    framework, lately = case.framework, case.lately
    may_refuse = framework.refusals and framework.declined
    if shape is None or lately is None or lately.sent or may_refuse:
        return None
    judgement = case.judgement("wants_more", ReasonCode.FRAMEWORK_UNSERVED, shape)
    return replace(judgement, needs_probe=True)


def _conclude_refusals(case: _Case, shape: Shape) -> Judgement:
    """The judgement of a framework for which nothing that is free is large enough."""
    agents = sum(case.free.values())
    refusal_s = _refusal_s(case, agents)
    is_short = refusal_s is not None and refusal_s <= rates.SHORT_S
    if case.record.satisfied_at and not is_short:
        return _satisfied(case, refusal_s)
    if not agents:
        return case.judgement("wants_more", ReasonCode.FRAMEWORK_STARVING, shape)
    if is_short:
        return case.judgement("wants_more", ReasonCode.FRAMEWORK_STARVING, shape)
    if refusal_s is not None and refusal_s >= rates.LONG_S:
        return _satisfied(case, refusal_s)
    watched = case.judgement("unknown", ReasonCode.FRAMEWORK_WATCHED)
    return Judgement("unknown", watched.reason, is_dry=True)


def _refusal_s(case: _Case, agents: int) -> float | None:
    """The estimated length of its refusals (s); None while it is unknown."""
    if case.lately is None:
        return None
    took_lately = case.lately.began_at - case.record.accepted_at < REPEATED_S
    return case.lately.refusal_s(agents, case.new_agents, took_lately=took_lately)


def _satisfied(case: _Case, refusal_s: float | None) -> Judgement:
    """The judgement of a framework whose refusals are long; without an end if none is seen."""
    known_s = -1.0 if refusal_s is None or math.isinf(refusal_s) else refusal_s
    judgement = case.judgement("satisfied", ReasonCode.FRAMEWORK_REFUSES_LONG, refusal_s=known_s)
    return Judgement("satisfied", judgement.reason, is_satisfied_for_long=True)


def _known_shape(framework: Framework) -> Shape | None:
    """The smallest shape that a framework can use; None if it shows none."""
    shape = framework.minimal or framework.task_shape
    return shape if shape and shape != NOTHING else None
