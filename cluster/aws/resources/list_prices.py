"""List prices of resources that are not instances, in USD.

The prices are those of us-east-1 (https://aws.amazon.com/ebs/pricing/,
https://aws.amazon.com/vpc/pricing/). Regions differ by some percent; receipts call them list
prices. The module depends on nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

HOURS_PER_MONTH = 730.0
"""Hours by which AWS converts monthly prices."""

VOLUME_USD_PER_GIB_MONTH: Mapping[str, float] = {
    "gp3": 0.08,
    "gp2": 0.10,
    "io1": 0.125,
    "io2": 0.125,
    "st1": 0.045,
    "sc1": 0.015,
    "standard": 0.05,
}
SNAPSHOT_USD_PER_GIB_MONTH = 0.05
ADDRESS_USD_PER_HOUR = 0.005
NAT_GATEWAY_USD_PER_HOUR = 0.045


def volume_usd_per_hour(volume_type: str, gib: float) -> float | None:
    """Price of a volume by its size, without provisioned throughput; None for an unknown type."""
    price = VOLUME_USD_PER_GIB_MONTH.get(volume_type)
    return None if price is None else price * gib / HOURS_PER_MONTH


def snapshot_usd_per_hour(gib: float) -> float:
    """Upper bound of a snapshot's price: AWS bills only the blocks that differ."""
    return SNAPSHOT_USD_PER_GIB_MONTH * gib / HOURS_PER_MONTH
