"""What EC2 sells of the named types, what the engine will see of each, and the launch templates' versions: read, kept, priced.

Sizes and zones hardly ever change: they are read once an hour, and what was read stays in use while EC2 does not answer.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from mesaform.aws.ports import Capacity, Offering, Template
from mesaform.aws.pricing import price_book
from mesaform.aws.pricing.market import Market
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.errors import CloudError, NotFound
from mesaform.topology.capacity import agent_resources
from mesaform.topology.names import Tag

CATALOGUE_KEPT_S = 3600.0
AGAIN_S = 60.0
TEMPLATES_KEPT_S = 60.0
FILTER_VALUES = 200
"""How many values EC2 takes in one filter."""

NOT_COMPARED = frozenset({"TagSpecifications"})
"""Parts of a launch template in which versions may differ and still give the same machines."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Size:
    vcpus: int
    mem_mib: int
    gpus: int


@dataclass(slots=True)
class _Sold:
    """What is for sale of some types: sizes, and in which zones. `read_at` is when, by the catalogue's clock."""

    sizes: Mapping[str, _Size]
    places: frozenset[tuple[str, str]]
    read_at: float


def chunks(names: Iterable[str], size: int) -> Iterator[list[str]]:
    """The names, `size` at a time."""
    left = list(names)
    while left:
        yield left[:size]
        left = left[size:]


class Catalogue:
    """Offerings of one region."""

    def __init__(
        self, region: str, ec2: Any, pacer: RateLimiter, market: Market, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._region = region
        self._ec2 = ec2
        self._pacer = pacer
        self._market = market
        self._sold: dict[tuple[str, ...], _Sold] = {}
        self._made: dict[
            tuple[tuple[str, ...], tuple[str, ...], int], tuple[tuple[int, float], list[Offering]]
        ] = {}

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int
    ) -> list[Offering]:
        """See `Fleet.offerings`. The same list as before while nothing changed."""
        sold = self._read(tuple(types))
        key, state = (tuple(types), tuple(zones), disk_gib), (self._market.revision, sold.read_at)
        made = self._made.get(key)
        if made is None or made[0] != state:
            found = [offering for name in types for zone in zones if (name, zone) in sold.places
                     for offering in self._both(name, zone, sold.sizes[name], disk_gib)]  # fmt: skip
            made = self._made[key] = (state, found)
        return made[1]

    def _both(self, name: str, zone: str, size: _Size, disk_gib: int) -> list[Offering]:
        on_demand = self._market.on_demand(name) or price_book.estimate(size.vcpus, size.mem_mib)
        resources = agent_resources(size.vcpus, size.mem_mib, disk_gib, size.gpus)
        costs: dict[Capacity, float] = {
            "on-demand": on_demand,
            "spot": price_book.spot_price(on_demand, self._market.spot(name, zone)),
        }
        return [Offering(name, zone, capacity, usd, resources) for capacity, usd in costs.items()]

    def _read(self, types: tuple[str, ...]) -> _Sold:
        kept = self._sold.get(types)
        if kept is not None and self._clock() - kept.read_at <= CATALOGUE_KEPT_S:
            return kept
        try:
            fresh = _Sold(self._sizes(types), self._places(types), self._clock())
        except NotFound:
            raise
        except CloudError as error:
            if kept is None:
                raise
            log.warning(
                "the types cannot be read; what was known of them stays in use", error=str(error)
            )
            kept.read_at += AGAIN_S
            return kept
        self._sold[types] = fresh
        return fresh

    def _places(self, types: Sequence[str]) -> frozenset[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for some in chunks(types, FILTER_VALUES):
            with self._pacer.limit("DescribeInstanceTypeOfferings"):
                filters = [{"Name": "instance-type", "Values": some}]
                pages = self._ec2.get_paginator("describe_instance_type_offerings").paginate(
                    LocationType="availability-zone", Filters=filters
                )
                found.update(
                    (item["InstanceType"], item["Location"])
                    for page in pages
                    for item in page["InstanceTypeOfferings"]
                )
        return frozenset(found)

    def _sizes(self, types: Sequence[str]) -> dict[str, _Size]:
        found: dict[str, _Size] = {}
        for some in chunks(types, FILTER_VALUES):
            with contextlib.suppress(NotFound), self._pacer.limit("DescribeInstanceTypes"):
                pages = self._ec2.get_paginator("describe_instance_types").paginate(
                    Filters=[{"Name": "instance-type", "Values": some}]
                )
                found.update(
                    (item["InstanceType"], _size(item))
                    for page in pages
                    for item in page["InstanceTypes"]
                )
        if missing := [name for name in types if name not in found]:
            nearest = price_book.nearest_type(missing[0])
            another = "take one of another generation, or another region"
            raise NotFound(
                f"{self._region} has no instance type {', '.join(missing)}",
                where="the pool's types",
                fix=f"did you mean {nearest}?" if nearest and nearest != missing[0] else another,
            )
        return found


class Templates:
    """Launch templates and their versions. A version never changes, so each is read once."""

    def __init__(self, ec2: Any, pacer: RateLimiter, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ec2 = ec2
        self._pacer = pacer
        self._kept: dict[str, tuple[float, dict[str, Template]]] = {}
        self._versions: dict[tuple[str, int], Template] = {}

    def of(self, cluster: str) -> Mapping[str, Template]:
        """See `Fleet.templates`."""
        kept = self._kept.get(cluster)
        if kept is None or self._clock() - kept[0] > TEMPLATES_KEPT_S:
            kept = self._kept[cluster] = (self._clock(), self._read(cluster))
        return kept[1]

    def _read(self, cluster: str) -> dict[str, Template]:
        with self._pacer.limit("DescribeLaunchTemplates"):
            filters = [{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]
            pages = self._ec2.get_paginator("describe_launch_templates").paginate(Filters=filters)
            found = [item for page in pages for item in page["LaunchTemplates"]]
        templates: dict[str, Template] = {}
        for item in found:
            pool = {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}.get(Tag.POOL, "")
            key = (item["LaunchTemplateId"], int(item["LatestVersionNumber"]))
            if key not in self._versions:
                self._versions[key] = self._compared(*key)
            templates[pool] = self._versions[key]
        return templates

    def _compared(self, template_id: str, latest: int) -> Template:
        with self._pacer.limit("DescribeLaunchTemplateVersions"):
            pages = self._ec2.get_paginator("describe_launch_template_versions").paginate(
                LaunchTemplateId=template_id
            )
            looks = {
                int(item["VersionNumber"]): _looks(item["LaunchTemplateData"])
                for page in pages
                for item in page["LaunchTemplateVersions"]
            }
        return Template(
            str(latest),
            frozenset(str(number) for number, look in looks.items() if look == looks.get(latest))
            | {str(latest)},
        )


def _looks(data: Mapping[str, Any]) -> str:
    return json.dumps(
        {key: value for key, value in data.items() if key not in NOT_COMPARED},
        sort_keys=True,
        default=str,
    )


def _size(item: Mapping[str, Any]) -> _Size:
    gpus = sum(int(gpu.get("Count", 0)) for gpu in item.get("GpuInfo", {}).get("Gpus", []))
    return _Size(int(item["VCpuInfo"]["DefaultVCpus"]), int(item["MemoryInfo"]["SizeInMiB"]), gpus)
