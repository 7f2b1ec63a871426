"""Interruption risk of offerings: a score with exponential decay. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesaform.autoscaler.model.notice import NoticeKind, Risk
from mesaform.aws.ports import Offering

HALF_LIFE_S = 3600.0
WEIGHT: Mapping[NoticeKind, float] = {"interruption": 1.0, "rebalance": 0.5, "scheduled": 0.0}
AVOID_AT = 0.4
"""Score from which an offering is avoided: for 79 minutes after one interruption."""


def score(risks: Mapping[str, Risk], key: str, now: float) -> float:
    """The present score of an offering."""
    risk = risks.get(key)
    return 0.0 if risk is None else risk.score * 0.5 ** (max(0.0, now - risk.at) / HALF_LIFE_S)


def counted(risks: Mapping[str, Risk], key: str, kind: NoticeKind, now: float) -> dict[str, Risk]:
    """The scores with one more notice, without those that have faded."""
    kept = {name: risk for name, risk in risks.items() if score(risks, name, now) >= AVOID_AT / 10}
    if WEIGHT[kind]:
        kept[key] = Risk(score(risks, key, now) + WEIGHT[kind], now)
    return kept


def calm(offerings: Iterable[Offering], risks: Mapping[str, Risk], now: float) -> list[Offering]:
    """The offerings without those to avoid; if none is left, those with the lowest score."""
    every = list(offerings)
    calm_offerings = [offering for offering in every if score(risks, offering.key, now) < AVOID_AT]
    if calm_offerings or not every:
        return calm_offerings
    least = min(score(risks, offering.key, now) for offering in every)
    return [offering for offering in every if score(risks, offering.key, now) <= least]
