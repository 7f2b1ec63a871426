"""Spot prices: the adapter of EC2's price history, and the price to plan with. See `SpotFeed`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from mesaform.aws import client
from mesaform.aws.ports import Quote
from mesaform.aws.ports.spot_feed import TypeAndZone
from mesaform.aws.rate_limiter import RateLimiter

WINDOW_S = 3600.0
"""For how long a past price counts in `smoothed_price`."""


class AwsSpotFeed:
    """See `SpotFeed`. Calls `DescribeSpotPriceHistory`."""

    def __init__(self, region: str, limiter: RateLimiter) -> None:
        self._ec2 = client.client("ec2", region)
        self._limiter = limiter

    def quotes(self, types: Sequence[str], since: float) -> list[Quote]:
        with self._limiter.limit("DescribeSpotPriceHistory"):
            pages = self._ec2.get_paginator("describe_spot_price_history").paginate(
                InstanceTypes=list(types),
                ProductDescriptions=["Linux/UNIX"],
                StartTime=datetime.fromtimestamp(since, UTC),
            )
            return [
                Quote(
                    item["Timestamp"].timestamp(),
                    item["InstanceType"],
                    item["AvailabilityZone"],
                    float(item["SpotPrice"]),
                )
                for page in pages
                for item in page["SpotPriceHistory"]
            ]


def merge_quotes(
    histories: Mapping[TypeAndZone, tuple[Quote, ...]], quotes: Iterable[Quote], now: float
) -> dict[TypeAndZone, tuple[Quote, ...]]:
    """Add quotes to histories. Quotes before the window are dropped, except the last of them.

    The last one is the price that was in force when the window began.
    """
    merged: dict[TypeAndZone, set[Quote]] = {
        type_and_zone: set(history) for type_and_zone, history in histories.items()
    }
    for quote in quotes:
        merged.setdefault(quote.type_and_zone, set()).add(quote)
    return {
        type_and_zone: trim_history(sorted(history), now - WINDOW_S)
        for type_and_zone, history in merged.items()
    }


def trim_history(quotes: Sequence[Quote], since: float) -> tuple[Quote, ...]:
    """Return the quotes from the one that is in force at `since`; `quotes` are oldest first."""
    in_force = [index for index, quote in enumerate(quotes) if quote.at <= since]
    return tuple(quotes[in_force[-1] if in_force else 0 :])


def smoothed_price(history: Sequence[Quote], now: float) -> float:
    """Return the price to plan with: the last quote, but at least the mean of the window.

    A rise counts at once, since capacity gets scarce. A fall counts as it lasts, so that a short
    fall does not cause launches and removals.
    """
    since = max(now - WINDOW_S, min(quote.at for quote in history))
    ends = [*(quote.at for quote in history[1:]), now]
    weighted = [
        (max(0.0, end - max(quote.at, since)), quote.usd_per_hour)
        for quote, end in zip(history, ends, strict=True)
    ]
    total_s = sum(seconds for seconds, _ in weighted)
    mean = sum(seconds * usd for seconds, usd in weighted) / total_s if total_s else 0.0
    return max(history[-1].usd_per_hour, mean)
