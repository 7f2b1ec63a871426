"""Messages between endpoint and hypervisor, below `/_mesaform/` of the endpoint's address.

The endpoint owns the state of EC2, the hypervisor what runs. Neither keeps the other's state longer
than one answer.
"""

from __future__ import annotations

import msgspec

PREFIX = "/_mesaform"


class Notice(msgspec.Struct, frozen=True):
    """An interruption notice. `at` is the time of the action, in seconds since the epoch."""

    action: str
    at: float


class Event(msgspec.Struct, frozen=True):
    """A scheduled event of an instance.

    `code` is DescribeInstanceStatus's; `at` is when it happens, in seconds since the epoch.
    """

    id: str
    code: str
    at: float


class IngressRule(msgspec.Struct, frozen=True):
    """An inbound rule of a security group. `protocol` is EC2's: a name, a number, or -1 for all.

    Ports are None where the protocol has none. Sources are networks and ids of groups.
    """

    protocol: str
    first_port: int | None
    last_port: int | None
    cidrs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class SecurityGroup(msgspec.Struct, frozen=True):
    """A security group that instances have."""

    id: str
    rules: tuple[IngressRule, ...]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that is not terminated, with what its boot and its metadata service need.

    Attributes:
        boots: how often EC2 booted it; a process tree of a lower number is to be replaced.
        hard: it is killed without SIGTERM, because its zone is out.
        launched_at: in seconds since the epoch.
        user_data: base64.
        lifecycle: `on-demand` or `spot`.
        shutdown_behavior: `stop` or `terminate`: the effect of a shutdown from inside.
        volumes: the ids of attached volumes, without the root volume.
        vpc_id, vpc_cidr: the VPC of the first interface; empty without one.
        groups: the ids of its security groups.
        hop_limit: how many hops an answer of the metadata service may take.
        rebalance_at: when a rebalance was recommended, in seconds since the epoch; 0 if it was not.

    """

    instance_id: str
    image_id: str
    instance_type: str
    account_id: str
    region: str
    zone: str
    address: str
    public_address: str
    state: str
    boots: int
    hard: bool
    launched_at: float
    vcpus: int
    mem_mib: int
    user_data: str
    profile_arn: str
    profile_id: str
    lifecycle: str
    shutdown_behavior: str
    tokens_required: bool
    metadata_tags: dict[str, str]
    notice: Notice | None
    rebalance_at: float = 0.0
    events: tuple[Event, ...] = ()
    volumes: tuple[str, ...] = ()
    vpc_id: str = ""
    vpc_cidr: str = ""
    groups: tuple[str, ...] = ()
    hop_limit: int = 1


class PendingImage(msgspec.Struct, frozen=True):
    """An image to be copied from an instance."""

    image_id: str
    instance_id: str
    source_image_id: str


class World(msgspec.Struct, frozen=True):
    """The state of EC2 for the hypervisor.

    Attributes:
        version: `<endpoint process>-<number>`; the number grows with each change.
        known: the ids of all listed instances, terminated ones included.
        images: images to be copied.
        deregistered: ids of images whose folders may be removed.
        groups: the security groups of all listed instances.
        volumes: the ids of all volumes; the folder of another may be removed.
        is_complete: false while EC2's record is set aside: then what EC2 does not list may be in
            that record, and neither its processes nor its folders are removed.

    """

    version: str
    machines: tuple[Machine, ...]
    known: tuple[str, ...]
    images: tuple[PendingImage, ...]
    deregistered: tuple[str, ...]
    boot_delay_s: float
    is_complete: bool = True
    volumes: tuple[str, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()

    def is_older_than(self, other: World) -> bool:
        """Whether the same endpoint process sent `other` later."""
        session, _, sequence = self.version.partition("-")
        other_session, _, other_sequence = other.version.partition("-")
        return session == other_session and int(sequence) < int(other_sequence)


class StateReport(msgspec.Struct, frozen=True):
    """The hypervisor's report that an instance is in `state` since boot number `boots`.

    `code` and `message` become its StateReason.
    """

    state: str
    boots: int
    code: str = ""
    message: str = ""


class Credentials(msgspec.Struct, frozen=True):
    """Credentials of a role. `expires_at` is in seconds since the epoch."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: float
    role_name: str
