"""Addresses: no two interfaces of a subnet share one, whoever asked for it; default networks lie where Linux can bind them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.vpcs import VPCBackend

DEFAULT_VPC_CIDR = "127.31.0.0/16"


def taken(subnet: Any) -> set[str]:
    """The addresses of all interfaces in the subnet."""
    return {
        item["PrivateIpAddress"]
        for eni in subnet.ec2_backend.enis.values()
        if eni.subnet.id == subnet.id
        for item in eni.private_ip_addresses
    }


def dynamic_addresses(cidr: IPv4Network, after: str | None) -> Iterator[str]:
    """Addresses to hand out, in order: from a quarter into the subnet (fixed addresses tend to be low), after the last one, around.

    Going on after the last one means that an address that was just given back rests for as long as possible.
    """
    first, last = int(cidr.network_address) + 4, int(cidr.broadcast_address) - 1
    start = min(first + min(cidr.num_addresses // 4, 256), last)
    begin = int(IPv4Address(after)) + 1 if after else start
    for number in (*range(max(begin, first), last + 1), *range(first, last + 1)):
        yield str(IPv4Address(number))


def allocate(subnet: Any) -> str:
    """The next free address of a subnet."""
    used = taken(subnet)
    for address in dynamic_addresses(subnet.cidr, getattr(subnet, "last_address", None)):
        if address not in used:
            subnet.last_address = address
            return address
    raise EC2ClientError(
        "InsufficientFreeAddressesInSubnet",
        f"There are not enough free addresses in subnet '{subnet.id}' to satisfy the requested number of instances.",
    )


def require_free(subnet: Any, address: str) -> None:
    """Raise as EC2 does unless `address` is in the subnet and nobody's."""
    if IPv4Address(address) not in subnet.cidr:
        raise EC2ClientError("InvalidParameterValue", f"Address {address} does not fall within the subnet's address range")
    if address in taken(subnet):
        raise EC2ClientError("InvalidIPAddress.InUse", f"Address {address} is in use.")


def _available(self: Any, instance: Any) -> str:  # noqa: ARG001
    return allocate(self)


def _request(self: Any, ip: str, instance: Any) -> None:  # noqa: ARG001
    require_free(self, ip)


def _release(self: Any, ip: str) -> None:
    """Interfaces are the only record of what is taken; nothing to do."""


def _create_interface(original: Any) -> Any:
    def create(self: Any, subnet: Any, private_ip_address: Any, private_ip_addresses: Any = None, **kwargs: Any) -> Any:
        found = self.get_subnet(subnet) if isinstance(subnet, str) else subnet
        address = private_ip_address[0] if isinstance(private_ip_address, list) and private_ip_address else private_ip_address
        if not address and not private_ip_addresses:
            private_ip_address = address = allocate(found)
        for wanted in {address, *(_address_of(item) for item in private_ip_addresses or ())} - {None, ""}:
            require_free(found, wanted)
        return original(self, subnet, private_ip_address, private_ip_addresses, **kwargs)

    return create


def _address_of(item: Any) -> str | None:
    return item.get("PrivateIpAddress") if isinstance(item, dict) else item


def _public_address(self: Any) -> None:
    """A local machine is reached from everywhere at its private address, so that is its public one as well."""
    if str(self.public_ip_auto_assign).lower() == "true":
        self.public_ip = self.private_ip_address


def _create_default_vpc(self: Any) -> Any:
    vpc = self.create_vpc(cidr_block=DEFAULT_VPC_CIDR, is_default=True)
    for zone in self.describe_availability_zones():
        self.create_default_subnet(zone.name)
    return vpc


def apply() -> None:
    Subnet.get_available_subnet_ip = _available
    Subnet.request_ip = _request
    Subnet.del_subnet_ip = _release
    NetworkInterface.check_auto_public_ip = _public_address
    NetworkInterfaceBackend.create_network_interface = _create_interface(NetworkInterfaceBackend.create_network_interface)
    VPCBackend.create_default_vpc = _create_default_vpc
