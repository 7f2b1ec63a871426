"""What a cluster is made of, as pure functions of its spec: names, tags, addresses, ports, and the node document.

Stacks, images, nodes, the autoscaler and teardown share this module, so that no name or number is said twice.
Nothing here touches the network, files or the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

import msgspec

from cluster.resources import Resources
from cluster.spec import ClusterSpec

NODE_DOCUMENT_VERSION = 1


class Port:
    """Listening ports, the same on every machine (each has its own address)."""

    ENGINE_MASTER = 5050
    ENGINE_AGENT = 5051
    ENGINE_LINK = 5052  # gRPC between the embedded engine's agents and the leading master; members only
    SERVICES = 8080
    JOBS = 4400
    AUTOSCALER = 9550
    ZOOKEEPER_CLIENT = 2181
    ZOOKEEPER_PEER = 2888
    ZOOKEEPER_ELECTION = 3888


OPERATOR_PORTS = (Port.ENGINE_MASTER, Port.SERVICES, Port.JOBS)
TASK_PORTS = (31000, 32000)
ZK_ENGINE_PATH = "/mesos"
ZK_SERVICES_PATH = "/marathon"
ZK_AUTOSCALER_PATH = "/mesaform/autoscaler"


class Tag:
    """EC2 tag keys. Teardown owns what carries `CLUSTER` with the cluster's name, and nothing else."""

    CLUSTER = "mesaform:cluster"
    ROLE = "mesaform:role"  # master | agent | builder
    POOL = "mesaform:pool"
    MANAGED_BY = "mesaform:managed-by"  # terraform | autoscaler | bake
    RECIPE = "mesaform:recipe"  # on images: the recipe's digest
    LAUNCH = "mesaform:launch"  # on the autoscaler's machines: the journal entry that bought them
    NAME = "Name"


Role = Literal["master", "agent"]


def prefix(spec: ClusterSpec) -> str:
    return f"mesaform-{spec.name}"


def tags(spec: ClusterSpec, **extra: str) -> dict[str, str]:
    """The tags that every resource of the cluster carries; `extra` maps attribute names of `Tag` to values."""
    return {Tag.CLUSTER: spec.name, **{getattr(Tag, key): value for key, value in extra.items()}}


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
    return tuple(parts[index % len(parts)].network_address + 10 + index // len(parts) for index in range(spec.masters.count))


def zk_url(addresses: tuple[str, ...] | list[str], path: str) -> str:
    """`zk://a:2181,b:2181/path`, the form that Mesos and Marathon take."""
    return "zk://" + ",".join(f"{address}:{Port.ZOOKEEPER_CLIENT}" for address in addresses) + path


class ZooKeeperMember(msgspec.Struct, frozen=True):
    id: int
    address: str


class NodeDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """IMDS user data: all that a machine is told. JSON, versioned, never a shell script."""

    version: int
    cluster: str
    role: Role
    region: str
    engine: Literal["embedded", "mesos"]
    zookeeper: tuple[ZooKeeperMember, ...]
    recipe: str  # digest of the image this machine must have been booted from
    pool: str = ""  # agents only
    attributes: dict[str, str] = {}  # agents only: the pool's attributes; the node adds instance_id, instance_type, zone, pool, lifecycle


def node_document(spec: ClusterSpec, role: Role, recipe: str, pool: str = "") -> str:
    """The user data of a machine as JSON text.

    Args:
        recipe: the digest of the image recipe.
        pool: the agent pool's name; empty for masters.

    """
    attributes = next((dict(p.attributes) for p in spec.agents if p.name == pool), {}) if role == "agent" else {}
    members = tuple(ZooKeeperMember(index + 1, str(address)) for index, address in enumerate(master_addresses(spec)))
    document = NodeDocument(
        version=NODE_DOCUMENT_VERSION,
        cluster=spec.name,
        role=role,
        region=spec.region,
        engine=spec.engine,
        zookeeper=members,
        recipe=recipe,
        pool=pool,
        attributes=attributes,
    )
    return msgspec.json.encode(document).decode()


def parse_node_document(text: str | bytes) -> NodeDocument:
    """Read user data back.

    Raises:
        msgspec.ValidationError: it is not a node document.
        ValueError: its version is not known to this program.

    """
    document = msgspec.json.decode(text, type=NodeDocument)
    if document.version != NODE_DOCUMENT_VERSION:
        message = f"node document version {document.version}, this image knows {NODE_DOCUMENT_VERSION}: bake and deploy again"
        raise ValueError(message)
    return document


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
        IngressRule("master", port, port, cidr, f"operators to {port}") for port in OPERATOR_PORTS for cidr in spec.network.operator_cidrs
    )
    between_members = tuple(
        IngressRule(group, 0, 65535, source, f"{source}s to {group}s") for group in ("master", "agent") for source in ("master", "agent")
    )
    return from_operators + between_members


def agent_resources(vcpus: int, mem_mib: int, disk_gib: int, gpus: int = 0) -> Resources:
    """What the engine advertises of a machine: all its cpus, its memory less what the system keeps, its disk less 5 GiB, the task ports."""
    kept_mib = max(512, mem_mib // 20)
    return Resources.of(
        cpus=vcpus,
        mem_mib=max(0, mem_mib - kept_mib),
        disk_mib=max(0, disk_gib - 5) * 1024,
        gpus=gpus,
        ports=[TASK_PORTS],
    )
