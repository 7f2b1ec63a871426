"""Port to the machines of a cluster: listing, launching and terminating."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from mesaform.common.resources import Resources

MAX_MACHINES = 10_000
"""In one request."""

Capacity = Literal["on-demand", "spot"]
MachineState = Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Machine:
    """An EC2 instance of the cluster.

    `launched_at` is in seconds since the epoch. `tags` are all tags. `ended_by` is EC2's code for
    the reason of the end (`Client.InstanceInitiatedShutdown`); empty while the machine runs.
    """

    instance_id: str
    instance_type: str
    zone: str
    capacity: Capacity
    state: MachineState
    private_address: str
    public_address: str
    launched_at: float
    tags: Mapping[str, str] = field(default_factory=dict)
    ended_by: str = ""


@dataclass(frozen=True, slots=True)
class Offering:
    """An instance type in a zone with a capacity type: its price and the engine's resources."""

    instance_type: str
    zone: str
    capacity: Capacity
    usd_per_hour: Annotated[float, Meta(ge=0, le=1e6)]
    resources: Resources

    @property
    def key(self) -> str:
        """`type/zone/capacity`."""
        return f"{self.instance_type}/{self.zone}/{self.capacity}"


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Request for `count` machines of a pool, each of any of the `offerings` (cheapest first).

    All offerings have the same capacity type. `token` makes the call idempotent. `tags` are added
    to the tags of ownership.
    """

    cluster: str
    pool: str
    count: Annotated[int, Meta(ge=1, le=MAX_MACHINES)]
    offerings: Annotated[tuple[Offering, ...], Meta(min_length=1)]
    token: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """The launched machines, at most `count`, and the offerings without capacity.

    `without_capacity` holds keys of offerings, or the wider scopes of `aws.capacity_errors`.
    """

    machines: tuple[Machine, ...]
    without_capacity: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A launch template of a pool, for one architecture.

    `latest` is the newest version; `alike` are all versions from which machines are launched that
    differ in nothing but their tags. `read_at` is when EC2 said so (epoch seconds; later than any
    time if it is certain).
    """

    latest: str
    alike: frozenset[str]
    read_at: float = math.inf

    def is_outdated(self, version: str, launched_at: float) -> bool:
        """Whether a machine of a version differs from one launched now.

        A machine that is younger than this reading, or of a later version, was launched from a
        template that the reading does not know.
        """
        if not version or version in self.alike or launched_at > self.read_at:
            return False
        is_later = version.isdecimal() and self.latest.isdecimal()
        return not (is_later and int(version) > int(self.latest))


class Fleet(Protocol):
    """The machines of clusters in one region."""

    def machines(self, cluster: str) -> list[Machine]:
        """List every machine tagged with the cluster, terminated ones while EC2 lists them.

        May lag a launch by seconds.

        Raises:
            Retryable: throttled, a fault of the service, or no answer.
            Permanent: a right is missing.

        """
        ...

    def launch(self, request: LaunchRequest) -> LaunchResult:
        """Launch machines (CreateFleet `instant`).

        Idempotent by token: the same token and request give the same machines. A lack of capacity
        is not an error; see `LaunchResult`.

        Raises:
            Retryable: throttled, a fault of the service, or no answer. Machines may have been
                launched, so repeat the call with the same token.
            Permanent: the request is wrong or a right is missing; nothing was launched.

        """
        ...

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        """Terminate machines that the autoscaler of this cluster launched.

        Idempotent: ids that are unknown or already terminated are no error.

        Raises:
            NotOwned: an id is a master, Terraform's or another cluster's; nothing was terminated.
            Retryable: as for `machines`.

        """
        ...

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int = 40
    ) -> list[Offering]:
        """List the prices of types in zones, on demand and as spot, with disks of `disk_gib`.

        Prices are at most half a day old while AWS answers, else the last known ones. Types that
        can boot no image (`aws.boot_support`) are left out, and capacity types in which a type is
        not sold.

        Raises:
            NotFound: the region has no such type; the message names the most similar one.

        """
        ...

    def templates(self, cluster: str, needed: Collection[str] = ()) -> Mapping[str, Template]:
        """Return the launch templates by `topology.names.template_key`.

        They are up to 60 s old, and up to 5 s while one of the keys in `needed` is missing.
        A machine's own version is in its tag `aws:ec2launchtemplate:version`.
        """
        ...
