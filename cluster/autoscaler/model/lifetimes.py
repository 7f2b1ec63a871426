"""Lifetimes of ended tasks, as values. `mesaform.autoscaler.forecasting.lifetimes` uses them."""

from __future__ import annotations

from dataclasses import dataclass

LifetimeHistogram = tuple[float, ...]
"""Tasks by lifetime: below 16 s, below 32 s, below 64 s, and so on. The last step is open."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that ended at `at` (epoch seconds) after `ran_s`.

    An empty `agent_id` counts as an agent in service.
    """

    name: str
    ran_s: float
    at: float
    agent_id: str = ""
