"""One trace, several policies, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.autoscaler.shape import shape_of
from cluster.cloud.port import Offering
from cluster.sim.baselines import baseline
from cluster.sim.market import Market, Settings, offerings
from cluster.sim.mesaform import Mesaform
from cluster.sim.policy import Policy
from cluster.sim.record import Figures, Record
from cluster.sim.trace import Trace
from cluster.sim.world import Scaler, World, fits_anything

ABOUT_AS_LONG = 0.1
"""Rivals that wait at most this much longer at p95 are compared by cost."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy's run. `unschedulable` counts tasks that no type of any of its pools holds; `took_s` is of the processor."""

    name: str
    record: Record
    figures: Figures
    unschedulable: int
    took_s: float


def catalogue_of(policy: Policy) -> dict[str, tuple[Offering, ...]]:
    """What each pool of a policy may buy."""
    spec = policy.spec
    return {pool.name: offerings(pool.types, spec.zones, pool.disk_gib) for pool in spec.agents}


def simulate(trace: Trace, policy: Policy, settings: Settings, rule: str = "") -> Outcome:
    """Run one policy over a trace: the real planner, or with `rule` that baseline, buying what the policy may buy."""
    spec, catalogue = policy.spec, catalogue_of(policy)
    world = World(trace, catalogue, Market(settings), {pool.name: pool.attributes for pool in spec.agents})
    for pool in spec.agents:
        first = next(offering for offering in catalogue[pool.name] if offering.capacity == "on-demand")
        world.add(pool.name, first, pool.count)
    scaler: Scaler = baseline(rule)(spec, catalogue) if rule else Mesaform(policy.name, spec, catalogue)
    started = time.process_time()
    record = world.run(scaler)
    took_s = time.process_time() - started
    never = sum(1 for task in trace.tasks if not fits_anything(task.shape, catalogue))
    return Outcome(rule or policy.name, record, record.figures(), never, round(took_s, 2))


def savings(outcomes: Sequence[Outcome]) -> tuple[Outcome, float]:
    """Of all but the first: the cheapest that serves as well, and the part of its cost that the first saves (negative: costs more).

    As well means: p95 at most a tenth longer than the first's, and no task more left. When none does, the cheapest of all.
    """
    mine, *others = outcomes
    longest_s = mine.figures.wait_p95_s * (1 + ABOUT_AS_LONG)
    alike = [one for one in others if one.figures.wait_p95_s <= longest_s and one.figures.never_placed <= mine.figures.never_placed]
    best = min(alike or others, key=lambda one: one.figures.usd)
    return best, 1 - mine.figures.usd / best.figures.usd if best.figures.usd else 0.0


def least_usd(trace: Trace, policy: Policy) -> float:
    """What the work costs at least, could machines be bought in any part and for any moment: nothing that buys as `policy` may is cheaper.

    The linear program over cpus and memory is solved through its dual, whose corners are few. Tasks that fit nothing are left out.
    """
    catalogue = catalogue_of(policy)
    spot = {pool.name for pool in policy.agents if pool.spot_share > 0}
    offered = {
        (shape_of(offering.resources)[:2], offering.usd_per_hour)
        for name, pool in catalogue.items()
        for offering in pool
        if offering.capacity == "on-demand" or name in spot
    }
    runnable = [task for task in trace.tasks if fits_anything(task.shape, catalogue)]
    demand = [sum(task.shape[d] * task.runs_s for task in runnable) / 3600 for d in (0, 1)]
    rows = sorted((shape[0], shape[1], usd) for shape, usd in offered)
    corners = [(min(usd / cpus for cpus, _, usd in rows), 0.0), (0.0, min(usd / mem for _, mem, usd in rows))]
    for index, (cpus, mem, usd) in enumerate(rows):
        for other_cpus, other_mem, other_usd in rows[index + 1 :]:
            if determinant := cpus * other_mem - mem * other_cpus:
                corners.append(((usd * other_mem - mem * other_usd) / determinant, (cpus * other_usd - usd * other_cpus) / determinant))
    allowed = [c for c in corners if min(c) >= 0 and all(cpus * c[0] + mem * c[1] <= usd * (1 + 1e-9) for cpus, mem, usd in rows)]
    return round(max(demand[0] * c[0] + demand[1] * c[1] for c in allowed), 4)
