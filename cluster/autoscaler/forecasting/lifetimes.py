"""Estimates of the remaining lifetime of tasks, from lifetimes of tasks of the same name. Pure.

A histogram counts lifetimes in steps of a factor of two, so its size is constant. Old counts lose
weight as new ones arrive. Where a histogram has too few tasks of an age, the estimate follows
Lindy's law: the remaining lifetime equals the age. Depends on `autoscaler.model` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log2

from mesaform.autoscaler.model.lifetimes import Ended, LifetimeHistogram

FIRST_S = 16.0
STEPS = 24
ENOUGH = 5.0
"""Least number of lifetimes, of tasks that reached the same age, for an estimate."""

FADES_AT = 200.0
"""Number of lifetimes at which all counts are halved, because an app's behaviour changes."""

NAMES_AT_MOST = 500
"""Greatest number of histograms. Those with the fewest lifetimes are dropped."""

SURE = 0.75
"""Probability that a task outlasts an estimate, or has ended by it."""


def learned(
    known: Mapping[str, LifetimeHistogram], ended: Iterable[Ended]
) -> dict[str, LifetimeHistogram]:
    """Return the histograms by name with the ended tasks added."""
    counts = dict(known)
    for task in ended:
        lives = list(counts.get(task.name, (0.0,) * STEPS))
        lives[_step(task.ran_s)] += 1.0
        counts[task.name] = (
            tuple(count / 2 for count in lives) if sum(lives) >= FADES_AT else tuple(lives)
        )
    if len(counts) > NAMES_AT_MOST:
        largest = sorted(counts, key=lambda name: (-sum(counts[name]), name))[:NAMES_AT_MOST]
        counts = {name: counts[name] for name in largest}
    return counts


def lasts_s(lives: LifetimeHistogram | None, age_s: float) -> float:
    """Return how many seconds a task of this age still runs at least, with probability `SURE`.

    Returns the age itself where the histogram gives no estimate (Lindy's law).
    """
    lifetime_s = _quantile_s(lives, age_s, 1 - SURE)
    if lifetime_s is not None:
        return max(0.0, lifetime_s - age_s)
    return max(0.0, age_s)


def ends_within_s(lives: LifetimeHistogram | None, age_s: float) -> float | None:
    """Return the seconds within which a task of this age ends, with probability `SURE`.

    None where the histogram gives no estimate.
    """
    lifetime_s = _quantile_s(lives, age_s, SURE)
    return None if lifetime_s is None else max(0.0, lifetime_s - age_s)


def _step(ran_s: float) -> int:
    return 0 if ran_s < FIRST_S else min(STEPS - 1, 1 + int(log2(ran_s / FIRST_S)))


def _start_s(step: int) -> float:
    """Return the lower bound of a step; its upper bound is the start of the next."""
    return 0.0 if step == 0 else FIRST_S * 2 ** (step - 1)


def _quantile_s(lives: LifetimeHistogram | None, age_s: float, part: float) -> float | None:
    """Return the lifetime that `part` of the tasks that reached this age did not exceed.

    None where too few tasks reached the age, and where the lifetime is in the last, open step.
    """
    if lives is None:
        return None
    first = _step(age_s)
    counts = _counts_from(lives, first, age_s)
    total = sum(counts)
    if total < ENOUGH:
        return None
    sought = total * part
    for step, count in enumerate(counts, first):
        if sought <= count and count > 0:
            start_s, end_s = max(_start_s(step), age_s), _start_s(step + 1)
            return None if step == STEPS - 1 else start_s + (end_s - start_s) * sought / count
        sought -= count
    return None


def _counts_from(lives: LifetimeHistogram, first: int, age_s: float) -> list[float]:
    """Return the counts from the step of an age on; of this step only the part after the age."""
    start_s = _start_s(first)
    share_left = (2 * start_s - age_s) / start_s if first else 1.0
    return [lives[first] * share_left, *lives[first + 1 :]]
