"""Simulated cloud market: sizes, prices, boot times, shortages and spot reclaims.

All chance depends on a seed. The market has no state, so two policies with the same request at the
same time get the same answer. Depends on `aws.ports`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

from mesaform.aws.ports import Capacity, Offering
from mesaform.aws.pricing import price_book
from mesaform.common.errors import BadInput
from mesaform.topology.capacity import agent_resources

VCPUS_PER_XLARGE = 4
GIB_PER_VCPU = {"c": 2.0, "m": 4.0, "r": 8.0}
"""Families for computing, general use and memory have kept these proportions since 2016."""

BURSTABLE_GIB = {
    "nano": 0.5,
    "micro": 1,
    "small": 2,
    "medium": 4,
    "large": 8,
    "xlarge": 16,
    "2xlarge": 32,
}

TYPES = tuple(
    f"{family}.{size}"
    for family in ("c5", "m5", "r5")
    for size in ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge")
)
"""What is for sale when a policy names no types (c5 has 9xlarge in place of 8xlarge)."""
TYPES = tuple("c5.9xlarge" if name == "c5.8xlarge" else name for name in TYPES)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the cloud behaves.

    Attributes:
        seed: of everything that is left to chance.
        boot_s: median seconds from launch until a machine's agent is registered; log-normal.
        boot_spread: standard deviation of the logarithm of boot times.
        never_boots: the part of machines that never register.
        reclaims_per_hour: of each spot machine.
        notice_s: between the notice of a reclaim and the reclaim; 0: there is no notice.
        pull_s: until an app's image is on a machine; its first task there waits for it.
        short_share: the part of (offering, half-hour) pairs in which there is no capacity.

    """

    seed: int = 1
    boot_s: float = 45.0
    boot_spread: float = 0.25
    never_boots: float = 0.0
    reclaims_per_hour: float = 0.02
    short_share: float = 0.0
    notice_s: float = 120.0
    pull_s: float = 0.0


SHORTAGE_S = 1800.0


def size_of(instance_type: str) -> tuple[int, int] | None:
    """Return the vCPUs and MiB of memory of a c, m, r or t type; None for other families."""
    family, _, size = instance_type.partition(".")
    factor = price_book.size_factor(size)
    if factor is None or not family[1:2].isdigit():
        return None
    if family[0] == "t":
        return (
            (2 if factor < 1 else int(factor * VCPUS_PER_XLARGE), int(BURSTABLE_GIB[size] * 1024))
            if size in BURSTABLE_GIB
            else None
        )
    if family[0] not in GIB_PER_VCPU or factor < 0.5:
        return None
    vcpus = int(factor * VCPUS_PER_XLARGE)
    return vcpus, int(vcpus * GIB_PER_VCPU[family[0]] * 1024)


def offerings(
    types: Iterable[str], zones: Iterable[str], disk_gib: int = 40
) -> tuple[Offering, ...]:
    """What is for sale.

    Raises:
        BadInput: a type is not in the price book, or its size is not known offline.

    """
    offerings: list[Offering] = []
    for name in types:
        size, usd = size_of(name), price_book.usd_per_hour(name)
        if size is None or usd is None:
            raise BadInput(
                f"the simulator does not know the type {name}",
                fix=f"types of c, m, r and t families, such as {TYPES[1]}",
            )
        capacities: tuple[Capacity, ...] = ("on-demand", "spot")
        for zone in zones:
            for capacity in capacities:
                price = price_book.usd_per_hour(name, capacity) or usd
                offerings.append(
                    Offering(name, zone, capacity, price, agent_resources(*size, disk_gib))
                )
    return tuple(offerings)


class Market:
    """Seeded chance. The n-th machine of a run has the same properties under every policy."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def boot_s(self, number: int) -> float:
        """Seconds until the n-th machine's agent registers; infinite when it never does."""
        chance = self._chance("boot", number)
        if chance.random() < self.settings.never_boots:
            return math.inf
        return round(
            self.settings.boot_s * chance.lognormvariate(0.0, self.settings.boot_spread), 1
        )

    def reclaimed_after_s(self, number: int, capacity: Capacity) -> float:
        """Seconds until the n-th machine is taken back; infinite on demand."""
        rate = self.settings.reclaims_per_hour if capacity == "spot" else 0.0
        return (
            round(self._chance("reclaim", number).expovariate(rate / 3600), 1)
            if rate > 0
            else math.inf
        )

    def has(self, offering: Offering, now: float) -> bool:
        """Whether there is capacity of an offering in this half-hour."""
        if self.settings.short_share <= 0:
            return True
        return (
            self._chance(offering.key, int(now // SHORTAGE_S)).random() >= self.settings.short_share
        )

    def _chance(self, *what: str | int) -> random.Random:
        key = "/".join(map(str, (self.settings.seed, *what)))
        return random.Random(key)  # noqa: S311 - reproducible, not secret
