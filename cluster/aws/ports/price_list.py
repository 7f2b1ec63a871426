"""Ports to on-demand prices and to the cache that keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mesaform.aws.pricing.rates import Rates


class PriceList(Protocol):
    """On-demand prices of one region."""

    def rates(self) -> Rates:
        """Return the prices of disks, addresses, requests, traffic and gateways.

        What the list does not name has the price of us-east-1. Never stale.

        Raises:
            Retryable: throttled, a fault of the service, or no answer.
            Permanent: a right is missing, or the region has no such service.

        """
        ...

    def usd_per_hour(self, types: Sequence[str]) -> dict[str, float]:
        """Return the prices of Linux machines in USD per hour.

        A type that is not sold in the region, or not in dollars, is absent. Never stale.

        Raises:
            Retryable: throttled, a fault of the service, or no answer.
            Permanent: a right is missing, or the region has no such service.

        """
        ...


class PriceCache(Protocol):
    """One document that outlives the process."""

    def read(self) -> bytes | None:
        """Return the document written last, or None.

        Raises:
            CloudError: no answer, or a right is missing.

        """
        ...

    def write(self, data: bytes) -> None:
        """Replace the document. Idempotent.

        Raises:
            CloudError: no answer, or a right is missing.

        """
        ...
