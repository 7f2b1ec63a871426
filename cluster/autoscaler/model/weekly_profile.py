"""Usage of past weeks, as values. `mesaform.autoscaler.forecasting.weekly_profile` uses them."""

from __future__ import annotations

from dataclasses import dataclass, field

Level = tuple[int, int, int]
"""cpus and memory (MiB) in thousandths, and tasks."""


@dataclass(frozen=True, slots=True)
class Week:
    """The most that ran in each slot of one week. `number` counts weeks since the epoch."""

    number: int
    levels: dict[int, Level] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """Past weeks by pool, oldest first, and the most that ran in the present slot so far.

    `slot` counts slots since the Monday before the epoch. The present slot was observed from
    `since` until `until` (epoch seconds).
    """

    pools: dict[str, tuple[Week, ...]] = field(default_factory=dict)
    slot: int = -1
    since: float = 0.0
    until: float = 0.0
    most: dict[str, Level] = field(default_factory=dict)
