"""What the checks examine: the cluster file, the caller, and what the operator's machine knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mesaform.common.architecture import Architecture
from mesaform.topology.iam import partition

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

HOME_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
"""By partition: a region that is enabled in every account."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Account and region in which this folder's cluster lives (`deployment.json`)."""

    account_id: str
    region: str


@dataclass(frozen=True, slots=True)
class Subject:
    """The cluster, and the place where it is or will be.

    Attributes:
        spec: the cluster file.
        images: ids of this recipe's images by architecture, as far as they are baked.
        pin: where this folder's cluster lives; None before the first `mesaform up`.
        builders: the instance types of the machines that bake the images that are missing.
        has_mesos: whether the recipe of the images names a source of Apache Mesos.
        endpoint_url: the address that calls go to instead of AWS; empty for AWS itself.
        lacks: what the operator's machine lacks, each with its remedy; None if nobody looked.

    """

    spec: ClusterSpec
    images: Mapping[Architecture, str] = field(default_factory=dict)
    pin: Pin | None = None
    builders: tuple[str, ...] = ()
    has_mesos: bool = False
    endpoint_url: str = ""
    lacks: tuple[tuple[str, str], ...] | None = None

    @property
    def region(self) -> str:
        """The region of the cluster."""
        return self.spec.region

    @property
    def home_region(self) -> str:
        """A region that every account of the partition can use."""
        return HOME_REGIONS[partition(self.region)]

    @property
    def has_spot(self) -> bool:
        """Whether the autoscaler may buy spot machines."""
        return any(pool.spot_share > 0 for pool in self.spec.agents)

    @property
    def types(self) -> tuple[str, ...]:
        """All instance types that the cluster file names, without repetition."""
        pools = [name for pool in self.spec.agents for name in pool.types]
        return tuple(dict.fromkeys([self.spec.masters.type, *pools]))


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credentials are in use."""

    account_id: str
    arn: str


@dataclass(frozen=True, slots=True)
class Examination:
    """A subject with its caller: what every check after the first one gets."""

    subject: Subject
    caller: Caller

    @property
    def spec(self) -> ClusterSpec:
        """The cluster file."""
        return self.subject.spec

    @property
    def region(self) -> str:
        """The region of the cluster."""
        return self.subject.region
