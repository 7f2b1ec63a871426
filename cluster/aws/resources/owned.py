"""What a cluster owns in the cloud, as plain values: the kinds of resource, the order in which they can go, and what they cost.

Pure: the calls are in `listers`, the loop over them in `sweep`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesaform.topology.naming import Tag

HOURS_PER_MONTH = 730.0
# List prices of us-east-1 for what is not a machine, in USD. Regions differ by some percent; the receipt says that these are list prices.
USD_PER_GIB_MONTH = {
    "gp3": 0.08,
    "gp2": 0.10,
    "io1": 0.125,
    "io2": 0.125,
    "st1": 0.045,
    "sc1": 0.015,
    "standard": 0.05,
}
USD_PER_SNAPSHOT_GIB_MONTH = 0.05
USD_PER_ADDRESS_HOUR = 0.005
USD_PER_NAT_GATEWAY_HOUR = 0.045

# The order of removal: nothing stands before what it needs gone. Machines first, then what hung on them, the network, and rights last.
ORDER: tuple[str, ...] = (
    "spot request",
    "instance",
    "nat gateway",
    "vpc endpoint",
    "elastic address",
    "network interface",
    "volume",
    "image",
    "snapshot",
    "launch template",
    "key pair",
    "security group",
    "subnet",
    "route table",
    "internet gateway",
    "vpc",
    "event rule",
    "queue",
    "instance profile",
    "role",
    "policy",
    "parameter",
    "log group",
)
KEPT_UNLESS_ASKED = frozenset({"image", "snapshot"})


@dataclass(frozen=True, slots=True)
class OwnedResource:
    """A resource that carries the cluster's tag.

    `deleted_with_instance` is the instance that takes it along when it is terminated. `usd_per_hour` is None where no price is known.
    """

    kind: str
    id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
    usd_per_hour: float | None = 0.0
    deleted_with_instance: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.id

    @property
    def name(self) -> str:
        """Its `Name` tag, or its id."""
        return self.tags.get(Tag.NAME) or self.id


def is_ours(tags: Mapping[str, str], cluster: str) -> bool:
    """Whether these tags say that the resource is the cluster's: the one test of ownership."""
    return tags.get(Tag.CLUSTER) == cluster


def rank(kind: str) -> int:
    """Where a kind stands in the order of removal; unknown kinds go first, so that they block nothing unseen."""
    return ORDER.index(kind) if kind in ORDER else -1


def in_order(resources: Iterable[OwnedResource]) -> list[OwnedResource]:
    """The resources in an order in which they can be removed."""
    return sorted(resources, key=lambda resource: (rank(resource.kind), resource.id))


def counts(resources: Iterable[OwnedResource]) -> dict[str, int]:
    """How many of each kind, in the order of removal."""
    counted: dict[str, int] = {}
    for resource in in_order(resources):
        counted[resource.kind] = counted.get(resource.kind, 0) + 1
    return counted


def volume_usd_per_hour(volume_type: str, gib: float) -> float | None:
    """What a volume costs by size; provisioned throughput is not in it. None for an unknown type."""
    price = USD_PER_GIB_MONTH.get(volume_type)
    return None if price is None else price * gib / HOURS_PER_MONTH


def snapshot_usd_per_hour(gib: float) -> float:
    """The most a snapshot can cost: AWS bills only the blocks that differ."""
    return USD_PER_SNAPSHOT_GIB_MONTH * gib / HOURS_PER_MONTH
