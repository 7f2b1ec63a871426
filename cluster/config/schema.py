"""cluster.yaml as one model: the only place where a person's text enters.

`load` turns a file into a `ClusterSpec` or raises `BadInput` with a line for each mistake: file, line, field, nearest valid name.
What depends on the target (`BY_TARGET`) is settled here, so that a spec in hand has a value for everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from mesaform.common.errors import BadInput
from mesaform.config import calendar, yaml_text
from mesaform.config import network as network_checks

PARAMETER_BYTES = 8192  # what an SSM parameter holds; the autoscaler reads the spec from one
LEASE_LEAST_S = 60.0  # a change of leader takes up to about 20 s
LEASE_PASSES = 5
RESERVED_ATTRIBUTES = frozenset({"instance_id", "instance_type", "zone", "pool", "lifecycle"})
USUAL_TYPES = (
    "m5.large",
    "m5.xlarge",
    "m5.2xlarge",
    "c5.large",
    "c5.xlarge",
    "r5.large",
    "r5.xlarge",
)

BY_TARGET: dict[str, dict[str, dict[str, Any]]] = {
    "local": {
        "": {"engine": "embedded"},
        "network": {"cidr": "127.42.0.0/16", "operator_cidrs": ("127.0.0.0/8",)},
        "autoscaler": {"idle_after_s": 20.0, "boot_timeout_s": 90.0},
    },
    "aws": {
        "": {"engine": "mesos"},
        "network": {"cidr": "10.42.0.0/16"},
        "autoscaler": {"idle_after_s": 300.0, "boot_timeout_s": 600.0},
    },
}
"""Defaults that depend on the target: section ("" is the top) -> field -> value."""


def _matching(pattern: str, what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError(
                "text", "{given} is not {what}", {"given": repr(value), "what": what}
            )
        return value

    return AfterValidator(check)


def _network(value: str) -> str:
    try:
        IPv4Network(value)
    except ValueError as error:
        raise PydanticCustomError(
            "text", "{why}; a network looks like 10.42.0.0/16", {"why": str(error)}
        ) from None
    if "/" not in value:
        raise PydanticCustomError(
            "text", "{given} has no prefix length; one address is {given}/32", {"given": value}
        )
    return value


Name = Annotated[
    str,
    _matching(
        r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?",
        "a name: lower-case letters, digits and hyphens, at most 24, a letter first, no hyphen last",
    ),
]
InstanceType = Annotated[
    str, _matching(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "an instance type, such as m5.large")
]
Region = Annotated[str, _matching(r"[a-z]{2}(-[a-z]+)+-\d", "a region, such as us-east-1")]
AttributeName = Annotated[
    str,
    _matching(
        r"[A-Za-z_][A-Za-z0-9_./-]*",
        "an attribute's name: letters, digits, '_', '.', '/' and '-', a letter first",
    ),
]
AttributeValue = Annotated[
    str,
    _matching(r"[A-Za-z0-9_./-]+", "an attribute's value: letters, digits, '_', '.', '/' and '-'"),
]
Cidr = Annotated[str, AfterValidator(_network)]
Whole = Annotated[int, Strict()]  # strict: neither "2" nor true is a number
Number = Annotated[float, Strict()]
Switch = Annotated[bool, Strict()]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(Model):
    """The VPC. Defaults that depend on the target are in `BY_TARGET`."""

    cidr: Cidr = Field(
        default="127.42.0.0/16",
        description="Addresses of all machines, /16 to /25; inside 127.0.0.0/8 on the local target.",
    )
    zones: tuple[str, ...] = Field(
        default=(), description="Exactly three; empty means the region's a, b and c."
    )
    operator_cidrs: tuple[Cidr, ...] = Field(
        default=(),
        description="From where 5050, 8080, 4400 and 9550 of the masters may be reached.",
    )
    open_to_the_world: Switch = Field(
        default=False,
        description="Allow operator_cidrs that hold more than 2^24 addresses, such as 0.0.0.0/0.",
    )


class Masters(Model):
    """The machines that run ZooKeeper, the engine's masters, services and the autoscaler."""

    count: Literal[3] = Field(
        default=3, description="Three: one a zone, so that a zone's loss leaves a quorum."
    )
    type: InstanceType = Field(default="t3.medium", description="Instance type of the masters.")
    disk_gib: Whole = Field(
        default=20, ge=8, le=16384, description="Size of a master's disk in GiB."
    )


class Pool(Model):
    """One pool of agents. Terraform keeps `count` machines; the autoscaler moves between `min` and `max`."""

    name: Name = Field(default="default", description="The pool's name.")
    count: Whole = Field(default=2, ge=0, le=500, description="Machines that Terraform keeps.")
    types: tuple[InstanceType, ...] = Field(
        default=USUAL_TYPES,
        min_length=1,
        description="What the autoscaler may buy; Terraform's machines are of the first.",
    )
    spot_share: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The part of autoscaled machines bought as spot, 0 to 1.",
    )
    min: Whole | None = Field(
        default=None, ge=0, description="At least `count`, which is also the default."
    )
    max: Whole = Field(
        default=20,
        ge=0,
        le=1000,
        description="The most machines of this pool, Terraform's included.",
    )
    attributes: dict[AttributeName, AttributeValue] = Field(
        default_factory=dict, description="What the agents say of themselves in offers."
    )
    disk_gib: Whole = Field(
        default=40, ge=8, le=16384, description="Size of an agent's disk in GiB."
    )

    @property
    def floor(self) -> int:
        """The least number of machines in this pool."""
        return self.count if self.min is None else self.min

    @field_validator("types")
    @classmethod
    def _types_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := _repeated(value):
            raise PydanticCustomError(
                "text", "{names} named more than once", {"names": ", ".join(repeated)}
            )
        return value

    @field_validator("attributes")
    @classmethod
    def _attributes_are_free(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted(RESERVED_ATTRIBUTES & set(value)):
            raise PydanticCustomError(
                "text", "{names} is set by the machine itself", {"names": ", ".join(taken)}
            )
        return value

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.floor < self.count:
            _fail(
                [
                    (
                        "min",
                        f"{self.min} is below count ({self.count}): Terraform keeps count machines, so lower count as well",
                    )
                ]
            )
        if self.max < self.floor:
            _fail(
                [
                    (
                        "max",
                        f"{self.max} is below {'count' if self.min is None else 'min'} ({self.floor})",
                    )
                ]
            )
        return self


class Slots(Model):
    """Spare slots of one shape."""

    count: Whole = Field(ge=1, le=1000, description="How many.")
    cpus: Number = Field(gt=0, description="Cpus of each.")
    mem_mib: Number = Field(gt=0, description="Memory of each in MiB.")
    pool: Name | None = Field(default=None, description="In which pool; none means any.")


class Window(Model):
    """A part of the week, in UTC, with a disruption budget of its own."""

    days: Annotated[str, AfterValidator(calendar.checked_days)] = Field(
        default="mon-sun", description="Days on which it begins: mon-fri, or sat,sun."
    )
    hours: Annotated[str, AfterValidator(calendar.checked_hours)] = Field(
        default="00:00-24:00", description="From when to when, UTC; 22:00-06:00 goes past midnight."
    )
    max_agents_percent: Number = Field(
        ge=0, le=100, description="The share of agents disturbed at a time within it."
    )


class Expected(Model):
    """Work that is known to come in a part of the week, in UTC."""

    days: Annotated[str, AfterValidator(calendar.checked_days)] = Field(
        default="mon-sun", description="Days on which it begins: mon-fri, or sat,sun."
    )
    hours: Annotated[str, AfterValidator(calendar.checked_hours)] = Field(
        default="00:00-24:00", description="From when to when, UTC; 22:00-06:00 goes past midnight."
    )
    count: Whole = Field(
        ge=1,
        le=10_000,
        description="How many pieces will be in use, those that run already included.",
    )
    cpus: Number = Field(gt=0, description="Cpus of each.")
    mem_mib: Number = Field(gt=0, description="Memory of each in MiB.")
    pool: Name | None = Field(default=None, description="In which pool; none means any.")


class Profile(Model):
    """Buying ahead by what past weeks were like. What ran is learned whether or not this is enabled."""

    enabled: Switch = Field(
        default=False, description="Whether machines are bought ahead of what past weeks needed."
    )
    quantile: Number = Field(
        default=0.8,
        gt=0,
        le=1,
        description="The share of past weeks that a forecast covers: 0.8 is exceeded one week in five.",
    )
    half_life_weeks: Number = Field(
        default=4.0, gt=0, description="A week this long ago weighs half as much as the last one."
    )


class Consolidation(Model):
    """When agents with running tasks may be emptied to save money."""

    enabled: Switch = Field(
        default=False, description="Whether agents with running tasks may be emptied at all."
    )
    min_saving_usd_per_hour: Number = Field(
        default=0.01, ge=0, description="A change that saves less, in USD per hour, is not made."
    )
    min_saving_percent: Number = Field(
        default=10.0, ge=0, le=100, description="Nor one that saves less of what it replaces."
    )
    payback_s: Number = Field(
        default=1800.0,
        gt=0,
        description="Savings must repay what the change costs within this; younger machines are left alone.",
    )
    usd_per_task: Number = Field(
        default=0.25, ge=0, description="What moving a task counts as, in USD."
    )
    usd_per_task_hour: Number = Field(
        default=0.001, ge=0, description="More for each hour that the task has run, in USD."
    )
    underused_percent: Number = Field(
        default=50.0,
        ge=0,
        le=100,
        description="An agent with less than this of cpus and memory in use...",
    )
    underused_after_s: Number = Field(
        default=600.0, ge=0, description="...for this long is emptied if its tasks fit elsewhere."
    )
    max_agents_percent: Number = Field(
        default=10.0,
        ge=0,
        le=100,
        description="The share of agents disturbed at a time; one is allowed unless it is 0.",
    )
    windows: tuple[Window, ...] = Field(
        default=(), description="Parts of the week with another share; the first that fits counts."
    )
    frameworks: tuple[str, ...] = Field(
        default=("marathon",),
        description="Frameworks that start their tasks again elsewhere; tasks of others are protected.",
    )


class Interruption(Model):
    """What announced ends of machines lead to. A spot interruption is always acted on."""

    on_rebalance: Literal["ignore", "replace"] = Field(
        default="ignore",
        description="When AWS says that a spot machine is at risk: ignore it, or replace the machine if it is older than payback_s.",
    )
    retire_ahead_s: Number = Field(
        default=86400.0,
        ge=0,
        description="How long before a scheduled stop, restart or retirement a machine may be emptied.",
    )


class Drift(Model):
    """When agents that the autoscaler bought make room for new ones. As many at a time as `consolidation` may disturb."""

    replace: Switch = Field(
        default=False,
        description="Whether agents from an older launch template, or registered wrong, are replaced.",
    )
    max_age_hours: Number | None = Field(
        default=None, ge=1, description="Agents that run longer than this many hours are replaced."
    )


class Autoscaler(Model):
    """How the autoscaler behaves. Durations are in seconds."""

    enabled: Switch = Field(
        default=True, description="Whether machines are bought and given back by need."
    )
    interval_s: Number = Field(
        default=2.0, gt=0, le=300, description="Time between passes; events wake it earlier."
    )
    idle_after_s: Number = Field(
        default=300.0, ge=0, description="How long an agent is empty before it may go."
    )
    boot_timeout_s: Number = Field(
        default=600.0, gt=0, description="A machine that has not registered by then is terminated."
    )
    drain_grace_s: Number = Field(
        default=60.0, ge=0, description="The most a task is given to stop when its agent drains."
    )
    headroom_percent: Number = Field(
        default=0.0, ge=0, le=100, description="Spare capacity kept above what is used."
    )
    headroom_slots: tuple[Slots, ...] = Field(
        default=(),
        max_length=20,
        description="Spare slots of a shape, such as [{count: 2, cpus: 4, mem_mib: 8192}].",
    )
    calendar: tuple[Expected, ...] = Field(
        default=(),
        max_length=20,
        description="Work known to come: [{days: mon-fri, hours: '08:00-18:00', count: 20, cpus: 1, mem_mib: 2048}].",
    )
    profile: Profile = Profile()
    ahead_margin_s: Number = Field(
        default=60.0,
        ge=0,
        description="Room for the calendar and the profile is there this much before it is needed.",
    )
    probe_framework: Switch = Field(
        default=True,
        description="Whether a framework of the autoscaler's own may ask for offers to see if others run dry.",
    )
    drain_timeout_s: Number = Field(
        default=600.0, gt=0, description="How long a drain with running tasks may take."
    )
    drain_timeout_kills: Switch = Field(
        default=False,
        description="Whether tasks that outlast a drain are killed; if not, the drain is given up.",
    )
    lease_s: Number = Field(
        default=1800.0,
        ge=0,
        le=7 * 86400,
        description="Agents bought by an autoscaler that is silent for this long end themselves when idle; 0: never.",
    )
    consolidation: Consolidation = Consolidation()
    interruption: Interruption = Interruption()
    drift: Drift = Drift()

    @model_validator(mode="after")
    def _lease_outlasts_passes(self) -> Self:
        least_s = max(LEASE_LEAST_S, LEASE_PASSES * self.interval_s)
        if 0 < self.lease_s < least_s:
            why = f"{self.lease_s:g} is less than {least_s:g}, which a change of leader or {LEASE_PASSES} passes may take; 0 turns it off"
            _fail([("lease_s", why)])
        return self


class Cost(Model):
    """Money."""

    max_usd_per_hour: Number | None = Field(
        default=None, gt=0, description="The autoscaler buys nothing that would pass this."
    )


class ClusterSpec(Model):
    """A whole cluster."""

    version: Literal[1] = Field(default=1, description="The version of this format.")
    name: Name = Field(description="The cluster's name: part of every name and tag on AWS.")
    target: Literal["local", "aws"] = Field(
        default="local", description="local: machines are processes of this host; aws: EC2."
    )
    region: Region = Field(default="us-east-1", description="The AWS region.")
    engine: Literal["embedded", "mesos"] = Field(
        default="embedded",
        description="embedded: ours, with nothing to install; mesos: Apache Mesos.",
    )
    network: Network = Network()
    masters: Masters = Masters()
    agents: tuple[Pool, ...] = Field(default=(Pool(),), min_length=1)
    autoscaler: Autoscaler = Autoscaler()
    cost: Cost = Cost()

    @property
    def zones(self) -> tuple[str, ...]:
        """The availability zones, one a master."""
        return self.network.zones or tuple(self.region + letter for letter in "abc")

    @model_validator(mode="before")
    @classmethod
    def _settle_defaults(cls, data: Any) -> Any:
        return with_defaults(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _fail(_problems(self))
        return self


def with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a spec with what depends on its target filled in, where it is not given. A section left empty has its defaults."""
    filled = {
        key: value
        for key, value in data.items()
        if value is not None or key not in {"network", "masters", "autoscaler", "cost"}
    }
    target = filled.get("target", "local")
    for section, defaults in BY_TARGET.get(target if isinstance(target, str) else "", {}).items():
        if not section:
            filled = {**defaults, **filled}
            continue
        given = filled.get(section, {})
        if isinstance(given, Model):
            given = given.model_dump(include=given.model_fields_set)
        filled[section] = {**defaults, **given} if isinstance(given, dict) else given
    return filled


def _problems(spec: ClusterSpec) -> list[tuple[Any, ...]]:
    local, network = spec.target == "local", spec.network
    machines = spec.masters.count + sum(pool.max for pool in spec.agents)
    found: list[tuple[Any, ...]] = [
        ("network", "cidr", what)
        for what in network_checks.vpc_problems(
            IPv4Network(network.cidr), local=local, machines=machines
        )
    ]
    found += [
        ("network", "zones", what)
        for what in network_checks.zone_problems(network.zones, spec.region)
    ]
    found += [
        ("network", "operator_cidrs", what)
        for what in network_checks.operator_problems(
            network.operator_cidrs, local=local, open_to_the_world=network.open_to_the_world
        )
    ]
    names = [pool.name for pool in spec.agents]
    found += [
        ("autoscaler", name, index, "pool", f"there is no pool {pool}; pools: {', '.join(names)}")
        for name, pools in (
            ("headroom_slots", [slot.pool for slot in spec.autoscaler.headroom_slots]),
            ("calendar", [entry.pool for entry in spec.autoscaler.calendar]),
        )
        for index, pool in enumerate(pools)
        if pool is not None and pool not in names
    ]
    found += [
        ("agents", index, "name", f"pool {name} is defined more than once")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if local and spec.engine == "mesos":
        found.append(("engine", "mesos runs on aws only: the local target has the embedded engine"))
    if (size := len(spec.model_dump_json().encode())) > PARAMETER_BYTES:
        found.append(
            (
                "agents",
                f"the spec takes {size} bytes as JSON, the autoscaler can be told {PARAMETER_BYTES}: fewer pools, types or attributes",
            )
        )
    return found


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _fail(problems: Sequence[tuple[Any, ...]]) -> None:
    """Raise if there are problems, each a field's path and, last, the complaint; pydantic adds where the model itself stands."""
    if problems:
        raise ValidationError.from_exception_data(
            "spec",
            [
                InitErrorDetails(
                    type=PydanticCustomError("spec", "{what}", {"what": what}),
                    loc=tuple(path),
                    input=None,
                )
                for *path, what in problems
            ],
        )


def load(path: Path) -> ClusterSpec:
    """Read and check a cluster file.

    Raises:
        BadInput: it is missing, not YAML, or not a cluster; the message has a line for each mistake.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            error.strerror or str(error), where=str(path), fix="write one: mesaform init"
        ) from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)
        ) from None
    return parse(text, str(path))


def parse(text: str, file: str = "cluster.yaml") -> ClusterSpec:
    """`load` for text in hand; `file` is what the complaints call it."""
    try:
        data, lines = yaml_text.parse(text)
    except yaml_text.BrokenYaml as error:
        raise BadInput(yaml_text.render(error.problems, file)) from None
    if not isinstance(data, dict):
        raise BadInput(
            f"{file}:1: must be a mapping of fields to values, starting with a name",
            fix="write one: mesaform init",
        )
    try:
        return ClusterSpec.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise BadInput(
            yaml_text.render(yaml_text.explain(list(details), lines, ClusterSpec), file)
        ) from None
