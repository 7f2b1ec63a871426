"""Current prices of machines, kept in memory.

List prices and spot quotes are refreshed in a thread of their own and never during a pass of the
autoscaler. The price book answers where AWS has not. The list prices are also kept in a cache that
outlives the process and serves every leader; an old price is better than none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import structlog

from mesaform.aws.ports import PriceCache, PriceList, Quote, SpotFeed
from mesaform.aws.ports.spot_feed import TypeAndZone
from mesaform.aws.pricing import spot
from mesaform.aws.pricing.price_cache import S3PriceCache
from mesaform.aws.pricing.price_list import AwsPriceList
from mesaform.aws.pricing.prices import Prices
from mesaform.aws.pricing.rates import BOOK, Rates
from mesaform.aws.pricing.spot import AwsSpotFeed
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.backoff import Backoff, Delay
from mesaform.common.errors import CloudError

LIST_PRICE_MAX_AGE_S = 12 * 3600.0
"""Age at which a list price is read again; AWS changes them a few times a year."""

TYPES_PER_REFRESH = 25
"""List prices per refresh, with one call each. A failure loses the prices of one refresh."""

SPOT_REFRESH_S = 300.0
"""Time between two readings of the spot prices, which change over hours."""

RETRY = Backoff(first_s=300.0, cap_s=3600.0)
"""Delay before AWS is asked again after failures."""

log = structlog.get_logger(__name__)


class CachedPrices(msgspec.Struct, frozen=True):
    """The cached list prices: USD per hour by type, and when AWS stated each (epoch s).

    `rates` are None until AWS stated them, at `rates_at`.
    """

    region: str
    usd_per_hour: dict[str, float] = {}
    at: dict[str, float] = {}
    rates: Rates | None = None
    rates_at: float = 0.0

    def as_prices(self) -> Prices:
        """The list prices as a value, without spot prices."""
        has_rates = self.rates is not None
        return Prices(self.region, self.usd_per_hour, rates=self.rates or BOOK, has_rates=has_rates)


def decode_prices(data: bytes | None, region: str) -> CachedPrices:
    """Decode a cached document; empty if it is missing or of another region.

    Raises:
        msgspec.DecodeError: it cannot be read.

    """
    prices = msgspec.json.decode(data, type=CachedPrices) if data else None
    return prices if prices is not None and prices.region == region else CachedPrices(region)


@dataclass(slots=True)
class _Schedule:
    """When one source of prices is read next."""

    next_at: float = 0.0
    delay: Delay = field(default_factory=Delay)

    def is_due(self, now: float) -> bool:
        return now >= max(self.next_at, self.delay.until)


class Market:
    """Prices of one region. Queries answer from memory; `refresh` reads, in its caller's thread.

    Args:
        region: the region.
        price_list: the source of list prices; None uses only the cache.
        feed: the source of spot prices; None gives no spot prices.
        cache: where list prices are kept.
        clock: seconds since the epoch.

    Attributes:
        revision: changes with every change of a price.

    """

    def __init__(
        self,
        region: str,
        price_list: PriceList | None,
        feed: SpotFeed | None,
        cache: PriceCache,
        clock: Callable[[], float],
    ) -> None:
        self.region = region
        self.revision = 0
        self._price_list = price_list
        self._feed = feed
        self._cache = cache
        self._clock = clock
        self._prices: CachedPrices | None = None
        self._snapshot: tuple[int, Prices] | None = None
        self._histories: Mapping[TypeAndZone, tuple[Quote, ...]] = {}
        self._spot_types: frozenset[str] = frozenset()
        self._list_schedule = _Schedule()
        self._spot_schedule = _Schedule()
        self._refresh_lock = threading.Lock()

    def prices(self) -> Prices:
        """All prices at this moment; the same object until one is read again."""
        now = self._clock()
        if self._snapshot is None or self._snapshot[0] != self.revision:
            quoted = {
                key: spot.smoothed_price(history, now)
                for key, history in dict(self._histories).items()
                if history
            }
            listed = self.cached.as_prices()
            self._snapshot = self.revision, replace(listed, quoted=quoted)
        return self._snapshot[1]

    @property
    def cached(self) -> CachedPrices:
        """The list prices as they are cached."""
        return self._prices or CachedPrices(self.region)

    def on_demand(self, instance_type: str) -> float | None:
        """USD per hour by AWS's list, else by the price book; None if neither has the type."""
        return self.cached.as_prices().on_demand(instance_type)

    def spot(self, instance_type: str, zone: str) -> float | None:
        """USD per hour to plan with (`spot.smoothed_price`); None if EC2 has no quote."""
        history = self._histories.get((instance_type, zone))
        return spot.smoothed_price(history, self._clock()) if history else None

    def note(self, types: Sequence[str]) -> str:
        """Return a warning about estimated prices of these types; empty if there are none."""
        return self.cached.as_prices().note(types)

    def refresh(self, types: Sequence[str]) -> None:
        """Read the prices that are due. Failures are logged and never raised.

        While one thread refreshes, calls of others return at once.
        """
        if not types or not self._refresh_lock.acquire(blocking=False):
            return
        try:
            if self._prices is None:
                self._prices = self._read_cache()
                self.revision += 1
            self._attempt(self._list_schedule, "list", lambda: self._refresh_list(types))
            is_failing = self._spot_schedule.delay.failures > 0
            if not is_failing and not frozenset(types) <= self._spot_types:
                self._spot_schedule.next_at = 0.0
            self._attempt(self._spot_schedule, "spot", lambda: self._refresh_spot(types))
        finally:
            self._refresh_lock.release()

    def _attempt(self, schedule: _Schedule, source: str, read: Callable[[], float]) -> None:
        """Call `read`, which returns the time of the next reading, if it is due."""
        now = self._clock()
        if not schedule.is_due(now):
            return
        try:
            schedule.next_at = read()
        except CloudError as error:
            schedule.delay = schedule.delay.after_failure(RETRY, self._clock())
            log.warning(
                "prices cannot be read; the last known ones stay in use",
                prices=source,
                error=str(error),
                again_s=schedule.delay.remaining_s(self._clock()),
            )
        else:
            schedule.delay = schedule.delay.after_success()

    def _refresh_list(self, types: Sequence[str]) -> float:
        if self._price_list is None:
            return 0.0
        before = self.cached
        prices = self._with_rates(self._price_list, before)
        prices = self._with_listed(self._price_list, prices, types)
        if prices is before:
            return 0.0
        self._prices = prices
        self.revision += 1
        try:
            self._cache.write(msgspec.json.encode(self._prices))
        except CloudError as error:
            log.warning("the list prices cannot be cached", error=str(error))
        return 0.0

    def _with_listed(
        self, price_list: PriceList, prices: CachedPrices, types: Sequence[str]
    ) -> CachedPrices:
        """The cached prices with those of types that are due."""
        now = self._clock()
        due = [
            name
            for name in types
            if now - prices.at.get(name, -LIST_PRICE_MAX_AGE_S) >= LIST_PRICE_MAX_AGE_S
        ][:TYPES_PER_REFRESH]
        if not due:
            return prices
        return msgspec.structs.replace(
            prices,
            usd_per_hour={**prices.usd_per_hour, **price_list.usd_per_hour(due)},
            at={**prices.at, **dict.fromkeys(due, now)},
        )

    def _with_rates(self, price_list: PriceList, prices: CachedPrices) -> CachedPrices:
        """The cached prices with the region's rates, read again when they are old."""
        now = self._clock()
        if prices.rates is not None and now - prices.rates_at < LIST_PRICE_MAX_AGE_S:
            return prices
        return msgspec.structs.replace(prices, rates=price_list.rates(), rates_at=now)

    def _refresh_spot(self, types: Sequence[str]) -> float:
        now = self._clock()
        if self._feed is not None:
            quotes = self._feed.quotes(types, now - spot.WINDOW_S)
            self._histories = spot.merge_quotes(self._histories, quotes, now)
            self._spot_types = frozenset(types)
            self.revision += 1
        return now + SPOT_REFRESH_S

    def _read_cache(self) -> CachedPrices | None:
        """Read the cache; None if that failed, so that the next refresh reads it again."""
        try:
            return decode_prices(self._cache.read(), self.region)
        except (CloudError, msgspec.DecodeError) as error:
            log.warning("the cached list prices cannot be read", error=str(error))
            return None


def aws_market(
    region: str,
    bucket: str,
    cluster: str,
    limiter: RateLimiter,
    clock: Callable[[], float],
    *,
    reads_list: bool,
) -> Market:
    """Return the prices of a cluster.

    With `reads_list` list prices are read from AWS and cached for all; otherwise only the cache is
    used.
    """
    price_list = AwsPriceList(region) if reads_list else None
    feed, cache = AwsSpotFeed(region, limiter), S3PriceCache(bucket, cluster, region)
    return Market(region, price_list, feed, cache, clock)
