"""The model of cluster.yaml. `parser.load` reads the file into a `ClusterSpec`.

Depends on `field_types`, `target_defaults` and `consistency`. A `ClusterSpec` has a value for every
field.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from mesaform.common.access import OPERATOR
from mesaform.common.architecture import (
    ARCH,
    REQUIRES_PIN,
    Architecture,
    architectures_of,
    boot_problem,
)
from mesaform.common.durations import parse_duration_s
from mesaform.config import calendar
from mesaform.config.consistency import spec_problems
from mesaform.config.field_types import (
    AttributeName,
    AttributeValue,
    CertificateArn,
    Cidr,
    HostName,
    IamPath,
    InstanceType,
    KeyArn,
    KmsKey,
    Model,
    Name,
    Number,
    PolicyArn,
    Principal,
    Region,
    RoleName,
    SubnetId,
    Switch,
    Ttl,
    UserName,
    Whole,
    raise_problems,
    repeated,
    text_error,
)
from mesaform.config.frameworks import FrameworkAdapter
from mesaform.config.target_defaults import with_defaults
from mesaform.placement.preference import Strategy

RESERVED_PRINCIPALS = frozenset({OPERATOR, "mesaform-services", "mesaform-autoscaler"})
"""Principals that have credentials of their own (`mesaform.node.identities`)."""

LEASE_MIN_S = 60.0
"""Shortest lease: a change of the leader takes up to about 20 s."""

LEASE_PASSES = 5
"""A lease outlasts this many passes of the autoscaler."""

RESERVED_ATTRIBUTES = frozenset(
    {"instance_id", "instance_type", "zone", "pool", "lifecycle", ARCH, REQUIRES_PIN}
)
"""Attributes that the node sets."""

USUAL_TYPES = (
    "m5.large",
    "m5.xlarge",
    "m5.2xlarge",
    "c5.large",
    "c5.xlarge",
    "r5.large",
    "r5.xlarge",
)


def _bootable(instance_type: str) -> str:
    if reason := boot_problem(instance_type):
        raise text_error(f"{instance_type} boots no image of this program: {reason}")
    return instance_type


BootableType = Annotated[InstanceType, AfterValidator(_bootable)]


class ExistingNetwork(Model):
    """Subnets of a VPC that others own: one in each of `zones`. Nothing of theirs is changed."""

    subnet_ids: tuple[SubnetId, ...] = Field(
        default=(), description="Ids of the subnets, such as subnet-0123456789abcdef0."
    )
    subnet_tags: dict[str, str] = Field(
        default_factory=dict, description="Or tags that the subnets carry, and no others there."
    )


class LoadBalancer(Model):
    """A Network Load Balancer in front of 5050, 8080 and 9550 of the masters."""

    certificate_arn: CertificateArn | None = Field(
        default=None, description="ARN of an ACM certificate; the ports speak TLS with it."
    )
    host_name: HostName | None = Field(
        default=None, description="The name on the certificate, which clients call."
    )
    internal: Switch | None = Field(
        default=None,
        description="Whether it has private addresses only; by default where masters have no way.",
    )


class Network(Model):
    """The VPC. Defaults that depend on the target are in `BY_TARGET`."""

    mode: Literal["public", "private", "existing"] = Field(
        default="public",
        description="public or private addresses of machines, or existing subnets of others.",
    )
    cidr: Cidr = Field(
        default="127.42.0.0/16",
        description="CIDR of all machines, /16 to /25; inside 127.0.0.0/8 for local processes.",
    )
    zones: tuple[str, ...] = Field(
        default=(), description="One to four; empty means the region's a, b and c."
    )
    nat: Literal["per_zone", "single", "none"] = Field(
        default="per_zone",
        description="NAT gateways of mode private: per_zone, single, or none with VPC endpoints.",
    )
    existing: ExistingNetwork | None = Field(
        default=None, description="The subnets of mode existing: subnet_ids or subnet_tags."
    )
    operator_cidrs: tuple[Cidr, ...] = Field(
        default=(),
        description="From where 5050, 8080 and 9550 of the masters may be reached.",
    )
    open_to_the_world: Switch = Field(
        default=False,
        description="Allow operator_cidrs that hold more than 2^24 addresses, such as 0.0.0.0/0.",
    )
    ipv6: Switch = Field(
        default=False, description="Whether machines also get IPv6 addresses, for tasks."
    )
    flow_logs: Literal["none", "cloudwatch", "s3"] = Field(
        default="none", description="Where the VPC's flow logs go; s3 is the account's bucket."
    )
    flow_log_days: Literal[1, 7, 30, 90, 365] = Field(
        default=30, description="Days that CloudWatch keeps flow logs: 1, 7, 30, 90 or 365."
    )
    load_balancer: LoadBalancer | None = Field(
        default=None, description="A load balancer: certificate_arn, host_name, internal."
    )
    private_dns: HostName | None = Field(
        default=None, description="A private zone with the masters' names, such as prod.internal."
    )

    @property
    def has_internet_gateway(self) -> bool:
        """Whether the cluster makes one."""
        return self.mode == "public" or (self.mode == "private" and self.nat != "none")

    @property
    def is_balancer_internal(self) -> bool:
        """Whether the load balancer has private addresses only."""
        wanted = self.load_balancer.internal if self.load_balancer else None
        return not self.has_internet_gateway if wanted is None else wanted


class DataVolume(Model):
    """The volume of each master, which outlives its machine: ZooKeeper's data and the registry."""

    size_gib: Whole = Field(
        default=10, ge=1, le=16384, description="Size in GiB; it can grow, and never shrinks."
    )
    kms_key_id: KmsKey | None = Field(
        default=None,
        description="ARN of the KMS key or its alias; none means the account's key for EBS.",
    )


class Masters(Model):
    """The machines that run ZooKeeper, the engine's masters, services and the autoscaler."""

    count: Literal[1, 3, 5] = Field(
        default=3,
        description="1, 3 or 5, in the zones in turn: three survive the loss of one, five of two.",
    )
    type: BootableType = Field(default="t3.medium", description="Instance type of the masters.")
    disk_gib: Whole = Field(
        default=20, ge=8, le=16384, description="Size of a master's disk in GiB."
    )
    data_volume: DataVolume = DataVolume()


class Pool(Model):
    """A pool of agents: Terraform keeps `count` machines, the autoscaler `min` to `max`."""

    name: Name = Field(default="default", description="The pool's name.")
    count: Whole = Field(default=2, ge=0, le=500, description="Machines that Terraform keeps.")
    types: tuple[BootableType, ...] = Field(
        default=USUAL_TYPES,
        min_length=1,
        description=(
            "Types that the autoscaler may launch, x86_64 and arm64; "
            "Terraform's machines have the first."
        ),
    )
    spot_share: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the autoscaler's machines that are spot, 0 to 1.",
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
        default_factory=dict, description="Attributes of the agents in offers."
    )
    disk_gib: Whole = Field(
        default=40, ge=8, le=16384, description="Size of an agent's disk in GiB."
    )
    burst: Switch = Field(
        default=False,
        description="Whether T types offer all vCPUs and pay surplus credits; else their baseline.",
    )
    max_age_hours: Number | None = Field(
        default=None,
        ge=1,
        description="Machines that run longer are replaced, instead of autoscaler.drift's value.",
    )

    @property
    def floor(self) -> int:
        """The minimum number of machines in this pool."""
        return self.count if self.min is None else self.min

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """The architectures of this pool's types, x86_64 first."""
        return architectures_of(self.types)

    @field_validator("types")
    @classmethod
    def _types_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if names := repeated(value):
            raise text_error(f"{', '.join(names)} named more than once")
        return value

    @field_validator("attributes")
    @classmethod
    def _attributes_are_free(cls, value: dict[str, str]) -> dict[str, str]:
        if names := sorted(RESERVED_ATTRIBUTES & set(value)):
            raise text_error(f"{', '.join(names)} is set by the machine itself")
        return value

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.floor < self.count:
            reason = "Terraform keeps count machines, so lower count as well"
            message = f"{self.min} is below count ({self.count}): {reason}"
            raise_problems([(("min",), message)])
        if self.max < self.floor:
            floor_field = "count" if self.min is None else "min"
            message = f"{self.max} is below {floor_field} ({self.floor})"
            raise_problems([(("max",), message)])
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
    """Expected work in a part of the week, in UTC."""

    days: Annotated[str, AfterValidator(calendar.checked_days)] = Field(
        default="mon-sun", description="Days on which it begins: mon-fri, or sat,sun."
    )
    hours: Annotated[str, AfterValidator(calendar.checked_hours)] = Field(
        default="00:00-24:00", description="From when to when, UTC; 22:00-06:00 goes past midnight."
    )
    count: Whole = Field(
        ge=1,
        le=10_000,
        description="Tasks in use then, those that already run included.",
    )
    cpus: Number = Field(gt=0, description="Cpus of each.")
    mem_mib: Number = Field(gt=0, description="Memory of each in MiB.")
    pool: Name | None = Field(default=None, description="In which pool; none means any.")


class Profile(Model):
    """Launches ahead of demand by the profile of past weeks, which is learned in any case."""

    enabled: Switch = Field(
        default=False, description="Whether machines are launched ahead of what past weeks needed."
    )
    quantile: Number = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Share of past weeks that a forecast covers: 0.8 is exceeded 1 week in 5.",
    )
    half_life_weeks: Number = Field(
        default=4.0, gt=0, description="A week this long ago weighs half as much as the last week."
    )


class Consolidation(Model):
    """When agents with running tasks may be drained to save money."""

    enabled: Switch = Field(
        default=False, description="Whether agents with running tasks may be drained at all."
    )
    min_saving_usd_per_hour: Number = Field(
        default=0.01, ge=0, description="Minimum saving of a change, in USD per hour."
    )
    min_saving_percent: Number = Field(
        default=10.0,
        ge=0,
        le=100,
        description="Minimum saving of a change, in percent of what it replaces.",
    )
    payback_s: Number = Field(
        default=1800.0,
        gt=0,
        description="Time in which savings must repay a change's cost; minimum age of machines.",
    )
    usd_per_task: Number = Field(default=0.25, ge=0, description="Cost of moving a task, in USD.")
    usd_per_task_hour: Number = Field(
        default=0.001,
        ge=0,
        description="Additional cost for each hour that the task has run, in USD.",
    )
    underused_percent: Number = Field(
        default=50.0,
        ge=0,
        le=100,
        description="An agent with a lower use of cpus and memory...",
    )
    underused_after_s: Number = Field(
        default=600.0, ge=0, description="...for this long is drained if its tasks fit elsewhere."
    )
    max_agents_percent: Number = Field(
        default=10.0,
        ge=0,
        le=100,
        description="Share of agents disrupted at a time; at least one agent unless it is 0.",
    )
    windows: tuple[Window, ...] = Field(
        default=(), description="Parts of the week with another share; the first that fits is used."
    )
    frameworks: tuple[str, ...] = Field(
        default=("marathon",),
        description="Frameworks that restart their tasks elsewhere; tasks of others are protected.",
    )


class Interruption(Model):
    """Reactions to announced ends of machines; that to a spot interruption is fixed."""

    on_rebalance: Literal["ignore", "replace"] = Field(
        default="ignore",
        description="On a rebalance recommendation: ignore, or replace machines of payback_s age.",
    )
    retire_ahead_s: Number = Field(
        default=86400.0,
        ge=0,
        description="Time before a scheduled stop, restart or retirement when a drain may begin.",
    )


class Drift(Model):
    """When agents of the autoscaler are replaced, within the disruption budget of consolidation."""

    replace: Switch = Field(
        default=False,
        description="Whether agents of an older launch template or with a mismatch are replaced.",
    )
    max_age_hours: Number | None = Field(
        default=None, ge=1, description="Agents that run longer than this many hours are replaced."
    )


class Inference(Model):
    """Purchases for frameworks whose need is inferred from their offers."""

    usd_per_hour: Number = Field(
        default=5.0,
        ge=0,
        le=10_000,
        description=(
            "Greatest price per hour of machines bought in an hour for one framework that it has "
            "not used; 0: nothing is bought on inference."
        ),
    )


class Autoscaler(Model):
    """How the autoscaler behaves. Durations are in seconds."""

    enabled: Switch = Field(
        default=True, description="Whether machines are launched and removed by demand."
    )
    interval_s: Number = Field(
        default=2.0, gt=0, le=300, description="Time between passes; events wake it earlier."
    )
    idle_after_s: Number = Field(
        default=300.0, ge=0, description="How long an agent is empty before it may be removed."
    )
    boot_timeout_s: Number = Field(
        default=600.0, gt=0, description="A machine that has not registered by then is terminated."
    )
    drain_grace_s: Number = Field(
        default=60.0,
        ge=0,
        description="Maximum time that a task gets to stop when its agent drains.",
    )
    headroom_percent: Number = Field(
        default=0.0, ge=0, le=100, description="Spare capacity kept above what is used."
    )
    headroom_slots: tuple[Slots, ...] = Field(
        default=(),
        max_length=20,
        description="Spare slots of a shape, such as [{count: 2, cpus: 4, mem_mib: 8192}].",
    )
    zone_balance_percent: Number = Field(
        default=2.0,
        ge=0,
        le=100,
        description="What an even spread of a pool over zones may cost, in percent of the price.",
    )
    calendar: tuple[Expected, ...] = Field(
        default=(),
        max_length=20,
        description=(
            "Expected work: "
            "[{days: mon-fri, hours: '08:00-18:00', count: 20, cpus: 1, mem_mib: 2048}]."
        ),
    )
    profile: Profile = Profile()
    ahead_margin_s: Number = Field(
        default=60.0,
        ge=0,
        description="Capacity for calendar and profile is ready this much before it is needed.",
    )
    probe_framework: Switch = Field(
        default=True,
        description="Whether the autoscaler may probe with a framework for missing offers.",
    )
    drain_timeout_s: Number = Field(
        default=600.0, gt=0, description="How long a drain with running tasks may take."
    )
    drain_timeout_kills: Switch = Field(
        default=False,
        description="Whether tasks that outlast a drain are killed; if not, the drain ends.",
    )
    lease_s: Number = Field(
        default=1800.0,
        ge=0,
        le=7 * 86400,
        description="Idle agents terminate when the autoscaler is silent for this long; 0: never.",
    )
    consolidation: Consolidation = Consolidation()
    interruption: Interruption = Interruption()
    drift: Drift = Drift()
    inference: Inference = Inference()

    @model_validator(mode="after")
    def _lease_outlasts_passes(self) -> Self:
        least_s = max(LEASE_MIN_S, LEASE_PASSES * self.interval_s)
        if 0 < self.lease_s < least_s:
            reason = f"a change of leader or {LEASE_PASSES} passes may take; 0 turns it off"
            message = f"{self.lease_s:g} is less than {least_s:g}, which {reason}"
            raise_problems([(("lease_s",), message)])
        return self


class Tasks(Model):
    """As which user tasks run, and on which architecture."""

    user: UserName = Field(
        default="nobody",
        description="The user of tasks that name none; the image must have it.",
    )
    allow_root: Switch = Field(
        default=False,
        description="Whether tasks may run as root, which also reaches the machine's credentials.",
    )
    architecture: Literal["x86_64", "arm64", "any"] = Field(
        default="x86_64",
        description="Where tasks run that pin none; any: their programs run on both.",
    )
    placement: Literal["automatic", "pack", "spread"] = Field(
        default="automatic",
        description="Of services: pack full agents, or spread; automatic: pack where autoscaled.",
    )

    @model_validator(mode="after")
    def _default_is_allowed(self) -> Self:
        if self.user == "root" and not self.allow_root:
            raise_problems([(("user",), "root needs allow_root: true")])
        return self


class Http(Model):
    """The HTTP ports of the machines: 5050, 5051, 8080 and 9550."""

    host_names: tuple[HostName, ...] = Field(
        default=(),
        max_length=20,
        description="Names under which browsers and programs reach machines, such as a proxy's.",
    )
    jsonp: Switch = Field(
        default=False,
        description="Serve ?jsonp= on 5050 and 5051: any web page its reader opens can read them.",
    )
    standbys: Literal["automatic", "redirect", "proxy"] = Field(
        default="automatic",
        description="Standbys redirect to the leader, or proxy it; automatic: by the client's way.",
    )


class FrameworkAccess(Model):
    """A principal of frameworks: `mesaform up` draws its secret, `mesaform token show` tells it."""

    principal: Principal = Field(description="The principal's name.")
    roles: tuple[RoleName, ...] = Field(
        default=(), description="Roles that its frameworks may use; empty: every role."
    )
    users: tuple[UserName, ...] = Field(
        default=(), description="Users as whom its tasks may run; empty: every user but root."
    )


class Access(Model):
    """Who may use 5050, 8080 and 9550 of the masters. Defaults are in `BY_TARGET`."""

    token: Literal["required", "none"] = Field(
        default="none", description="required: operators need the token of mesaform token show."
    )
    authenticate_frameworks: Switch = Field(
        default=False,
        description="Every framework needs a credential; with token: required it does in any case.",
    )
    frameworks: tuple[FrameworkAccess, ...] = Field(
        default=(),
        max_length=16,
        description="Principals: [{principal: spark, roles: [analytics], users: [nobody]}].",
    )

    @property
    def needs_token(self) -> bool:
        """Whether operators need the token."""
        return self.token == "required"  # noqa: S105  # a word, no secret

    @property
    def is_in_use(self) -> bool:
        """Whether masters need the access document."""
        return self.needs_token or self.authenticate_frameworks or bool(self.frameworks)

    @field_validator("frameworks")
    @classmethod
    def _principals_differ(cls, value: tuple[FrameworkAccess, ...]) -> tuple[FrameworkAccess, ...]:
        names = [item.principal for item in value]
        if twice := repeated(names):
            raise text_error(f"{', '.join(twice)} named more than once")
        if taken := sorted(RESERVED_PRINCIPALS & set(names)):
            raise text_error(f"{', '.join(taken)} is a principal of the cluster itself")
        return value


class Bake(Model):
    """How images are built and kept."""

    subnet: SubnetId | None = Field(
        default=None,
        description=(
            "Where builders run, with a way out; none: a default subnet, else a temporary VPC."
        ),
    )
    keep_images: Whole = Field(
        default=3,
        ge=1,
        le=100,
        description="Newest images kept of each architecture, besides those in use.",
    )


class Snapshots(Model):
    """How often the state of services and jobs is written to S3, and how long it is kept.

    The masters read it again at each snapshot; no machine changes.
    """

    interval_s: Number = Field(
        default=3600.0, ge=300, le=86400, description="Time from one snapshot to the next."
    )
    keep_newest: Whole = Field(
        default=48, ge=1, le=1000, description="Newest snapshots of a deployment that are kept."
    )
    keep_days: Whole = Field(
        default=14, ge=0, le=366, description="Days of which the last snapshot is kept besides."
    )
    keep_former_days: Whole = Field(
        default=90,
        ge=0,
        le=3660,
        description="Days for which the last snapshot of an earlier cluster of the name is kept.",
    )


class Cost(Model):
    """Limits of cost."""

    max_usd_per_hour: Number | None = Field(
        default=None,
        gt=0,
        description="Limit of the cluster's price, which the autoscaler does not exceed.",
    )
    task_gib_per_cpu_hour: Number = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description=(
            "GiB that tasks send to other tasks for each cpu in an hour; "
            "prices of machines have what of it goes to other zones."
        ),
    )


class Account(Model):
    """What the AWS account demands of roles and disks."""

    iam_path: IamPath = Field(
        default="/", max_length=512, description="Path of roles and instance profiles, /team/."
    )
    permissions_boundary: PolicyArn | None = Field(
        default=None, description="ARN of the policy that bounds what the cluster's roles may do."
    )
    kms_key: KeyArn | None = Field(
        default=None,
        description="ARN of the key of disks; none is the account's default key for EBS.",
    )


class Local(Model):
    """The local target."""

    machines: Literal["processes", "containers"] = Field(
        default="processes",
        description=(
            "processes: no root needed; containers: Debian systems under systemd-nspawn, as root."
        ),
    )


class ClusterSpec(Model):
    """A whole cluster."""

    version: Literal[1] = Field(default=1, description="The version of this format.")
    name: Name = Field(description="The cluster's name: part of every name and tag on AWS.")
    target: Literal["local", "aws"] = Field(
        default="local", description="local: machines of this host (see local); aws: EC2."
    )
    region: Region = Field(default="us-east-1", description="The AWS region.")
    engine: Literal["embedded", "mesos"] = Field(
        default="embedded",
        description=(
            "embedded: built in, nothing to install; mesos: Apache Mesos, once [engine] of the "
            "image's recipe names a source of it."
        ),
    )
    debug: Literal["ssm"] | None = Field(
        default=None,
        description="ssm: operators with the right can open a shell by AWS Session Manager.",
    )
    tls: Switch = Field(
        default=False,
        description=(
            "5050, 5051, 5052, 8080 and 9550 speak TLS only, by a CA of the cluster; see "
            "mesaform ca show."
        ),
    )
    ttl: Ttl | None = Field(
        default=None,
        description="Time after which the cluster ends itself, such as 8h; none: it stays.",
    )
    network: Network = Network()
    masters: Masters = Masters()
    agents: tuple[Pool, ...] = Field(default=(Pool(),), min_length=1)
    tasks: Tasks = Tasks()
    autoscaler: Autoscaler = Autoscaler()
    frameworks: tuple[FrameworkAdapter, ...] = Field(
        default=(),
        max_length=16,
        description="From where their demand is read: [{name: airflow, adapter: airflow, url: …}].",
    )
    http: Http = Http()
    access: Access = Access()
    bake: Bake = Bake()
    account: Account = Account()
    snapshots: Snapshots = Snapshots()
    cost: Cost = Cost()
    local: Local = Local()

    @property
    def has_loopback_machines(self) -> bool:
        """Whether machines are processes of this host, with addresses of 127.0.0.0/8."""
        return self.target == "local" and self.local.machines == "processes"

    @property
    def zones(self) -> tuple[str, ...]:
        """The availability zones; masters and agents are spread over them in turn."""
        return self.network.zones or tuple(self.region + letter for letter in "abc")

    @property
    def placement(self) -> Strategy:
        """How services choose among the agents that a task fits on."""
        if self.tasks.placement != "automatic":
            return self.tasks.placement
        return "pack" if self.autoscaler.enabled else "spread"

    @property
    def ttl_s(self) -> float | None:
        """The time to live in seconds; None for a cluster that stays."""
        return None if self.ttl is None else parse_duration_s(self.ttl)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """The architectures of all machines, x86_64 first: an image of each is needed."""
        types = [name for pool in self.agents for name in pool.types]
        return architectures_of([self.masters.type, *types])

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, data: object) -> object:
        return with_defaults(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        raise_problems(spec_problems(self))
        return self
