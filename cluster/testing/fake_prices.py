"""Fakes of the ports `PriceList` and `SpotFeed`. No threads, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mesaform.aws.ports import Quote
from mesaform.aws.pricing.rates import BOOK, Rates
from mesaform.common.errors import CloudError


class FakePriceList:
    """See `PriceList`.

    Attributes:
        prices: USD per hour by type; other types are not sold.
        region_rates: the prices of disks, addresses and the like.
        fail_next: an error that the next call raises, once.
        calls: the types of each call.

    """

    def __init__(self, prices: Mapping[str, float], region_rates: Rates = BOOK) -> None:
        self.prices = dict(prices)
        self.region_rates = region_rates
        self.fail_next: CloudError | None = None
        self.calls: list[tuple[str, ...]] = []

    def usd_per_hour(self, types: Sequence[str]) -> dict[str, float]:
        self.calls.append(tuple(types))
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        return {name: self.prices[name] for name in types if name in self.prices}

    def rates(self) -> Rates:
        return self.region_rates


class FakeSpotFeed:
    """See `SpotFeed`.

    Attributes:
        history: all quotes, in any order.
        fail_next: an error that the next call raises, once.
        calls: `since` of each call.

    """

    def __init__(self, history: Iterable[Quote] = ()) -> None:
        self.history = list(history)
        self.fail_next: CloudError | None = None
        self.calls: list[float] = []

    def quotes(self, types: Sequence[str], since: float) -> list[Quote]:
        self.calls.append(since)
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        quotes = sorted(quote for quote in self.history if quote.instance_type in types)
        in_force = {quote.type_and_zone: quote for quote in quotes if quote.at <= since}
        return [*in_force.values(), *(quote for quote in quotes if quote.at > since)]
