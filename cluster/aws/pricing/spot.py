"""Spot prices: what EC2 quotes (`DescribeSpotPriceHistory`), behind a port, with its fake; and what is made of a history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from mesaform.aws import client
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.errors import CloudError

WINDOW_S = 3600.0
"""How long a price that is over is still felt."""

Place = tuple[str, str]
"""Type and zone."""


@dataclass(frozen=True, slots=True, order=True)
class Quote:
    """A spot price in USD an hour from `at` (seconds since the epoch) on."""

    at: float
    instance_type: str
    zone: str
    usd_per_hour: float

    @property
    def place(self) -> Place:
        return (self.instance_type, self.zone)


class SpotFeed(Protocol):
    """Spot prices of one region."""

    def quotes(self, types: Sequence[str], since: float) -> list[Quote]:
        """Prices of Linux machines that were in force at `since` or after it, in any order.

        Raises:
            Retryable: throttled, a server's fault or no answer.

        """
        ...


class AwsSpotFeed:
    """See `SpotFeed`."""

    def __init__(self, region: str, pacer: RateLimiter) -> None:
        self._ec2 = client.client("ec2", region)
        self._pacer = pacer

    def quotes(self, types: Sequence[str], since: float) -> list[Quote]:
        with self._pacer.pacing("DescribeSpotPriceHistory"):
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


class FakeSpotFeed:
    """See `SpotFeed`: answers from `history`. `fail_next` is raised by the next call, once; `asked` are all calls' `since`."""

    def __init__(self, history: Iterable[Quote] = ()) -> None:
        self.history = list(history)
        self.fail_next: CloudError | None = None
        self.asked: list[float] = []

    def quotes(self, types: Sequence[str], since: float) -> list[Quote]:
        self.asked.append(since)
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        found = sorted(quote for quote in self.history if quote.instance_type in types)
        before = {quote.place: quote for quote in found if quote.at <= since}
        return [*before.values(), *(quote for quote in found if quote.at > since)]


def merged(
    histories: Mapping[Place, tuple[Quote, ...]], news: Iterable[Quote], now: float
) -> dict[Place, tuple[Quote, ...]]:
    """Histories with new quotes added; of what is older than the window only the price that was in force when it began is kept."""
    found: dict[Place, set[Quote]] = {place: set(quotes) for place, quotes in histories.items()}
    for quote in news:
        found.setdefault(quote.place, set()).add(quote)
    return {place: _trimmed(sorted(quotes), now - WINDOW_S) for place, quotes in found.items()}


def _trimmed(quotes: Sequence[Quote], since: float) -> tuple[Quote, ...]:
    first = next(
        (index for index in range(len(quotes) - 1, -1, -1) if quotes[index].at <= since), 0
    )
    return tuple(quotes[first:])


def settled(history: Sequence[Quote], now: float) -> float:
    """What to plan with: the price now, but no less than the last hour's mean.

    A rise counts at once (capacity is getting scarce); a fall is believed as it lasts, so that a spike does not make machines come and go.
    """
    since = max(now - WINDOW_S, min(quote.at for quote in history))
    ends = [*(quote.at for quote in history[1:]), now]
    felt = [
        (max(0.0, end - max(quote.at, since)), quote.usd_per_hour)
        for quote, end in zip(history, ends, strict=True)
    ]
    total_s = sum(seconds for seconds, _ in felt)
    mean = sum(seconds * usd for seconds, usd in felt) / total_s if total_s else 0.0
    return max(history[-1].usd_per_hour, mean)
