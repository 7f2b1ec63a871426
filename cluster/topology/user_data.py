"""Documents that machines read and write: user data, lease, notices and shutdown reports.

Field names and values are wire formats between machines of different images.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

NODE_DOCUMENT_VERSION = 1

PROTECT = "mesaform/protect"
"""Attribute of a pool or label of an app. `true`: the autoscaler removes none of its machines."""

NOTICES_PATH = "/notices"
"""Path of the autoscaler's HTTP port where agents post `MachineNotice`s."""

SHUTDOWN_REPORTS_PATH = "/shutdown-reports"
"""Path of the autoscaler's HTTP port where agents post their `ShutdownReport`."""

CERTIFICATES_PATH = "/certificates"
"""Path of the autoscaler's HTTP port where agents post their `CertificateRequest`."""

AUTHORITY_VARIABLE = "MESAFORM_TLS_AUTHORITY"
"""Of masters: the file with the copy of the CA, its key included."""

DEFAULT_DISK_GIB = 40
DEFAULT_TASK_USER = "nobody"
"""Every Debian has it, and it owns nothing."""

Role = Literal["master", "agent"]
Engine = Literal["embedded", "mesos"]
ROLES: tuple[Role, ...] = ("master", "agent")


class ZooKeeperMember(msgspec.Struct, frozen=True):
    """A member of the ZooKeeper ensemble: its `myid` and its private address."""

    id: int
    address: str


class LeaseTerms(msgspec.Struct, frozen=True):
    """Conditions under which an agent of the autoscaler terminates itself.

    `lease_s` is how long the autoscaler may be silent (0: without limit); `empty_s` is how long the
    agent must have been without tasks.
    """

    lease_s: float
    empty_s: float


class DataVolume(msgspec.Struct, frozen=True):
    """The EBS volume of a master's data. `deployment` is the deployment that owns it."""

    volume_id: str
    deployment: str


MAX_EPOCH_S = 253402300799
"""The last second of the year 9999, the last that dates can show."""
EpochS = Annotated[float, msgspec.Meta(ge=0, le=MAX_EPOCH_S)]
LongSeconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_EPOCH_S)]


class Lease(msgspec.Struct, frozen=True):
    """The agents' lease: the autoscaler's leader rewrites it while it works.

    An agent counts any change as a renewal. `at` (epoch s) and `holder` are for operators.
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
    """Why a machine terminated itself. `at` is its own clock (epoch s).

    `lease_s` is the lease's length, `silent_s` for how long nobody renewed it, `empty_s` for how
    long the machine had no task.
    """

    instance_id: str
    at: EpochS
    lease_s: LongSeconds
    silent_s: LongSeconds
    empty_s: LongSeconds


class MachineNotice(msgspec.Struct, frozen=True):
    """Announcement of its own end that a machine read from its metadata, for the autoscaler.

    Times are epoch seconds; `ends_at` is 0 if the metadata has no time.
    """

    instance_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    kind: Literal["interruption", "scheduled", "rebalance"]
    at: EpochS
    ends_at: EpochS
    what: Annotated[str, msgspec.Meta(max_length=200)]


class CertificateRequest(msgspec.Struct, frozen=True):
    """A machine's request for a certificate: PKCS #10, PEM."""

    request: Annotated[str, msgspec.Meta(max_length=4096)]


class IssuedCertificate(msgspec.Struct, frozen=True):
    """The answer: the certificate, and the certificates of all CAs of the cluster, PEM."""

    certificate: Annotated[str, msgspec.Meta(max_length=8192)]
    authorities: Annotated[str, msgspec.Meta(max_length=8192)]


class TlsTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """TLS of a machine's ports.

    `authorities` are the certificates of the cluster's CA, PEM. `parameter` is the name of the CA
    with its key in SSM; masters have it and agents do not.
    """

    authorities: str
    parameter: str = ""


class AccessTerms(msgspec.Struct, frozen=True):
    """Where masters find the access document, and who needs a credential.

    `parameter` is the name in SSM.
    """

    parameter: str
    requires_token: bool = False
    authenticates_frameworks: bool = False


class NodeDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """User data of an instance as JSON: the whole configuration of a machine.

    Attributes:
        recipe: the digest of the image from which the machine must have booted.
        pool: the agent's pool; empty for masters.
        disk_gib: the size of an agent's disk (`capacity.agent_resources`).
        has_burst: whether an agent of a T type offers all vCPUs (`burstable.offered_vcpus`).
        attributes: the pool's attributes. The node adds `instance_id`, `instance_type`, `zone`,
            `pool` and `lifecycle`.
        data_volume: of masters: the volume that outlives the machine. None: an older deployment,
            whose data are on the machine's own disk.
        host_names: names under which the machine's HTTP ports may be called.
        jsonp: whether they serve JSONP.
        standbys: what standbys do with requests for the leader (`mesaform.http.Standbys`).
        lease: of agents that the autoscaler launched: the terms until its leader publishes others.
        secret: of masters: the cluster's secret, from which ZooKeeper's and the frameworks' are
            derived. Agents get none. Empty: an older deployment, without credentials.
        agent_secret: of agents of Apache Mesos: what proves them to masters.
        access: of masters: None where no caller needs a credential.
        task_user: the user of tasks that name none.
        allow_root_tasks: whether tasks may run as root.
        placement: of masters: how services choose among agents (`mesaform.placement.preference`).
        session_manager: whether the agent of Session Manager runs.
        tls: None where the ports speak plain HTTP.

    """

    version: int
    cluster: str
    role: Role
    region: str
    engine: Engine
    zookeeper: tuple[ZooKeeperMember, ...]
    recipe: str
    pool: str = ""
    disk_gib: int = DEFAULT_DISK_GIB
    attributes: dict[str, str] = {}
    lease: LeaseTerms | None = None
    secret: str = ""
    task_user: str = DEFAULT_TASK_USER
    allow_root_tasks: bool = False
    host_names: tuple[str, ...] = ()
    jsonp: bool = False
    standbys: Literal["automatic", "redirect", "proxy"] = "automatic"
    data_volume: DataVolume | None = None
    session_manager: bool = False
    access: AccessTerms | None = None
    has_burst: bool = False
    tls: TlsTerms | None = None
    placement: Literal["pack", "spread"] = "spread"
    agent_secret: str = ""


def parse_node_document(text: str | bytes) -> NodeDocument:
    """Parse user data.

    Raises:
        msgspec.ValidationError: it is not a node document.
        ValueError: this program does not know its version.

    """
    document = msgspec.json.decode(text, type=NodeDocument)
    if document.version != NODE_DOCUMENT_VERSION:
        raise ValueError(
            f"node document version {document.version}, this image knows "
            f"{NODE_DOCUMENT_VERSION}: bake and deploy again"
        )
    return document
