"""Lifetimes of ended tasks as values. `mesaform.autoscaler.forecasting.lifetimes` computes with them."""

from __future__ import annotations

from dataclasses import dataclass

LifetimeHistogram = tuple[float, ...]
"""How many tasks ran for less than 16 s, 32 s, 64 s, … and not less than the step before; the last step has no end."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that ended: after how long, when (epoch seconds), and on which agent (empty: that does not matter)."""

    name: str
    ran_s: float
    at: float
    agent_id: str = ""
