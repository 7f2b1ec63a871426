"""DeleteSubnet refuses a subnet with reservations of addresses.

EC2's documentation does not say whether it does (API reference, DeleteSubnet): the stricter case is
the one that a teardown must pass.
"""

from __future__ import annotations

from collections.abc import Callable

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.subnets import Subnet, SubnetBackend

DeleteSubnet = Callable[[SubnetBackend, str], Subnet]


def refusing(delete: DeleteSubnet) -> DeleteSubnet:
    """DeleteSubnet that refuses a subnet with reservations."""

    def delete_subnet(self: SubnetBackend, subnet_id: str) -> Subnet:
        if any(self.get_subnet_cidr_reservations(subnet_id).values()):
            raise EC2ClientError(
                "DependencyViolation",
                f"The subnet '{subnet_id}' has dependencies and cannot be deleted.",
            )
        return delete(self, subnet_id)

    return delete_subnet


def apply() -> None:
    """Patch moto in this process."""
    SubnetBackend.delete_subnet = refusing(SubnetBackend.delete_subnet)
