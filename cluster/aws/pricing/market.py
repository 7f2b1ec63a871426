"""What machines cost now: the price list and the spot quotes, kept in memory and refreshed beside the passes, never in one.

Where AWS has not answered yet, or not at all, the price book and its estimates answer (`prices`). The price list is also kept in a cache
that outlives the process and serves every leader; a stale one is better than none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.aws.pricing import price_book, spot
from mesaform.aws.pricing.price_list import AwsPriceList, PriceList
from mesaform.aws.pricing.spot import AwsSpotFeed, Place, Quote, SpotFeed
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.errors import CloudError, NotFound

LIST_KEPT_S = 12 * 3600.0
"""How old a list price may be before AWS is asked again; it changes a few times a year."""

LISTED_AT_ONCE = 25
"""Types asked for in one refresh, a call each: a long list comes in parts, and a failure in the middle loses one part."""

SPOT_EVERY_S = 300.0
"""How often EC2 is asked for spot prices; they move over hours."""

AGAIN_S = 300.0
AGAIN_MOST_S = 3600.0
"""How long after a failure AWS is asked again: twice as long after each one in a row."""

log = structlog.get_logger(__name__)


class Cache(Protocol):
    """One document that outlives the process."""

    def read(self) -> bytes | None:
        """The document, None if there is none. Raises CloudError when that cannot be found out."""
        ...

    def write(self, data: bytes) -> None:
        """Put a document in its place. Raises CloudError."""
        ...


class MemoryCache:
    """See `Cache`: outlives nothing. For tests, and where nothing is to be kept."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data

    def read(self) -> bytes | None:
        return self.data

    def write(self, data: bytes) -> None:
        self.data = data


class S3Cache:
    """See `Cache`: an object beside the cluster's ledger."""

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._s3 = client.client("s3", region)
        self._place = {"Bucket": bucket, "Key": f"{cluster}/catalogue/prices.json"}

    def read(self) -> bytes | None:
        try:
            with translate_errors(f"s3://{self._place['Bucket']}/{self._place['Key']}"):
                return bytes(self._s3.get_object(**self._place)["Body"].read())
        except NotFound:
            return None

    def write(self, data: bytes) -> None:
        with translate_errors(f"s3://{self._place['Bucket']}/{self._place['Key']}"):
            self._s3.put_object(**self._place, Body=data, ContentType="application/json")


class Kept(msgspec.Struct, frozen=True):
    """The price list as cached: USD an hour by type, and when AWS said so (seconds since the epoch)."""

    region: str
    usd_per_hour: dict[str, float] = {}
    at: dict[str, float] = {}


class Market:
    """Prices of one region. Reading answers from memory and never waits; `refresh` does the asking, in whatever thread calls it.

    Args:
        region: the region.
        price_list: where list prices come from; None asks nobody and uses what the cache has.
        feed: where spot prices come from.
        cache: where the price list is kept.
        clock: seconds since the epoch.

    """

    def __init__(
        self,
        region: str,
        price_list: PriceList | None,
        feed: SpotFeed | None,
        cache: Cache,
        clock: Callable[[], float],
    ) -> None:
        self.region = region
        self._price_list = price_list
        self._feed = feed
        self._cache = cache
        self._clock = clock
        self._kept: Kept | None = None
        self._histories: Mapping[Place, tuple[Quote, ...]] = {}
        self._spot_types: frozenset[str] = frozenset()
        self._due = {"list": 0.0, "spot": 0.0}
        self._failures = {"list": 0, "spot": 0}
        self._refreshing = threading.Lock()
        self.revision = 0

    def on_demand(self, instance_type: str) -> float | None:
        """USD an hour by AWS' list, else by the price book; None for a type that neither knows."""
        listed = self._kept.usd_per_hour.get(instance_type) if self._kept else None
        return price_book.usd_per_hour(instance_type) if listed is None else listed

    def spot(self, instance_type: str, zone: str) -> float | None:
        """USD an hour to plan with, None where EC2 has quoted nothing. See `spot.settled`."""
        history = self._histories.get((instance_type, zone))
        return spot.settled(history, self._clock()) if history else None

    def note(self, types: Sequence[str]) -> str:
        """What people should know of these types' prices; empty when there is nothing to say."""
        listed = self._kept.usd_per_hour if self._kept else {}
        return price_book.note(self.region, [name for name in types if name not in listed])

    def refresh(self, types: Sequence[str]) -> None:
        """Ask for what is due. One call at a time does the asking, others return at once. Failures are logged, never raised."""
        if not types or not self._refreshing.acquire(blocking=False):
            return
        try:
            if self._kept is None:
                self._kept = self._read()
                self.revision += 1
            self._attempt("list", lambda: self._refresh_list(types))
            if not self._failures["spot"] and not frozenset(types) <= self._spot_types:
                self._due["spot"] = 0.0
            self._attempt("spot", lambda: self._refresh_spot(types))
        finally:
            self._refreshing.release()

    def _attempt(self, what: str, ask: Callable[[], float]) -> None:
        """Run `ask`, which says when it is due again, if it is due; after a failure try again later, each time twice as late."""
        if self._clock() < self._due[what]:
            return
        try:
            self._due[what], self._failures[what] = ask(), 0
        except CloudError as error:
            wait = min(AGAIN_MOST_S, AGAIN_S * 2.0 ** self._failures[what])
            self._due[what], self._failures[what] = self._clock() + wait, self._failures[what] + 1
            log.warning(
                "prices are not to be had; the last ones known stay in use",
                prices=what,
                error=str(error),
                again_s=wait,
            )

    def _refresh_list(self, types: Sequence[str]) -> float:
        kept, now = self._kept or Kept(self.region), self._clock()
        old = [name for name in types if now - kept.at.get(name, -LIST_KEPT_S) >= LIST_KEPT_S]
        if self._price_list is None or not old:
            return 0.0
        old = old[:LISTED_AT_ONCE]
        found = self._price_list.usd_per_hour(old)
        self._kept = Kept(
            self.region, {**kept.usd_per_hour, **found}, {**kept.at, **dict.fromkeys(old, now)}
        )
        self.revision += 1
        try:
            self._cache.write(msgspec.json.encode(self._kept))
        except CloudError as error:
            log.warning("the price list could not be kept", error=str(error))
        return 0.0

    def _refresh_spot(self, types: Sequence[str]) -> float:
        now = self._clock()
        if self._feed is not None:
            news = self._feed.quotes(types, now - spot.WINDOW_S)
            self._histories = spot.merged(self._histories, news, now)
            self._spot_types = frozenset(types)
            self.revision += 1
        return now + SPOT_EVERY_S

    def _read(self) -> Kept | None:
        try:
            data = self._cache.read()
            found = msgspec.json.decode(data, type=Kept) if data else None
        except (CloudError, msgspec.DecodeError) as error:
            log.warning("the kept price list cannot be read", error=str(error))
            return None
        return found if found is not None and found.region == self.region else Kept(self.region)


def aws_market(
    region: str,
    bucket: str,
    cluster: str,
    pacer: RateLimiter,
    clock: Callable[[], float],
    *,
    asks: bool,
) -> Market:
    """The prices of a cluster. Who `asks` AWS for list prices keeps them for all; others only read what is kept."""
    price_list = AwsPriceList(region) if asks else None
    return Market(
        region, price_list, AwsSpotFeed(region, pacer), S3Cache(bucket, cluster, region), clock
    )
