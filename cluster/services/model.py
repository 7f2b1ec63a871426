"""What services keeps: apps, their instances and their deployments, as frozen structs.

Times are seconds since the epoch, except `version` strings, which are Marathon's: ISO 8601 in UTC with milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

from mesaform.common.resources import Resources
from mesaform.mesos.messages import TERMINAL_STATES

KillSelection = Literal["YOUNGEST_FIRST", "OLDEST_FIRST"]
ROLE = "*"
"""The role of the whole framework; apps in other roles are not offered here."""


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The base of what is written as Marathon writes it: every field is always there."""


class PortDefinition(Wire, frozen=True, kw_only=True):
    """`port` is the service port; 0 asks for one to be assigned. With `requirePorts` it is the host port as well."""

    port: int = 0
    protocol: str = "tcp"
    name: str | None = None
    labels: dict[str, str] = {}


class UpgradeStrategy(Wire, frozen=True, kw_only=True):
    """Shares of `instances`: how many stay running and how many extra may run while an app is replaced by its next version."""

    minimum_health_capacity: float = 1.0
    maximum_over_capacity: float = 1.0


class UnreachableStrategy(Wire, frozen=True, kw_only=True):
    """After how many seconds an instance on an unreachable agent is replaced, and after how many it is forgotten."""

    inactive_after_seconds: float = 300.0
    expunge_after_seconds: float = 600.0


class CommandCheck(Wire, frozen=True, kw_only=True):
    value: str


class HealthCheck(Wire, frozen=True, kw_only=True):
    """Run by the instance's agent, whatever the protocol: `HTTP` and `MESOS_HTTP` are the same here, and so on.

    `port` is a host port; without one it is the instance's port number `port_index`. `max_consecutive_failures` of 0 never kills.
    """

    protocol: Literal[
        "HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"
    ] = "HTTP"
    path: str | None = None
    port_index: int | None = None
    port: int | None = None
    command: CommandCheck | None = None
    grace_period_seconds: float = 300.0
    interval_seconds: float = 60.0
    timeout_seconds: float = 20.0
    delay_seconds: float = 15.0
    max_consecutive_failures: int = 3

    @property
    def kind(self) -> str:
        """HTTP, HTTPS, TCP or COMMAND."""
        return self.protocol.removeprefix("MESOS_")


class Fetch(Wire, frozen=True, kw_only=True):
    """A file that is brought into the sandbox before an instance starts."""

    uri: str
    extract: bool = True
    executable: bool = False
    cache: bool = False
    dest_path: str | None = None


class App(Wire, frozen=True, kw_only=True):
    """An app as a person wrote it, with defaults filled in, and its versions."""

    id: str
    cmd: str | None = None
    args: list[str] | None = None
    user: str | None = None
    env: dict[str, str] = {}
    instances: int = 1
    cpus: float = 1.0
    mem: float = 128.0
    disk: float = 0.0
    gpus: int = 0
    constraints: list[list[str]] = []
    accepted_resource_roles: list[str] | None = None
    backoff_seconds: float = 1.0
    backoff_factor: float = 1.15
    max_launch_delay_seconds: float = 300.0
    fetch: list[Fetch] = []
    health_checks: list[HealthCheck] = []
    kill_selection: KillSelection = "YOUNGEST_FIRST"
    labels: dict[str, str] = {}
    port_definitions: list[PortDefinition] = []
    require_ports: bool = False
    role: str = ROLE
    task_kill_grace_period_seconds: float | None = None
    unreachable_strategy: UnreachableStrategy | Literal["disabled"] = UnreachableStrategy()
    upgrade_strategy: UpgradeStrategy = UpgradeStrategy()
    version: str = ""
    config_version: str = ""  # of the last change that needs new instances; scaling keeps it

    @property
    def resources(self) -> Resources:
        """What one instance takes, without its ports."""
        return Resources.of(cpus=self.cpus, mem_mib=self.mem, disk_mib=self.disk, gpus=self.gpus)


class Standing(NamedTuple):
    """What instances have in common that are alike for their app. `healthy` is None when it is not known."""

    config_version: str
    counts: bool
    running: bool
    inactive: bool
    healthy: bool | None

    def ready(self, app: App) -> bool:
        """Whether such an instance does its work: it runs, and is healthy if that is checked."""
        return self.running and (self.healthy is True or not app.health_checks)


class Instance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of an app, from before its launch is sent until its end is known."""

    task_id: str
    app_id: str
    version: str
    config_version: str
    agent_id: str
    host: str
    places: dict[
        str, str
    ] = {}  # what constraints look at: the agent's attributes, @hostname, @region, @zone
    ports: list[int] = []
    state: str = "TASK_STAGING"
    staged_at: float
    started_at: float | None = None
    killing_since: float | None = None
    killed_at: float = 0.0  # when KILL was last sent
    unreachable_since: float | None = None
    healthy: bool | None = None  # None: not known (yet)
    inactive: bool = False  # unreachable for so long that another one is started in its place

    @property
    def running(self) -> bool:
        return self.state == "TASK_RUNNING" and self.killing_since is None

    @property
    def standing(self) -> Standing:
        """All of it that bears on what its app needs next."""
        return Standing(self.config_version, self.counts, self.running, self.inactive, self.healthy)

    @property
    def counts(self) -> bool:
        """Whether it is one of the instances that its app wants."""
        return (
            self.killing_since is None and not self.inactive and self.state not in TERMINAL_STATES
        )


class Action(Wire, frozen=True, kw_only=True):
    action: str
    app: str


class Deployment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change under way. Reconciliation does the work; this says what is awaited. `previous` restores what was before."""

    id: str
    version: str
    affected_apps: list[str]
    steps: list[list[Action]]
    previous: dict[str, App | None] = {}
    since: float = 0.0


class Failure(Wire, frozen=True, kw_only=True):
    """Marathon's lastTaskFailure."""

    app_id: str
    host: str
    message: str
    state: str
    task_id: str
    timestamp: str
    version: str
    slave_id: str


def timestamp(at_s: float) -> str:
    """Marathon's form of a time: `2026-11-21T05:31:00.123Z`."""
    return (
        datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        + "Z"
    )
