"""Prices of a region besides machines: disks, addresses, requests, traffic, gateways. Pure.

AWS's list takes precedence (`price_list`). The defaults are those of us-east-1, from
https://aws.amazon.com/ebs/pricing/, /vpc/pricing/, /s3/pricing/, /sqs/pricing/,
/elasticloadbalancing/pricing/ and /ec2/pricing/on-demand/ (data transfer, T credits).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

HOURS_PER_MONTH = 730.0
"""Hours by which AWS converts monthly prices."""

HOSTED_ZONE_USD_PER_MONTH = 0.5
"""A hosted zone of Route 53, in every region (https://aws.amazon.com/route53/pricing/)."""

VOLUME_TYPE = "gp3"
"""The type of every disk that Mesaform creates."""

VOLUME_USD_PER_GIB_MONTH: Mapping[str, float] = {
    "gp3": 0.08,
    "gp2": 0.10,
    "io1": 0.125,
    "io2": 0.125,
    "st1": 0.045,
    "sc1": 0.015,
    "standard": 0.05,
}
CREDIT_USD: Mapping[str, float] = {"t3": 0.05, "t3a": 0.05, "t4g": 0.04}


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """List prices of a region in USD.

    `volume_usd_per_gib_month` is by volume type. `put_usd` and `get_usd` are for one request to S3,
    `queue_usd` for one to SQS. `zone_usd_per_gib` is what a GiB costs that leaves a zone for
    another one, once at each end. `credit_usd` is a surplus vCPU hour of T types by family; a
    family that is absent gets no surplus credits.
    """

    volume_usd_per_gib_month: Mapping[str, float] = msgspec.field(
        default_factory=lambda: dict(VOLUME_USD_PER_GIB_MONTH)
    )
    snapshot_usd_per_gib_month: float = 0.05
    address_usd_per_hour: float = 0.005
    nat_gateway_usd_per_hour: float = 0.045
    load_balancer_usd_per_hour: float = 0.0225
    endpoint_usd_per_hour: float = 0.01
    put_usd: float = 0.000005
    get_usd: float = 0.0000004
    queue_usd: float = 0.0000004
    zone_usd_per_gib: float = 0.01
    credit_usd: Mapping[str, float] = msgspec.field(default_factory=lambda: dict(CREDIT_USD))

    def volume_usd_per_hour(self, volume_type: str, gib: float) -> float | None:
        """Price of a volume by its size, without provisioned speed; None for an unknown type."""
        price = self.volume_usd_per_gib_month.get(volume_type)
        return None if price is None else price * gib / HOURS_PER_MONTH

    def snapshot_usd_per_hour(self, gib: float) -> float:
        """Upper bound of a snapshot's price: AWS bills only the blocks that differ."""
        return self.snapshot_usd_per_gib_month * gib / HOURS_PER_MONTH


BOOK = Rates()
"""The prices of us-east-1."""
