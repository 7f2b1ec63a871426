"""Apps, instances and deployments: frozen structs that are stored in ZooKeeper. No I/O.

Apps and their parts have the fields and defaults of Marathon 1.11 (its RAML files below
docs/docs/rest-api/public/api/v2/types). Times are epoch seconds, except `version` strings, which
are Marathon's: ISO 8601 in UTC with milliseconds. Stored names of fields must stay readable: a
field that is renamed keeps its old name on the wire.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from mesaform.common.resources import Resources
from mesaform.mesos.messages import TERMINAL_STATES

MAX_SECONDS = 9e9
"""More seconds do not fit into the 64-bit nanoseconds of Mesos."""

MAX_SCALAR = 9e12
"""More does not fit into the 2^53 thousandths of a Mesos scalar."""

MAX_EPOCH_S = 253_402_300_799.0
"""The last second that a timestamp can show: the end of the year 9999."""

MAX_INSTANCES = 100_000
MAX_PORT = 65535

Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
Scalar: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=MAX_SCALAR)]
EpochS: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=MAX_EPOCH_S)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_INSTANCES)]
PortNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_PORT)]
FailureCount: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Growth: TypeAlias = Annotated[float, msgspec.Meta(ge=1, le=1e6)]
KillSelection = Literal["YOUNGEST_FIRST", "OLDEST_FIRST"]
ROLE = "*"
"""The Mesos role of the framework; apps in other roles are rejected."""


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of structs that are written in Marathon's form: camel case, every field present."""


class PortDefinition(Wire, frozen=True, kw_only=True):
    """`port` is the service port; 0 asks for an assigned one.

    With `requirePorts` it is the host port as well.
    """

    port: PortNumber = 0
    protocol: str = "tcp"
    name: str | None = None
    labels: dict[str, str] = {}


class UpgradeStrategy(Wire, frozen=True, kw_only=True):
    """Limits of a replacement, as shares of `instances`.

    `minimum_health_capacity` stay running; at most `maximum_over_capacity` run in addition.
    """

    minimum_health_capacity: Share = 1.0
    maximum_over_capacity: Share = 1.0


class UnreachableStrategy(Wire, frozen=True, kw_only=True):
    """Seconds after which an instance on an unreachable agent is replaced, and is forgotten."""

    inactive_after_seconds: Seconds = 300.0
    expunge_after_seconds: Seconds = 600.0


class CommandCheck(Wire, frozen=True, kw_only=True):
    value: str


class HealthCheck(Wire, frozen=True, kw_only=True):
    """A health check that the instance's agent runs, whatever the protocol.

    `HTTP` and `MESOS_HTTP` mean the same (likewise the others): unlike Marathon this server runs no
    checks itself. `port` is a host port; without one, `port_index` selects one of the instance's
    ports. A `max_consecutive_failures` of 0 never kills.
    """

    protocol: Literal[
        "HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"
    ] = "HTTP"
    path: str | None = None
    port_index: PortNumber | None = None
    port: PortNumber | None = None
    command: CommandCheck | None = None
    grace_period_seconds: Seconds = 300.0
    interval_seconds: Seconds = 60.0
    timeout_seconds: Seconds = 20.0
    delay_seconds: Seconds = 15.0
    max_consecutive_failures: FailureCount = 3

    @property
    def kind(self) -> str:
        """HTTP, HTTPS, TCP or COMMAND."""
        return self.protocol.removeprefix("MESOS_")


class Fetch(Wire, frozen=True, kw_only=True):
    """A file that the agent fetches into the sandbox before an instance starts."""

    uri: str
    extract: bool = True
    executable: bool = False
    cache: bool = False
    dest_path: str | None = None


class App(Wire, frozen=True, kw_only=True):
    """An app definition with defaults filled in.

    `version` changes with every change, `config_version` only with those that need new instances
    (not with `instances`).
    """

    id: str
    cmd: str | None = None
    args: list[str] | None = None
    user: str | None = None
    env: dict[str, str] = {}
    instances: Count = 1
    cpus: Scalar = 1.0
    mem: Scalar = 128.0
    disk: Scalar = 0.0
    gpus: Count = 0
    constraints: list[list[str]] = []
    accepted_resource_roles: list[str] | None = None
    backoff_seconds: Seconds = 1.0
    backoff_factor: Growth = 1.15
    max_launch_delay_seconds: Seconds = 300.0
    fetch: list[Fetch] = []
    health_checks: list[HealthCheck] = []
    kill_selection: KillSelection = "YOUNGEST_FIRST"
    labels: dict[str, str] = {}
    port_definitions: list[PortDefinition] = []
    require_ports: bool = False
    role: str = ROLE
    task_kill_grace_period_seconds: Seconds | None = None
    unreachable_strategy: UnreachableStrategy | Literal["disabled"] = UnreachableStrategy()
    upgrade_strategy: UpgradeStrategy = UpgradeStrategy()
    version: str = ""
    config_version: str = ""

    @property
    def resources(self) -> Resources:
        """Resources of one instance, without its ports."""
        return Resources.of(cpus=self.cpus, mem_mib=self.mem, disk_mib=self.disk, gpus=self.gpus)


class Condition(NamedTuple):
    """The properties of an instance that decide what its app needs next.

    Instances with the same condition are interchangeable. `is_healthy` None: unknown.
    """

    config_version: str
    is_counted: bool
    is_running: bool
    is_inactive: bool
    is_healthy: bool | None

    def is_ready(self, app: App) -> bool:
        """Whether such an instance runs, and is healthy if the app checks health."""
        return self.is_running and (self.is_healthy is True or not app.health_checks)


class Instance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of an app, from before its launch is sent until its end is known.

    `agent_fields` are the fields that constraints compare; `killed_at` is when KILL was last sent.
    `is_healthy` None: unknown. `is_inactive`: unreachable for so long that it is replaced.
    """

    task_id: str
    app_id: str
    version: str
    config_version: str
    agent_id: str
    host: str
    agent_fields: dict[str, str] = msgspec.field(default_factory=dict, name="places")
    ports: list[PortNumber] = []
    state: str = "TASK_STAGING"
    staged_at: EpochS
    started_at: EpochS | None = None
    killing_since: EpochS | None = None
    killed_at: EpochS = 0.0
    unreachable_since: EpochS | None = None
    is_healthy: bool | None = msgspec.field(default=None, name="healthy")
    is_inactive: bool = msgspec.field(default=False, name="inactive")

    @property
    def is_running(self) -> bool:
        """Whether it runs and is not being killed."""
        return self.state == "TASK_RUNNING" and self.killing_since is None

    @property
    def condition(self) -> Condition:
        """See `Condition`."""
        return Condition(
            self.config_version,
            self.is_counted,
            self.is_running,
            self.is_inactive,
            self.is_healthy,
        )

    @property
    def is_counted(self) -> bool:
        """Whether it is one of the `instances` of its app."""
        is_stopping = self.killing_since is not None or self.state in TERMINAL_STATES
        return not is_stopping and not self.is_inactive


class Action(Wire, frozen=True, kw_only=True):
    """One action of a deployment, such as `ScaleApplication`, in Marathon's names."""

    action: str
    app: str


class Deployment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change that is not complete yet.

    The core's reconciliation does the work; a deployment states which apps must settle before the
    change is complete. `previous` has the definitions for a rollback; None: the app was created.
    """

    id: str
    version: str
    affected_apps: list[str]
    steps: list[list[Action]]
    previous: dict[str, App | None] = {}
    since: EpochS = 0.0


class Failure(Wire, frozen=True, kw_only=True):
    """Marathon's `lastTaskFailure`."""

    app_id: str
    host: str
    message: str
    state: str
    task_id: str
    timestamp: str
    version: str
    slave_id: str


def timestamp(at_s: float) -> str:
    """Epoch seconds in Marathon's form: `2026-11-21T05:31:00.123Z`."""
    text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
