"""The prices of one region at one moment, as a value. Pure.

`market` makes it. The price book answers for types that AWS's list does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesaform.aws.ports import Capacity
from mesaform.aws.ports.spot_feed import TypeAndZone
from mesaform.aws.pricing import price_book
from mesaform.aws.pricing.rates import BOOK, Rates


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a region.

    `listed` are AWS's on-demand prices in USD per hour by type, `quoted` spot prices to plan with.
    `rates` are of the region if `has_rates`, else those of the book.
    """

    region: str = price_book.REGION
    listed: Mapping[str, float] = field(default_factory=dict)
    quoted: Mapping[TypeAndZone, float] = field(default_factory=dict)
    rates: Rates = BOOK
    has_rates: bool = False

    def on_demand(self, instance_type: str) -> float | None:
        """USD per hour by AWS's list, else by the price book; None if neither has the type."""
        listed = self.listed.get(instance_type)
        return price_book.usd_per_hour(instance_type) if listed is None else listed

    def instance(self, instance_type: str, zone: str, capacity: Capacity) -> float | None:
        """USD per hour of an instance alone; None if no price is known."""
        on_demand = self.on_demand(instance_type)
        if on_demand is None or capacity == "on-demand":
            return on_demand
        return price_book.spot_price(on_demand, self.quoted.get((instance_type, zone)))

    def note(self, types: Iterable[str]) -> str:
        """Return a warning about prices of another region; empty if there are none."""
        names = [name for name in types if name not in self.listed]
        if not names and not self.has_rates:
            names = ["disks, addresses and requests"]
        return price_book.note(self.region, names)


BOOK_PRICES = Prices()
"""The prices of the book, for us-east-1."""
