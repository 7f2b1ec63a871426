"""Prices without a network: the price book, and estimates for types that it does not have.

Prices from AWS (`market`) take precedence. The book is of us-east-1. Prices of other regions differ
by a factor that hardly changes which type is cheapest; `note` warns about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from mesaform.aws.ports import Capacity
from mesaform.aws.pricing.price_table import AS_OF, FAMILIES

REGION = "us-east-1"

SPOT_SHARE_ESTIMATE = 0.4
"""Spot price as a share of the on-demand price if no plausible quote is known.

AWS publishes shares from 0.1 to 0.6.
"""

PLAUSIBLE_SPOT_SHARE = (0.03, 1.5)
"""A quote outside of these shares of the on-demand price is ignored (moto answers 0.00001)."""

USD_PER_VCPU_HOUR = 0.0357
USD_PER_GIB_HOUR = 0.0034
"""Linear fit of c5, m5 and r5; within 10 % for general-purpose types that the book lacks."""

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
    """Return how many `xlarge` a size is in every family; None for `metal` and others."""
    if size in _BELOW_XLARGE:
        return _BELOW_XLARGE[size]
    number = size.removesuffix("xlarge")
    return float(number) if number != size and number.isdigit() else None


@lru_cache(maxsize=1)
def _book() -> dict[str, tuple[float, dict[str, float]]]:
    families: dict[str, tuple[float, dict[str, float]]] = {}
    for entry in FAMILIES.split(";"):
        if fields := entry.split():
            family, usd_per_xlarge, *exceptions = fields
            factors = dict(item.split("=") for item in exceptions)
            families[family] = (
                float(usd_per_xlarge),
                {size: float(factor) for size, factor in factors.items()},
            )
    return families


def usd_per_hour(instance_type: str, capacity: Capacity = "on-demand") -> float | None:
    """Return the book's price in USD per hour; spot is estimated from on-demand.

    None if the book does not have the type.
    """
    family, _, size = instance_type.partition(".")
    if family not in _book():
        return None
    base, exceptions = _book()[family]
    factor = exceptions.get(size, size_factor(size))
    if factor is None:
        return None
    return round(base * factor * (SPOT_SHARE_ESTIMATE if capacity == "spot" else 1), 6)


def estimate(vcpus: int, mem_mib: int) -> float:
    """Estimate the on-demand price of a type from its size."""
    return round(vcpus * USD_PER_VCPU_HOUR + mem_mib / 1024 * USD_PER_GIB_HOUR, 4)


def spot_price(on_demand: float, quoted: float | None) -> float:
    """Return the quote if it is plausible for the on-demand price, else an estimate."""
    low, high = PLAUSIBLE_SPOT_SHARE
    if quoted is not None and low * on_demand <= quoted <= high * on_demand:
        return quoted
    return round(on_demand * SPOT_SHARE_ESTIMATE, 6)


def nearest_type(name: str, among: Iterable[str] = ()) -> str | None:
    """Return the existing type with the most similar name, for messages."""
    known = tuple(among) or tuple(f"{family}.{size}" for family in _book() for size in COMMON_SIZES)
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.5)), None)


def note(region: str, types: Iterable[str]) -> str:
    """Return a warning if the book answers for another region than its own, else an empty text."""
    named = sorted(set(types))
    if region == REGION or not named:
        return ""
    return (
        f"no prices of {region} for {', '.join(named)}: {REGION}'s of {AS_OF} are used, "
        "which differ by up to a half"
    )
