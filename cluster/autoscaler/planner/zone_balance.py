"""Zones of new machines: even shares where prices are equal, the cheaper zone where they differ.

Pure. Balance is a soft cost: a machine counts as dearer by `zone_balance_percent` of its price,
times the share that its zone would have of the pool in relation to an even share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mesaform.aws.ports import Offering


def machines_by_zone(
    count: int, offerings: Sequence[Offering], present: Mapping[str, int], percent: float
) -> dict[str, int]:
    """How many of `count` new machines of one type go to each zone that has any.

    Args:
        count: new machines.
        offerings: the type's offerings of one capacity type, at most one for each zone.
        present: machines of the pool by zone.
        percent: the weight of balance; 0 leaves all machines in the cheapest zone.

    """
    zones = {offering.zone: offering.usd_per_hour for offering in offerings}
    counts = {zone: present.get(zone, 0) for zone in zones}
    added: dict[str, int] = {}
    for _ in range(count if zones else 0):
        zone = min(zones, key=lambda z: (_weighed(z, zones[z], counts, percent), counts[z], z))
        counts[zone] += 1
        added[zone] = added.get(zone, 0) + 1
    return added


def _weighed(zone: str, usd: float, counts: Mapping[str, int], percent: float) -> float:
    even_share = (sum(counts.values()) + 1) / len(counts)
    return round(usd * (1 + percent / 100 * (counts[zone] + 1) / even_share), 9)
