"""VPC endpoints: how machines without a way to the internet reach AWS. Pure.

Source of the names: AWS PrivateLink guide, "AWS services that integrate with AWS PrivateLink".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesaform.topology import ports

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

CALLED_SERVICES = ("ec2", "sqs", "ssm", "sts")
"""The services besides S3 that masters call in the cluster's own region."""

PRICE_LIST_REGIONS = frozenset({"ap-south-1", "eu-central-1", "us-east-1"})
"""Regions in which the Price List API has an endpoint. Elsewhere masters without a way out use the
prices that `mesaform up` left in the bucket."""


def interface_endpoints(spec: ClusterSpec) -> tuple[str, ...]:
    """The services with an interface endpoint, by the end of the endpoint service's name."""
    if not ports.needs_endpoints(spec):
        return ()
    prices = ("pricing.api",) if spec.region in PRICE_LIST_REGIONS else ()
    return (*CALLED_SERVICES, *prices)


def has_s3_endpoint(spec: ClusterSpec) -> bool:
    """Whether S3 is reached through a gateway endpoint, which costs nothing."""
    return spec.network.mode == "private"


def service_name(region: str, service: str) -> str:
    """The name of an endpoint service."""
    prefix = "cn.com" if region.startswith("cn-") else "com"
    return f"{prefix}.amazonaws.{region}.{service}"
