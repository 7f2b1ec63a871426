"""cluster.yaml as one model: the only place where a person's text enters.

`load` turns a file into a `ClusterSpec` or raises `BadInput` that names the line, the field and the nearest valid name.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cluster.errors import BadInput

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,23}$")]
InstanceType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")]
Cidr = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+\.\d+/\d+$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(Model):
    """The VPC. On the local target every address must be one that Linux can bind: inside 127.0.0.0/8."""

    cidr: Cidr = "127.42.0.0/16"
    zones: tuple[str, ...] = Field(default=(), description="Exactly three; empty means the region's a, b and c.")
    operator_cidrs: tuple[Cidr, ...] = Field(default=("127.0.0.0/8",), min_length=1)

    @field_validator("cidr", "operator_cidrs")
    @classmethod
    def _is_network(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for cidr in (value,) if isinstance(value, str) else value:
            try:
                IPv4Network(cidr)
            except ValueError as error:
                message = f"{cidr!r} is not a network: {error}"
                raise ValueError(message) from None
        return value


class Masters(Model):
    """The machines that run ZooKeeper, the engine's masters, services and the autoscaler."""

    count: Literal[3] = Field(default=3, description="Three: one a zone, so that a zone's loss leaves a quorum.")
    type: InstanceType = "t3.medium"
    disk_gib: int = Field(default=20, ge=8, le=16384)


class Pool(Model):
    """One pool of agents. Terraform keeps `count` machines; the autoscaler moves between `min` and `max`."""

    name: Name
    count: int = Field(default=2, ge=0, le=500)
    types: tuple[InstanceType, ...] = Field(min_length=1, description="What the autoscaler may buy; Terraform's machines are of the first.")
    spot_share: float = Field(default=0.0, ge=0, le=1, description="The part of autoscaled machines bought as spot, 0 to 1.")
    min: int | None = Field(default=None, ge=0, description="At least `count`, which is also the default.")
    max: int = Field(default=20, ge=0, le=1000)
    attributes: dict[str, str] = Field(default_factory=dict)
    disk_gib: int = Field(default=40, ge=8, le=16384)

    @property
    def floor(self) -> int:
        """The least number of machines in this pool."""
        return self.count if self.min is None else self.min

    @field_validator("types")
    @classmethod
    def _types_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := sorted({item for item in value if value.count(item) > 1}):
            message = f"{', '.join(repeated)} named more than once"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.floor < self.count:
            message = f"min ({self.min}) is below count ({self.count}): Terraform keeps count machines, so lower count as well"
            raise ValueError(message)
        if self.max < self.floor:
            message = f"max ({self.max}) is below min ({self.floor})"
            raise ValueError(message)
        return self


class Autoscaler(Model):
    """How the autoscaler behaves. Durations are in seconds."""

    enabled: bool = True
    interval_s: float = Field(default=2.0, gt=0, le=300, description="Time between passes; events wake it earlier.")
    idle_after_s: float = Field(default=300.0, ge=0, description="How long an agent is empty before it may go.")
    boot_timeout_s: float = Field(default=600.0, gt=0, description="A machine that has not registered by then is terminated.")
    drain_grace_s: float = Field(default=60.0, ge=0, description="The most a task is given to stop when its agent drains.")
    headroom_percent: float = Field(default=0.0, ge=0, le=100, description="Spare capacity kept above what is used.")


class Cost(Model):
    """Money."""

    max_usd_per_hour: float | None = Field(default=None, gt=0, description="The autoscaler buys nothing that would pass this.")


class ClusterSpec(Model):
    """A whole cluster."""

    version: Literal[1] = 1
    name: Name
    target: Literal["local", "aws"] = "local"
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    engine: Literal["embedded", "mesos"] = "embedded"
    network: Network = Network()
    masters: Masters = Masters()
    agents: tuple[Pool, ...] = Field(min_length=1)
    autoscaler: Autoscaler = Autoscaler()
    cost: Cost = Cost()

    @property
    def zones(self) -> tuple[str, ...]:
        """The availability zones, one a master."""
        return self.network.zones or tuple(self.region + letter for letter in "abc")

    @field_validator("agents")
    @classmethod
    def _pools_differ(cls, value: tuple[Pool, ...]) -> tuple[Pool, ...]:
        names = [pool.name for pool in value]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            message = f"pool {', '.join(repeated)} is defined more than once"
            raise ValueError(message)
        return value


def load(path: Path) -> ClusterSpec:
    """Read and check a cluster file.

    Raises:
        BadInput: it is missing, not YAML, or not a cluster; the message has a line for each mistake.

    """
    try:
        text = path.read_text()
    except OSError as error:
        raise BadInput(error.strerror or str(error), where=str(path), fix="write one: mesaform init") from None
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"not YAML: {error}", where=str(path)) from None
    try:
        return ClusterSpec.model_validate(data)
    except ValidationError as error:
        raise BadInput(str(error), where=str(path)) from None
