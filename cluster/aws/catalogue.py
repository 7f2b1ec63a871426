"""Offerings of a region: sizes and zones of instance types, with prices of `pricing.market`.

Sizes and zones are read once an hour. While EC2 does not answer the last ones stay in use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from mesaform.aws import boot_support
from mesaform.aws.boot_support import CAPACITIES
from mesaform.aws.ports import Capacity, Offering
from mesaform.aws.pricing import price_book
from mesaform.aws.pricing.market import Market
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.errors import CloudError, NotFound
from mesaform.topology.capacity import agent_resources

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeInfoTypeDef

MAX_AGE_S = 3600.0
RETRY_S = 60.0
FILTER_VALUES = 200
"""Values that EC2 accepts in one filter."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Size:
    """Size of a type, the capacity types it is sold in, and why it boots no image, if it does not.

    `unbootable` is empty for a type that boots one. GPUs are left out: images have no driver, so
    nodes advertise none.
    """

    vcpus: int
    mem_mib: int
    capacities: tuple[Capacity, ...] = CAPACITIES
    unbootable: str = ""


@dataclass(frozen=True, slots=True)
class _Types:
    """Sizes of types, the (type, zone) pairs that are sold, and when they are read again."""

    sizes: Mapping[str, _Size]
    places: frozenset[tuple[str, str]]
    read_at: float
    stale_at: float


@dataclass(frozen=True, slots=True)
class _Query:
    types: tuple[str, ...]
    zones: tuple[str, ...]
    disk_gib: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """Offerings, and the revisions of prices and types from which they were made."""

    revisions: tuple[int, float]
    offerings: list[Offering]


def chunks(names: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the names in lists of at most `size`."""
    remaining = list(names)
    while remaining:
        yield remaining[:size]
        remaining = remaining[size:]


class Catalogue:
    """The offerings of one region.

    Args:
        region: the region, for messages.
        ec2: the client of EC2 in the region.
        limiter: the request limits.
        market: the prices.
        clock: seconds with any origin.

    """

    def __init__(
        self,
        region: str,
        ec2: EC2Client,
        limiter: RateLimiter,
        market: Market,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._region = region
        self._ec2 = ec2
        self._limiter = limiter
        self._market = market
        self._types: dict[tuple[str, ...], _Types] = {}
        self._answers: dict[_Query, _Answer] = {}

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int
    ) -> list[Offering]:
        """See `Fleet.offerings`. Returns the same list object until something changes."""
        query = _Query(tuple(types), tuple(zones), disk_gib)
        known = self._read(query.types)
        revisions = (self._market.revision, known.read_at)
        answer = self._answers.get(query)
        if answer is None or answer.revisions != revisions:
            answer = _Answer(revisions, list(self._priced(query, known)))
            self._answers[query] = answer
        return answer.offerings

    def _priced(self, query: _Query, known: _Types) -> Iterator[Offering]:
        for name in query.types:
            size = known.sizes[name]
            for zone in query.zones if not size.unbootable else ():
                if (name, zone) in known.places:
                    yield from self._of_capacities(name, zone, size, query.disk_gib)

    def _of_capacities(
        self, name: str, zone: str, size: _Size, disk_gib: int
    ) -> Iterator[Offering]:
        on_demand = self._market.on_demand(name) or price_book.estimate(size.vcpus, size.mem_mib)
        prices: dict[Capacity, float] = {
            "on-demand": on_demand,
            "spot": price_book.spot_price(on_demand, self._market.spot(name, zone)),
        }
        resources = agent_resources(size.vcpus, size.mem_mib, disk_gib)
        for capacity in size.capacities:
            yield Offering(name, zone, capacity, prices[capacity], resources)

    def _read(self, types: tuple[str, ...]) -> _Types:
        known = self._types.get(types)
        now = self._clock()
        if known is not None and now <= known.stale_at:
            return known
        try:
            known = _Types(self._sizes(types), self._places(types), now, now + MAX_AGE_S)
        except NotFound:
            raise
        except CloudError as error:
            if known is None:
                raise
            log.warning(
                "instance types cannot be read; the last known ones stay in use", error=str(error)
            )
            known = replace(known, stale_at=now + RETRY_S)
        self._types[types] = known
        return known

    def _places(self, types: Sequence[str]) -> frozenset[tuple[str, str]]:
        places: set[tuple[str, str]] = set()
        paginator = self._ec2.get_paginator("describe_instance_type_offerings")
        for names in chunks(types, FILTER_VALUES):
            with self._limiter.limit("DescribeInstanceTypeOfferings"):
                pages = paginator.paginate(
                    LocationType="availability-zone", Filters=_type_filter(names)
                )
                places.update(
                    (item["InstanceType"], item["Location"])
                    for page in pages
                    for item in page["InstanceTypeOfferings"]
                )
        return frozenset(places)

    def _sizes(self, types: Sequence[str]) -> dict[str, _Size]:
        sizes: dict[str, _Size] = {}
        paginator = self._ec2.get_paginator("describe_instance_types")
        for names in chunks(types, FILTER_VALUES):
            with contextlib.suppress(NotFound), self._limiter.limit("DescribeInstanceTypes"):
                pages = paginator.paginate(Filters=_type_filter(names))
                sizes.update(
                    (item["InstanceType"], _size(item))
                    for page in pages
                    for item in page["InstanceTypes"]
                )
        if missing := [name for name in types if name not in sizes]:
            raise self._unknown_types(missing)
        _log_unbootable(sizes)
        return sizes

    def _unknown_types(self, names: Sequence[str]) -> NotFound:
        nearest = price_book.nearest_type(names[0])
        fix = "take one of another generation, or another region"
        if nearest and nearest != names[0]:
            fix = f"did you mean {nearest}?"
        return NotFound(
            f"{self._region} has no instance type {', '.join(names)}",
            where="the pool's types",
            fix=fix,
        )


def _log_unbootable(sizes: Mapping[str, _Size]) -> None:
    unbootable = {name: size.unbootable for name, size in sizes.items() if size.unbootable}
    if unbootable:
        log.warning("instance types that boot no image are not offered", types=unbootable)


def _type_filter(names: list[str]) -> list[FilterTypeDef]:
    return [{"Name": "instance-type", "Values": names}]


def _size(item: InstanceTypeInfoTypeDef) -> _Size:
    return _Size(
        item["VCpuInfo"]["DefaultVCpus"],
        item["MemoryInfo"]["SizeInMiB"],
        boot_support.sold_capacities(item),
        boot_support.unbootable_reason(item),
    )
