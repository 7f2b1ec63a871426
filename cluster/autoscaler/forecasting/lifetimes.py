"""How long work will go on: learned from how long tasks of the same name ran, else from how long it has run already. Pure.

A history is counts of lifetimes in steps of a factor of two, so it stays small for ever; old counts fade as new ones come. Where a
history says nothing about tasks that old, Lindy's law does: what has lasted long will last long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log2

from mesaform.autoscaler.model.lifetimes import Ended, LifetimeHistogram

FIRST_S = 16.0
STEPS = 24
ENOUGH = 5.0
"""Lifetimes that must be known, of tasks that got as old, before a history is believed."""

FADES_AT = 200.0
"""A history of so many lifetimes counts half from then on: an app's habits change."""

NAMES_AT_MOST = 500
"""Histories kept: those with the most lifetimes."""

SURE = 0.75
"""How sure a guess is: work outlasts it, or has ended by it, three times in four."""


def learned(
    known: Mapping[str, LifetimeHistogram], ended: Iterable[Ended]
) -> dict[str, LifetimeHistogram]:
    """Histories with what ended since."""
    counts = dict(known)
    for one in ended:
        lives = list(counts.get(one.name, (0.0,) * STEPS))
        lives[_step(one.ran_s)] += 1.0
        counts[one.name] = (
            tuple(count / 2 for count in lives) if sum(lives) >= FADES_AT else tuple(lives)
        )
    if len(counts) > NAMES_AT_MOST:
        kept = sorted(counts, key=lambda name: (-sum(counts[name]), name))[:NAMES_AT_MOST]
        counts = {name: counts[name] for name in kept}
    return counts


def lasts_s(lives: LifetimeHistogram | None, age_s: float) -> float:
    """How much longer work of this age goes on at least: three times in four by its history; as long again where there is none (Lindy)."""
    found = _quantile_s(lives, age_s, 1 - SURE)
    if found is not None:
        return max(0.0, found - age_s)
    return max(0.0, age_s)


def ends_within_s(lives: LifetimeHistogram | None, age_s: float) -> float | None:
    """Within which time work of this age has ended, three times in four; None where its history does not say."""
    found = _quantile_s(lives, age_s, SURE)
    return None if found is None else max(0.0, found - age_s)


def _step(ran_s: float) -> int:
    return 0 if ran_s < FIRST_S else min(STEPS - 1, 1 + int(log2(ran_s / FIRST_S)))


def _quantile_s(lives: LifetimeHistogram | None, age_s: float, part: float) -> float | None:
    """The lifetime that `part` of the tasks that got this old did not exceed; None where too few did, or the last step is met."""
    if lives is None:
        return None
    first = _step(age_s)
    low = 0.0 if first == 0 else FIRST_S * 2 ** (first - 1)
    share_left = (2 * low - age_s) / low if first else 1.0  # of the step that the age is in
    counts = [lives[first] * share_left, *lives[first + 1 :]]
    total = sum(counts)
    if total < ENOUGH:
        return None
    sought = total * part
    for number, count in enumerate(counts, first):
        if sought <= count and count > 0:
            below = 0.0 if number == 0 else FIRST_S * 2 ** (number - 1)
            start, end = max(below, age_s), FIRST_S * 2**number
            return None if number == STEPS - 1 else start + (end - start) * sought / count
        sought -= count
    return None
