"""What a machine is told and what it needs to know of itself: the node document, the ports, and what an agent advertises.

`mesaform.topology.naming` offers these names too. They stand apart because everything here is light: a machine's programs import
this module and stay without pydantic.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mesaform.common.resources import Resources

NODE_DOCUMENT_VERSION = 1


class Port:
    """Listening ports, the same on every machine (each has its own address)."""

    ENGINE_MASTER = 5050
    ENGINE_AGENT = 5051
    ENGINE_LINK = (
        5052  # gRPC between the embedded engine's agents and the leading master; members only
    )
    SERVICES = 8080
    JOBS = 4400
    AUTOSCALER = 9550
    ZOOKEEPER_CLIENT = 2181
    ZOOKEEPER_PEER = 2888
    ZOOKEEPER_ELECTION = 3888


OPERATOR_PORTS = (Port.ENGINE_MASTER, Port.SERVICES, Port.JOBS, Port.AUTOSCALER)
TASK_PORTS = (31000, 32000)
PROTECT = "mesaform/protect"  # as an attribute of a pool, or a label of an app, "true": nobody removes it unasked
ZK_ENGINE_PATH = "/mesos"
ZK_SERVICES_PATH = "/marathon"
ZK_AUTOSCALER_PATH = "/mesaform/autoscaler"
ZK_LEASE = "lease"  # below the autoscaler's path: what its leader renews
ZK_SHUTDOWN_REPORTS = "shutdown-reports"
"""Below the autoscaler's path: one `ShutdownReport` per machine that terminated itself, by instance id."""

ZK_LEGACY_SHUTDOWN_REPORTS = "farewells"
"""The path that older images write to. Leaders read it as well: during an
upgrade old agents run beside new masters."""


NOTICES_PATH = "/notices"  # of the autoscaler's port: where agents tell of their own end

Role = Literal["master", "agent"]


def zk_url(addresses: tuple[str, ...] | list[str], path: str) -> str:
    """`zk://a:2181,b:2181/path`, the form that Mesos and Marathon take."""
    return "zk://" + ",".join(f"{address}:{Port.ZOOKEEPER_CLIENT}" for address in addresses) + path


class ZooKeeperMember(msgspec.Struct, frozen=True):
    id: int
    address: str


class LeaseTerms(msgspec.Struct, frozen=True):
    """How long the autoscaler may be silent (0: for ever), and how long an agent must have been empty, before it ends itself."""

    lease_s: float
    empty_s: float


class Lease(msgspec.Struct, frozen=True):
    """The agents' lease: the autoscaler's leader rewrites it while it works.

    An agent counts any change as a renewal. `at` (epoch seconds) and `holder` are for operators.
    `protected` are ids of instances that an operator protects; the field is called `spared` in
    ZooKeeper, because agents with older images read that name.
    """

    term: int
    renewal: int
    holder: str
    at: float
    terms: LeaseTerms | None = None
    protected: tuple[str, ...] = msgspec.field(default=(), name="spared")


class ShutdownReport(msgspec.Struct, frozen=True):
    """Why a machine terminated itself. `at` is its own clock in epoch seconds.

    `lease_s` is the lease's length, `silent_s` for how long nobody renewed it, `empty_s` for how
    long the machine had no task.
    """

    instance_id: str
    at: float
    lease_s: float
    silent_s: float
    empty_s: float


class MachineNotice(msgspec.Struct, frozen=True):
    """What a machine read in its own metadata about its end, as it tells the autoscaler. Times are epoch seconds; `ends_at` 0: not said."""

    instance_id: str
    kind: Literal["interruption", "scheduled", "rebalance"]
    at: float
    ends_at: float
    what: str


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
    disk_gib: int = 40  # agents only: the size of the pool's disks, for `agent_resources`
    attributes: dict[
        str, str
    ] = {}  # agents only: the pool's attributes; the node adds instance_id, instance_type, zone, pool, lifecycle
    lease: LeaseTerms | None = (
        None  # agents that the autoscaler bought, only: the terms until it tells others
    )


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
