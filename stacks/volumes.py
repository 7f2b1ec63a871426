"""The EBS volumes of the masters' data, which outlive the machines.

They belong to the network's stack: Terraform makes them beside the VPC, and the masters' stack can
be replaced as a whole without them. The node attaches its volume itself (docs/adr/0032).
"""

from __future__ import annotations

from collections.abc import Sequence

from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack


def data_volumes(stack: ClusterStack, zones: Sequence[str]) -> list[str]:
    """One encrypted volume for each master, in the zone of its subnet; returns their ids.

    Args:
        stack: the stack that holds them.
        zones: the zones of the subnets, in which the masters are placed in turn.

    """
    wanted = stack.spec.masters.data_volume
    volumes = []
    for index in range(stack.spec.masters.count):
        name = f"master-{index + 1}-data"
        volume = aws.EbsVolume(
            stack,
            name,
            availability_zone=zones[index % len(zones)],
            type="gp3",
            size=wanted.size_gib,
            encrypted=True,
            kms_key_id=wanted.kms_key_id or stack.spec.account.kms_key,
            tags=stack.named(name, ROLE="master", MANAGED_BY="terraform"),
        )
        volumes.append(str(volume.id))
    return volumes
