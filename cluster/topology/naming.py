"""What a cluster is made of, as pure functions of its spec: names, tags, addresses, ports, and the node document.

Stacks, images, nodes, the autoscaler and teardown share this module, so that no name or number is said twice.
Nothing here touches the network, files or the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import msgspec

from mesaform.config.schema import ClusterSpec
from mesaform.topology.user_data import (
    NODE_DOCUMENT_VERSION,
    OPERATOR_PORTS,
    PROTECT,
    TASK_PORTS,
    ZK_AUTOSCALER_PATH,
    ZK_ENGINE_PATH,
    ZK_SERVICES_PATH,
    LeaseTerms,
    NodeDocument,
    Port,
    Role,
    ZooKeeperMember,
    agent_resources,
    parse_node_document,
    zk_url,
)

__all__ = [
    "NODE_DOCUMENT_VERSION",
    "OPERATOR_PORTS",
    "ROLES",
    "TASK_PORTS",
    "ZK_AUTOSCALER_PATH",
    "ZK_ENGINE_PATH",
    "ZK_SERVICES_PATH",
    "IngressRule",
    "NodeDocument",
    "Port",
    "Role",
    "Tag",
    "ZooKeeperMember",
    "agent_resources",
    "bucket_name",
    "ingress_rules",
    "launch_template_name",
    "lease_terms",
    "master_addresses",
    "node_document",
    "parse_node_document",
    "prefix",
    "spec_parameter_name",
    "subnets",
    "tags",
    "zk_url",
]

ROLES: tuple[Role, ...] = ("master", "agent")


class Tag:
    """EC2 tag keys. Teardown owns what carries `CLUSTER` with the cluster's name, and nothing else."""

    CLUSTER = "mesaform:cluster"
    ROLE = "mesaform:role"  # master | agent | builder
    POOL = "mesaform:pool"
    MANAGED_BY = "mesaform:managed-by"  # terraform | autoscaler | bake
    RECIPE = "mesaform:recipe"  # on images: the recipe's digest
    LAUNCH = "mesaform:launch"  # on the autoscaler's machines: the journal entry that bought them
    TEMPLATE_VERSION = "aws:ec2launchtemplate:version"  # put there by EC2: the launch template's version that it came from
    NAME = "Name"


def prefix(spec: ClusterSpec) -> str:
    return f"mesaform-{spec.name}"


def tags(spec: ClusterSpec, **extra: str) -> dict[str, str]:
    """The tags that every resource of the cluster carries; `extra` maps attribute names of `Tag` to values."""
    return {Tag.CLUSTER: spec.name, **{getattr(Tag, key): value for key, value in extra.items()}}


def reserved_for_masters(subnet: IPv4Network) -> IPv4Network:
    """The eight addresses of a zone's subnet, the eighth to the fifteenth, that EC2 gives to nobody who does not ask for one by name.

    Without it an agent could be given the fixed address of a master that is being replaced.
    """
    return IPv4Network((subnet.network_address + 8, 29))


def launch_template_name(cluster: str, pool: str) -> str:
    return f"mesaform-{cluster}-{pool}"


def spec_parameter_name(cluster: str) -> str:
    """The SSM parameter, owned by the agents stack, that holds the spec as JSON for the autoscaler to read."""
    return f"/mesaform/{cluster}/spec"


def bucket_name(account_id: str, region: str) -> str:
    """One bucket per account and region holds bundles to bake, the ledger and the fences of all clusters; it outlives them."""
    return f"mesaform-{account_id}-{region}"


def subnets(spec: ClusterSpec) -> tuple[IPv4Network, ...]:
    """One subnet a zone: the first of eight equal parts of the VPC's CIDR."""
    network = IPv4Network(spec.network.cidr)
    return tuple(network.subnets(prefixlen_diff=3))[: len(spec.zones)]


def master_addresses(spec: ClusterSpec) -> tuple[IPv4Address, ...]:
    """The masters' fixed private addresses: the tenth of each zone's subnet (AWS keeps the first four)."""
    parts = subnets(spec)
    return tuple(
        parts[index % len(parts)].network_address + 10 + index // len(parts)
        for index in range(spec.masters.count)
    )


def lease_terms(spec: ClusterSpec) -> LeaseTerms:
    """How long the autoscaler may be silent, and how long an agent must have been empty, before it ends itself."""
    return LeaseTerms(spec.autoscaler.lease_s, spec.autoscaler.idle_after_s)


def node_document(
    spec: ClusterSpec, role: Role, recipe: str, pool: str = "", *, bought: bool = False
) -> str:
    """The user data of a machine as JSON text.

    Args:
        spec: the cluster.
        role: what the machine is.
        recipe: the digest of the image recipe.
        pool: the agent pool's name; empty for masters.
        bought: an agent of the autoscaler's, which has a lease, unless its pool is protected.

    """
    own = next((p for p in spec.agents if p.name == pool), None) if role == "agent" else None
    leased = bought and own is not None and own.attributes.get(PROTECT) != "true"
    members = tuple(
        ZooKeeperMember(index + 1, str(address))
        for index, address in enumerate(master_addresses(spec))
    )
    document = NodeDocument(
        version=NODE_DOCUMENT_VERSION,
        cluster=spec.name,
        role=role,
        region=spec.region,
        engine=spec.engine,
        zookeeper=members,
        recipe=recipe,
        pool=pool,
        disk_gib=own.disk_gib if own else 40,
        attributes=dict(own.attributes) if own else {},
        lease=lease_terms(spec) if leased else None,
    )
    return msgspec.json.encode(document).decode()


@dataclass(frozen=True, slots=True)
class IngressRule:
    """One way in: `ports` from `source`, which is a CIDR or the name of a security group of this cluster."""

    group: Role
    first_port: int
    last_port: int
    source: str
    why: str


def ingress_rules(spec: ClusterSpec) -> tuple[IngressRule, ...]:
    """Every way in. Operators reach the masters' three ports; members reach each other; nobody else reaches anything."""
    from_operators = tuple(
        IngressRule("master", port, port, cidr, f"operators to {port}")
        for port in OPERATOR_PORTS
        for cidr in spec.network.operator_cidrs
    )
    between_members = tuple(
        IngressRule(group, 0, 65535, source, f"{source}s to {group}s")
        for group in ("master", "agent")
        for source in ("master", "agent")
    )
    return from_operators + between_members
