"""One trace, several policies, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from mesaform.aws.ports import Offering
from mesaform.aws.pricing.pool_offerings import complete, with_offered_cpus
from mesaform.aws.pricing.prices import BOOK_PRICES
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.simulator.baselines import baseline
from mesaform.simulator.bound import Bound, bound_of
from mesaform.simulator.market import Market, Settings, offerings
from mesaform.simulator.mesaform_policy import Mesaform
from mesaform.simulator.policy import Policy
from mesaform.simulator.results import Figures, Record
from mesaform.simulator.trace import Trace
from mesaform.simulator.world import Scaler, World, fits_anything

ABOUT_AS_LONG = 0.1
"""Rivals that wait at most this much longer at p95 are compared by cost."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy's run.

    `unschedulable` counts tasks that no type of any of its pools holds; `took_s` is of the
    processor.
    """

    name: str
    record: Record
    figures: Figures
    unschedulable: int
    took_s: float


def catalogue_of(policy: Policy) -> dict[str, tuple[Offering, ...]]:
    """What each pool of a policy may buy, at the price of a machine with all its parts."""
    spec = policy.spec
    return {pool.name: _offerings_of(pool, spec) for pool in spec.agents}


def _offerings_of(pool: Pool, spec: ClusterSpec) -> tuple[Offering, ...]:
    sold = with_offered_cpus(offerings(pool.types, spec.zones, pool.disk_gib), pool)
    return tuple(complete(sold, pool, spec, BOOK_PRICES))


def simulate(trace: Trace, policy: Policy, settings: Settings, rule: str = "") -> Outcome:
    """Run one policy over a trace: the real planner, or the baseline that `rule` names.

    A baseline buys what the policy may buy.
    """
    spec, catalogue = policy.spec, catalogue_of(policy)
    world = _world_of(trace, policy, settings, catalogue)
    scaler: Scaler = (
        baseline(rule)(spec, catalogue) if rule else Mesaform(policy.name, spec, catalogue)
    )
    started = time.process_time()
    record = world.run(scaler)
    took_s = time.process_time() - started
    never = sum(1 for task in trace.tasks if not fits_anything(task.shape, catalogue))
    return Outcome(rule or policy.name, record, record.figures(), never, round(took_s, 2))


def _world_of(
    trace: Trace,
    policy: Policy,
    settings: Settings,
    catalogue: dict[str, tuple[Offering, ...]],
) -> World:
    """The world with the machines that each pool has from the start."""
    pools = policy.spec.agents
    world = World(
        trace, catalogue, Market(settings), {pool.name: pool.attributes for pool in pools}
    )
    for pool in pools:
        on_demand = (
            offering for offering in catalogue[pool.name] if offering.capacity == "on-demand"
        )
        world.add(pool.name, next(on_demand), pool.count)
    return world


def savings(outcomes: Sequence[Outcome]) -> tuple[Outcome, float]:
    """Return the cheapest policy with equal service and the saving of the first against it.

    The saving is a part of its cost; negative when the first costs more.

    As well means: p95 at most a tenth longer than the first's, and no task more left. When none
    does, the cheapest of all.
    """
    mine, *others = outcomes
    longest_s = mine.figures.wait_p95_s * (1 + ABOUT_AS_LONG)
    alike = [
        outcome
        for outcome in others
        if outcome.figures.wait_p95_s <= longest_s
        and outcome.figures.never_placed <= mine.figures.never_placed
    ]
    best = min(alike or others, key=lambda outcome: outcome.figures.usd)
    return best, 1 - mine.figures.usd / best.figures.usd if best.figures.usd else 0.0


def least_usd(trace: Trace, policy: Policy, settings: Settings) -> Bound:
    """What the work costs at least, whatever buys for it, with what `policy` may buy.

    Spot prices count where it may buy spot.
    """
    spot = {pool.name for pool in policy.agents if pool.spot_share > 0}
    offered = [
        offering
        for name, pool in catalogue_of(policy).items()
        for offering in pool
        if offering.capacity == "on-demand" or name in spot
    ]
    return bound_of(trace, offered, settings.boot_s)
