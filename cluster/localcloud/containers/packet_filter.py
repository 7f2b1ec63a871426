"""Rules of nftables for the VPCs of a local cloud: security groups and the way out. Pure.

Enforced: inbound rules of groups, by protocol, ports, networks and groups, for IPv4 packets that
are forwarded to a machine. Not enforced: outbound rules, network ACLs, IPv6, prefix lists; and what
this host itself sends to a machine always passes. Reference: nft(8).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mesaform.localcloud.protocol import IngressRule, Machine, SecurityGroup

ANY_PROTOCOL = "-1"
_PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp"}


@dataclass(frozen=True, slots=True)
class Vpc:
    """A VPC with machines: its bridge and its network."""

    bridge: str
    cidr: str


def rules(
    table: str,
    vpcs: Iterable[Vpc],
    machines: Sequence[Machine],
    groups: Iterable[SecurityGroup],
) -> str:
    """The text that replaces the table as a whole.

    A machine without a known group gets no packets that it did not ask for.
    """
    by_id = {group.id: group for group in groups}
    networks = sorted(vpcs, key=lambda vpc: vpc.bridge)
    lines = [f"table inet {table}", f"delete table inet {table}", f"table inet {table} {{"]
    lines += _members(machines, by_id)
    for machine in machines:
        lines += _chain(machine, by_id)
    lines += _forward(networks, machines)
    lines += _way_out(networks)
    return "\n".join([*lines, "}"]) + "\n"


def _members(machines: Sequence[Machine], groups: dict[str, SecurityGroup]) -> Iterator[str]:
    """A set with the addresses of each group, also of those that only rules of others name.

    The list of groups has those of machines. A rule names the group of machines that come later.
    """
    named = {item for group in groups.values() for rule in group.rules for item in rule.groups}
    for group_id in sorted(named | set(groups)):
        addresses = sorted(item.address for item in machines if group_id in item.groups)
        elements = f" elements = {{ {', '.join(addresses)} }};" if addresses else ""
        yield f"  set {_name(group_id)} {{ type ipv4_addr;{elements} }}"


def _chain(machine: Machine, groups: dict[str, SecurityGroup]) -> list[str]:
    known = [groups[group_id] for group_id in machine.groups if group_id in groups]
    accepted = sorted({line for group in known for rule in group.rules for line in _accept(rule)})
    name = _name(machine.instance_id)
    return [f"  chain {name} {{", *(f"    {line}" for line in accepted), "    drop", "  }"]


def _accept(rule: IngressRule) -> Iterator[str]:
    match = _match(rule)
    for cidr in rule.cidrs:
        yield f"ip saddr {cidr} {match}accept"
    for group_id in rule.groups:
        yield f"ip saddr @{_name(group_id)} {match}accept"


def _match(rule: IngressRule) -> str:
    """The condition on protocol and ports, with a space at its end; empty without one."""
    protocol = _PROTOCOLS.get(rule.protocol, rule.protocol)
    if protocol == ANY_PROTOCOL:
        return ""
    has_ports = protocol in {"tcp", "udp"} and rule.first_port is not None and rule.first_port >= 0
    if not has_ports:
        return f"ip protocol {protocol} "
    return f"{protocol} dport {rule.first_port}-{rule.last_port} "


def _forward(vpcs: Sequence[Vpc], machines: Sequence[Machine]) -> list[str]:
    lines = [
        "  chain forward {",
        "    type filter hook forward priority 0; policy accept;",
        "    ct state established,related accept",
    ]
    for vpc in vpcs:
        entries = ", ".join(
            f"{machine.address} : goto {_name(machine.instance_id)}"
            for machine in machines
            if machine.vpc_cidr == vpc.cidr
        )
        if entries:
            lines.append(f'    oifname "{vpc.bridge}" ip daddr vmap {{ {entries} }}')
        lines.append(f'    oifname "{vpc.bridge}" drop')
    return [*lines, "  }"]


def _way_out(vpcs: Sequence[Vpc]) -> list[str]:
    """Packets to the outside get this host's address, as an internet gateway gives a public one."""
    lines = ["  chain leave {", "    type nat hook postrouting priority 100; policy accept;"]
    lines += [
        f'    ip saddr {vpc.cidr} oifname != "{vpc.bridge}" ip daddr != {vpc.cidr} masquerade'
        for vpc in vpcs
    ]
    return [*lines, "  }"]


def _name(identifier: str) -> str:
    return identifier.replace("-", "_")
