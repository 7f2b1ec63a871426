"""Port to spot prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

TypeAndZone = tuple[str, str]


@dataclass(frozen=True, slots=True, order=True)
class Quote:
    """A spot price in USD per hour that is in force from `at` (epoch s)."""

    at: float
    instance_type: str
    zone: str
    usd_per_hour: float

    @property
    def type_and_zone(self) -> TypeAndZone:
        """What the quote is the price of."""
        return (self.instance_type, self.zone)


class SpotFeed(Protocol):
    """Spot prices of one region."""

    def quotes(self, types: Sequence[str], since: float) -> list[Quote]:
        """Return the prices of Linux machines that were in force at `since` or later, unordered.

        Raises:
            Retryable: throttled, a fault of the service, or no answer.

        """
        ...
