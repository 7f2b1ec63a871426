"""What a type costs, offline: the price book, and estimates where it has no answer.

Prices that AWS states (`market`) go before these. The book is of us-east-1: in other regions prices differ by a factor that hardly
changes which type is cheapest, and `note` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from mesaform.aws.ports import Capacity
from mesaform.aws.pricing.price_table import AS_OF, FAMILIES

REGION = "us-east-1"

SPOT_SHARE_ESTIMATE = 0.4
"""Spot price as a part of the on-demand price where no believable one is known: a cautious middle of what AWS publishes (0.1 to 0.6)."""

BELIEVABLE_SPOT = (0.03, 1.5)
"""A spot price outside this share of the on-demand price is taken for a mistake (local clouds answer 0.00001)."""

USD_PER_VCPU_HOUR = 0.0357
USD_PER_GIB_HOUR = 0.0034
"""A straight line through c5, m5 and r5: within a tenth for general-purpose types that the book does not know."""

COMMON_SIZES = (
    "nano",
    "micro",
    "small",
    "medium",
    "large",
    "xlarge",
    *(f"{n}xlarge" for n in (2, 3, 4, 6, 8, 9, 10, 12, 16, 18, 24, 32, 48)),
)
_BELOW_XLARGE = {
    "nano": 1 / 32,
    "micro": 1 / 16,
    "small": 1 / 8,
    "medium": 1 / 4,
    "large": 1 / 2,
    "xlarge": 1.0,
}


def size_factor(size: str) -> float | None:
    """How many xlarge a size is in every family without exceptions; None for sizes such as `metal` that have no common factor."""
    if size in _BELOW_XLARGE:
        return _BELOW_XLARGE[size]
    number = size.removesuffix("xlarge")
    return float(number) if number != size and number.isdigit() else None


@lru_cache(maxsize=1)
def _book() -> dict[str, tuple[float, dict[str, float]]]:
    families = {}
    for entry in FAMILIES.replace("\n", ";").split(";"):
        if words := entry.split():
            exceptions = dict(word.split("=") for word in words[2:])
            families[words[0]] = (
                float(words[1]),
                {size: float(factor) for size, factor in exceptions.items()},
            )
    return families


def usd_per_hour(instance_type: str, capacity: Capacity = "on-demand") -> float | None:
    """The price by the book, in USD an hour; spot is estimated from on-demand. None when the book does not know the type."""
    family, _, size = instance_type.partition(".")
    if family not in _book():
        return None
    base, exceptions = _book()[family]
    factor = exceptions.get(size, size_factor(size))
    if factor is None:
        return None
    return round(base * factor * (SPOT_SHARE_ESTIMATE if capacity == "spot" else 1), 6)


def estimate(vcpus: int, mem_mib: int) -> float:
    """An on-demand price for a type the book does not know, from its size."""
    return round(vcpus * USD_PER_VCPU_HOUR + mem_mib / 1024 * USD_PER_GIB_HOUR, 4)


def spot_price(on_demand: float, quoted: float | None) -> float:
    """`quoted` when it is believable beside the on-demand price, else the estimate."""
    low, high = BELIEVABLE_SPOT
    if quoted is not None and low * on_demand <= quoted <= high * on_demand:
        return quoted
    return round(on_demand * SPOT_SHARE_ESTIMATE, 6)


def nearest_type(name: str, among: Iterable[str] = ()) -> str | None:
    """The existing type whose name is most like `name`, for messages."""
    known = tuple(among) or tuple(f"{family}.{size}" for family in _book() for size in COMMON_SIZES)
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.5)), None)


def note(region: str, types: Iterable[str]) -> str:
    """What to say where the book answers for a region that it is not of; empty where it is right."""
    named = sorted(set(types))
    if region == REGION or not named:
        return ""
    return f"no prices of {region} for {', '.join(named)}: {REGION}'s of {AS_OF} are used, which differ by up to a half"
