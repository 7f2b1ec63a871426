"""Addresses and networks: no two interfaces of a subnet share an address.

Default networks are in 127.0.0.0/8, where Linux can bind every address, or for containers in
172.16.0.0/12. Needs `network_claims`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import structlog
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.vpcs import VPCBackend

from mesaform.localcloud.moto_patches import moto_types
from mesaform.localcloud.moto_patches.moto_types import Ec2Backend, Parameters, Vpc
from mesaform.localcloud.network_claims import (
    Claim,
    NetworkClaims,
    busy_addresses,
    default_networks,
    find_overlap,
    overlap_text,
    routed_networks,
)

log = structlog.get_logger(__name__)

DEFAULT_SUBNET_PREFIX = 20
"""The prefix length of default subnets (Amazon VPC user guide, "Default VPC components")."""

FIRST_DYNAMIC_OFFSET = 256
"""The most addresses at the start of a subnet that are left to callers who ask for an address."""


class Claims:
    """The networks of this host that this local cloud uses; set by the endpoint's composition."""

    own: NetworkClaims = NetworkClaims(Path(os.devnull))


def used_addresses(subnet: moto_types.Subnet) -> set[str]:
    """The addresses of all interfaces in the subnet."""
    return {
        item["PrivateIpAddress"]
        for eni in subnet.ec2_backend.enis.values()
        if eni.subnet.id == subnet.id
        for item in eni.private_ip_addresses
    }


def dynamic_addresses(cidr: IPv4Network, after: str | None) -> Iterator[str]:
    """Addresses to hand out, in order: from a quarter into the subnet, after the last one, around.

    Fixed addresses tend to be low. To go on after the last one keeps an address that was released
    unused for as long as possible.
    """
    first, last = int(cidr.network_address) + 4, int(cidr.broadcast_address) - 1
    start = min(first + min(cidr.num_addresses // 4, FIRST_DYNAMIC_OFFSET), last)
    begin = int(IPv4Address(after)) + 1 if after else start
    for number in (*range(max(begin, first), last + 1), *range(first, last + 1)):
        yield str(IPv4Address(number))


def allocate(subnet: moto_types.Subnet) -> str:
    """The next free address of a subnet.

    Raises:
        EC2ClientError: the subnet is full.

    """
    used = used_addresses(subnet)
    for address in dynamic_addresses(subnet.cidr, getattr(subnet, "last_address", None)):
        if address not in used:
            subnet.last_address = address
            return address
    raise EC2ClientError(
        "InsufficientFreeAddressesInSubnet",
        f"There are not enough free addresses in subnet '{subnet.id}' "
        "to satisfy the requested number of instances.",
    )


def require_free(subnet: moto_types.Subnet, address: str) -> None:
    """Check that an address is in the subnet and of no interface.

    Raises:
        EC2ClientError: EC2's error for either.

    """
    if IPv4Address(address) not in subnet.cidr:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Address {address} does not fall within the subnet's address range",
        )
    if address in used_addresses(subnet):
        raise EC2ClientError("InvalidIPAddress.InUse", f"Address {address} is in use.")


def _available(self: moto_types.Subnet, instance: object) -> str:  # noqa: ARG001 - moto's signature
    return allocate(self)


def _request(self: moto_types.Subnet, ip: str, instance: object) -> None:  # noqa: ARG001 - likewise
    require_free(self, ip)


def _release(self: moto_types.Subnet, ip: str) -> None:
    """Do nothing: interfaces are the only record of the used addresses."""


def _create_interface(original: Callable[..., object]) -> Callable[..., object]:
    def create(
        self: Ec2Backend,
        subnet: str | moto_types.Subnet,
        private_ip_address: str | list[str] | None,
        private_ip_addresses: list[str | Parameters] | None = None,
        *others: object,
        **kwargs: object,
    ) -> object:
        target = self.get_subnet(subnet) if isinstance(subnet, str) else subnet
        address = (
            private_ip_address[0]
            if isinstance(private_ip_address, list) and private_ip_address
            else private_ip_address
        )
        if not address and not private_ip_addresses:
            private_ip_address = address = allocate(target)
        for wanted in _addresses(address, private_ip_addresses or []):
            require_free(target, wanted)
        return original(self, subnet, private_ip_address, private_ip_addresses, *others, **kwargs)

    return create


def _addresses(primary: str | list[str] | None, others: list[str | Parameters]) -> set[str]:
    addresses = {
        item.get("PrivateIpAddress") if isinstance(item, dict) else item for item in others
    }
    if isinstance(primary, str):
        addresses.add(primary)
    return {address for address in addresses if address}


def _set_public_address(self: moto_types.NetworkInterface) -> None:
    """A local machine is reachable at its private address, so that is its public one too."""
    if str(self.public_ip_auto_assign).lower() == "true":
        self.public_ip = self.private_ip_address


def _create_default_vpc(self: Ec2Backend) -> Vpc:
    """A default VPC with a default subnet in each zone.

    moto takes a zone's first subnet of any VPC for its default one, and counts these for the next
    address: where other VPCs have subnets, its own way fails in the second zone.
    """
    network = _free_network(self)
    vpc = self.create_vpc(cidr_block=str(network), is_default=True)
    blocks = network.subnets(new_prefix=DEFAULT_SUBNET_PREFIX)
    for zone, block in zip(self.describe_availability_zones(), blocks, strict=False):
        subnet = self.create_subnet(vpc.id, str(block), availability_zone=zone.name)
        subnet.default_for_az = subnet.map_public_ip_on_launch = True
    return vpc


def _free_network(backend: Ec2Backend) -> IPv4Network:
    """A network that no local cloud, no other VPC and no program of this host uses."""
    claims, busy, routed = Claims.own, busy_addresses(), routed_networks()
    for network in default_networks(claims.root, claims.scope):
        is_used = any(address in network for address in busy) or claims.holds(network)
        is_used = is_used or any(network.overlaps(other) for other in routed)
        if not is_used and find_overlap(network, claims.root) is None:
            return network
    raise EC2ClientError(
        "VpcLimitExceeded",
        f"every network for the default VPC of {backend.region_name} is in use on this host",
    )


def _create_vpc(original: Callable[..., Vpc]) -> Callable[..., Vpc]:
    def create(self: Ec2Backend, cidr_block: str, *args: object, **kwargs: object) -> Vpc:
        network = _network(cidr_block)
        if network is not None and (other := Claims.own.take(network)):
            raise EC2ClientError("InvalidVpcRange", overlap_text(network, other))
        try:
            return original(self, cidr_block, *args, **kwargs)
        except EC2ClientError:
            if network is not None:
                Claims.own.release(network)
            raise

    return create


def _delete_vpc(original: Callable[..., Vpc]) -> Callable[..., Vpc]:
    def delete(self: Ec2Backend, vpc_id: str) -> Vpc:
        vpc = original(self, vpc_id)
        if network := _network(vpc.cidr_block):
            Claims.own.release(network)
        return vpc

    return delete


def _network(text: str) -> IPv4Network | None:
    """The network; None if the text is none, which moto reports in EC2's words."""
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        return None


def claim_again(backends: Mapping[str, Mapping[str, Ec2Backend]]) -> bool:
    """Claim the networks of a restored account; whether a default VPC moved.

    A default VPC whose network another local cloud took in the meantime moves, unless it is in use.
    """
    has_moved = False
    for regions in list(backends.values()):
        for backend in list(regions.values()):
            for vpc in list(backend.vpcs.values()):
                network = _network(vpc.cidr_block)
                other = Claims.own.take(network) if network is not None else None
                if other is not None:
                    has_moved |= _move(backend, vpc, other)
    return has_moved


def match_claims(backends: Mapping[str, Mapping[str, Ec2Backend]]) -> None:
    """Hold the claims of the VPCs that there are, after EC2 was put back to its record."""
    cidrs = [
        vpc.cidr_block
        for regions in list(backends.values())
        for backend in list(regions.values())
        for vpc in list(backend.vpcs.values())
    ]
    Claims.own.match(network for network in map(_network, cidrs) if network is not None)


def _move(backend: Ec2Backend, vpc: Vpc, other: Claim) -> bool:
    subnets = [subnet for subnet in backend.describe_subnets() if subnet.vpc_id == vpc.id]
    used = {eni.subnet.id for eni in backend.enis.values()}
    if not vpc.is_default or any(subnet.id in used for subnet in subnets):
        log.warning(
            "network.shared",
            network=vpc.cidr_block,
            reason=overlap_text(IPv4Network(vpc.cidr_block), other),
        )
        return False
    for subnet in subnets:
        backend.delete_subnet(subnet.id)
    backend.vpcs.pop(vpc.id)
    backend.default_vpc = backend.create_default_vpc()
    log.info("network.moved", before=vpc.cidr_block, now=backend.default_vpc.cidr_block)
    return True


def apply() -> None:
    """Patch moto in this process."""
    Subnet.get_available_subnet_ip = _available
    Subnet.request_ip = _request
    Subnet.del_subnet_ip = _release
    NetworkInterface.check_auto_public_ip = _set_public_address
    NetworkInterfaceBackend.create_network_interface = _create_interface(
        NetworkInterfaceBackend.create_network_interface
    )
    VPCBackend.create_default_vpc = _create_default_vpc
    VPCBackend.create_vpc = _create_vpc(VPCBackend.create_vpc)
    VPCBackend.delete_vpc = _delete_vpc(VPCBackend.delete_vpc)
