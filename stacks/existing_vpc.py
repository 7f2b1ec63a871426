"""Subnets of a VPC that others own: they are looked up, and neither changed nor tagged."""

from __future__ import annotations

from mesaform.topology import addresses
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack


class ExistingVpc:
    """Exposes what `OwnVpc` does. There must be exactly one wanted subnet in each zone."""

    def __init__(self, stack: ClusterStack) -> None:
        wanted = addresses.existing_subnet_filters(stack.spec)
        subnets = {
            zone: aws.DataAwsSubnet(
                stack,
                f"subnet-{zone}",
                filter=[
                    aws.DataAwsSubnetFilter(name=name, values=values)
                    for name, values in {**wanted, "availability-zone": [zone]}.items()
                ],
            )
            for zone in stack.spec.zones
        }
        self.id: str = subnets[stack.spec.zones[0]].vpc_id
        self.machine_subnets: dict[str, str] = {zone: item.id for zone, item in subnets.items()}
        self.service_subnets = self.machine_subnets
