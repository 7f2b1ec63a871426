"""Recorded usage of past weeks as values. `mesaform.autoscaler.forecasting.weekly_profile` computes with them."""

from __future__ import annotations

from dataclasses import dataclass, field

Level = tuple[int, int, int]
"""cpus and memory (MiB) in thousandths, and tasks."""


@dataclass(frozen=True, slots=True)
class Week:
    """What ran in one week, by slot. `number` counts weeks since the epoch."""

    number: int
    levels: dict[int, Level] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of past weeks, by pool, oldest first, and the slot under way with the most that ran in it so far."""

    pools: dict[str, tuple[Week, ...]] = field(default_factory=dict)
    slot: int = -1  # slots since the epoch's first Monday
    since: float = 0.0
    until: float = 0.0
    most: dict[str, Level] = field(default_factory=dict)
