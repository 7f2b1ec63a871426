"""Addresses: no two interfaces of a subnet share one, whoever asked for it; default networks lie where Linux can bind them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import structlog
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.vpcs import VPCBackend

from mesaform.localcloud.network_claims import (
    Claim,
    NetworkClaims,
    busy_addresses,
    default_networks,
    in_the_way,
    taken_text,
)

log = structlog.get_logger(__name__)


class Claims:
    """Which networks of this host are ours, put here by the endpoint's composition."""

    board: NetworkClaims = NetworkClaims(Path(os.devnull))


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
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Address {address} does not fall within the subnet's address range",
        )
    if address in taken(subnet):
        raise EC2ClientError("InvalidIPAddress.InUse", f"Address {address} is in use.")


def _available(self: Any, instance: Any) -> str:  # noqa: ARG001
    return allocate(self)


def _request(self: Any, ip: str, instance: Any) -> None:  # noqa: ARG001
    require_free(self, ip)


def _release(self: Any, ip: str) -> None:
    """Interfaces are the only record of what is taken; nothing to do."""


def _create_interface(original: Any) -> Any:
    def create(
        self: Any,
        subnet: Any,
        private_ip_address: Any,
        private_ip_addresses: Any = None,
        **kwargs: Any,
    ) -> Any:
        found = self.get_subnet(subnet) if isinstance(subnet, str) else subnet
        address = (
            private_ip_address[0]
            if isinstance(private_ip_address, list) and private_ip_address
            else private_ip_address
        )
        if not address and not private_ip_addresses:
            private_ip_address = address = allocate(found)
        for wanted in {address, *(_address_of(item) for item in private_ip_addresses or ())} - {
            None,
            "",
        }:
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
    vpc = self.create_vpc(cidr_block=str(_free_network(self)), is_default=True)
    for zone in self.describe_availability_zones():
        self.create_default_subnet(zone.name)
    return vpc


def _free_network(backend: Any) -> IPv4Network:
    """A network that no other local cloud, no other VPC of ours and no program of this host uses."""
    board, busy = Claims.board, busy_addresses()
    for network in default_networks(board.root):
        used = any(address in network for address in busy) or board.holds(network)
        if not used and in_the_way(network, board.root) is None:
            return network
    raise EC2ClientError(
        "VpcLimitExceeded",
        f"every network for the default VPC of {backend.region_name} is in use on this host",
    )


def _create_vpc(original: Any) -> Any:
    def create(self: Any, cidr_block: str, *args: Any, **kwargs: Any) -> Any:
        network = _network(cidr_block)
        if network is not None and (other := Claims.board.take(network)):
            raise EC2ClientError("InvalidVpcRange", taken_text(network, other))
        try:
            return original(self, cidr_block, *args, **kwargs)
        except EC2ClientError:
            if network is not None:
                Claims.board.release(network)
            raise

    return create


def _delete_vpc(original: Any) -> Any:
    def delete(self: Any, vpc_id: str) -> Any:
        vpc = original(self, vpc_id)
        if network := _network(vpc.cidr_block):
            Claims.board.release(network)
        return vpc

    return delete


def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:  # moto says so in EC2's words
        return None


def claim_again(backends: Any) -> None:
    """Claim what a restored account has. A default VPC whose network another took meanwhile moves, unless machines are in it."""
    for regions in list(backends.values()):
        for backend in list(regions.values()):
            for vpc in list(backend.vpcs.values()):
                network = _network(vpc.cidr_block)
                other = Claims.board.take(network) if network is not None else None
                if other is not None:
                    _make_way(backend, vpc, other)


def _make_way(backend: Any, vpc: Any, other: Claim) -> None:
    subnets = [subnet for subnet in backend.describe_subnets() if subnet.vpc_id == vpc.id]
    used = {eni.subnet.id for eni in backend.enis.values()}
    if vpc.is_default != "true" or any(subnet.id in used for subnet in subnets):
        log.warning(
            "network.shared",
            network=vpc.cidr_block,
            why=taken_text(IPv4Network(vpc.cidr_block), other),
        )
        return
    for subnet in subnets:
        backend.delete_subnet(subnet.id)
    backend.vpcs.pop(vpc.id)
    backend.default_vpc = backend.create_default_vpc()
    log.info("network.moved", was=vpc.cidr_block, now=backend.default_vpc.cidr_block)


def apply() -> None:
    Subnet.get_available_subnet_ip = _available
    Subnet.request_ip = _request
    Subnet.del_subnet_ip = _release
    NetworkInterface.check_auto_public_ip = _public_address
    NetworkInterfaceBackend.create_network_interface = _create_interface(
        NetworkInterfaceBackend.create_network_interface
    )
    VPCBackend.create_default_vpc = _create_default_vpc
    VPCBackend.create_vpc = _create_vpc(VPCBackend.create_vpc)
    VPCBackend.delete_vpc = _delete_vpc(VPCBackend.delete_vpc)
