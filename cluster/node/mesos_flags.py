"""Flags of Apache Mesos' master and agent, each with its reason. Pure.

`MASTER` and `AGENT` are the one table: the node sets each flag as `MESOS_<NAME>`, and
docs/engine.md lists them (`python -m tests.support.mesos_flags`). The values of credentials and
ACLs are in `identities`.
Names and defaults are those of Mesos' src/master/flags.cpp and src/slave/flags.cpp.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mesaform.node.model import Identity, MachineFeatures
from mesaform.topology.agent_attributes import fault_domain
from mesaform.topology.ports import Port
from mesaform.topology.user_data import NodeDocument

ISOLATION = (
    "cgroups/cpu",
    "cgroups/mem",
    "disk/du",
    "filesystem/linux",
    "docker/runtime",
    "namespaces/pid",
    "volume/sandbox_path",
)
"""Isolators of a machine of its own."""

PROCESS_ISOLATION = ("posix/cpu", "posix/mem", "disk/du", "volume/sandbox_path")
"""Isolators that need neither root nor cgroups: they measure and limit nothing but disk."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the flags of one machine depend on."""

    document: NodeDocument
    identity: Identity
    features: MachineFeatures
    prefix: PurePosixPath
    work_dir: PurePosixPath
    zk: str
    resources: str = ""
    attributes: Mapping[str, str] | None = None

    @property
    def has_containers(self) -> bool:
        """Whether tasks are contained by the kernel, and not only started as processes."""
        return not reduction(self.features)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. Its value is None where the flag stays at Mesos' default."""

    name: str
    value: Callable[[Setting], str | None]
    shown: str
    reason: str

    @property
    def variable(self) -> str:
        """The environment variable that Mesos reads it from."""
        return f"MESOS_{self.name.upper()}"


def environment(flags: Sequence[Flag], setting: Setting) -> dict[str, str]:
    """The environment variables of a program with these flags."""
    values = {flag.variable: flag.value(setting) for flag in flags}
    return {name: value for name, value in values.items() if value is not None}


def reduction(features: MachineFeatures) -> str:
    """Why tasks on this machine get the reduced list of isolators; empty when they do not."""
    if features.is_shared:
        return "the machine is simulated: it shares one kernel with the cluster's other machines"
    if not features.is_root:
        return "the node does not run as root"
    if not features.has_cgroups:
        return "no cgroup hierarchy with cpu and memory is mounted"
    return ""


def _address(setting: Setting) -> str:
    return setting.identity.address


def _domain(setting: Setting) -> str:
    return json.dumps(fault_domain(setting.document.region, setting.identity.zone))


def _isolation(setting: Setting) -> str:
    return ",".join(ISOLATION if setting.has_containers else PROCESS_ISOLATION)


def _containerizers(setting: Setting) -> str:
    has_docker = setting.features.has_docker and setting.has_containers
    return "docker,mesos" if has_docker else "mesos"


def _attributes(setting: Setting) -> str:
    return ";".join(f"{name}:{value}" for name, value in (setting.attributes or {}).items())


def _boolean(*, is_set: bool) -> str:
    return "true" if is_set else "false"


def _with_containers(value: str) -> Callable[[Setting], str | None]:
    return lambda setting: value if setting.has_containers else None


_COMMON = (
    Flag("ip", _address, "private address", "Peers and ZooKeeper name it; no other is reachable."),
    Flag("hostname", _address, "private address", "Names are not resolved inside the VPC."),
    Flag("hostname_lookup", lambda _: "false", "false", "A resolver that fails must stop nothing."),
    Flag("domain", _domain, "region and zone", "Fault domain, for placement by zone."),
)

MASTER = (
    *_COMMON,
    Flag("port", lambda _: str(Port.ENGINE_MASTER), "5050", "The port of security groups."),
    Flag("zk", lambda setting: setting.zk, "file", "Election. A file: it has a password."),
    Flag("cluster", lambda setting: setting.document.cluster, "name", "The web page shows it."),
    Flag(
        "quorum",
        lambda setting: str(len(setting.document.zookeeper) // 2 + 1),
        "majority",
        "A smaller quorum loses agents when masters fail; a larger one stops at the first failure.",
    ),
    Flag(
        "registry",
        lambda _: "replicated_log",
        "replicated_log",
        "Agents that are gone stay gone after a change of leader.",
    ),
    Flag(
        "work_dir",
        lambda setting: str(setting.work_dir),
        "data volume",
        "The log outlives the instance (ADR 0032).",
    ),
    Flag(
        "webui_dir",
        lambda setting: str(setting.prefix / "share/mesos/webui"),
        "prefix",
        "The built-in path is that of the build machine.",
    ),
    Flag(
        "agent_reregister_timeout",
        lambda _: "10mins",
        "10mins",
        "The shortest that Mesos takes: then tasks of lost agents start elsewhere.",
    ),
)
"""Flags of mesos-master. `log_auto_initialize` is decided at each start (`mesos_log`)."""

AGENT = (
    *_COMMON,
    Flag("port", lambda _: str(Port.ENGINE_AGENT), "5051", "The port of security groups."),
    Flag("master", lambda setting: setting.zk, "zk://…", "The leader, through each election."),
    Flag(
        "resources",
        lambda setting: setting.resources,
        "of the machine",
        "The planner counts with the same numbers (`agent_resources`).",
    ),
    Flag("attributes", _attributes, "pool, zone and others", "Constraints, and the join with EC2."),
    Flag(
        "work_dir",
        lambda setting: str(setting.work_dir),
        "machine's folder",
        "Checkpoints: a restarted agent finds its tasks again.",
    ),
    Flag(
        "runtime_dir",
        lambda setting: str(setting.work_dir.with_name("engine-agent-run")),
        "machine's folder",
        "State of containers. Local machines share /var/run.",
    ),
    Flag(
        "launcher_dir",
        lambda setting: str(setting.prefix / "libexec/mesos"),
        "prefix",
        "The built-in path is that of the build machine.",
    ),
    Flag(
        "isolation",
        _isolation,
        ", ".join(ISOLATION),
        "Limits of cpu and memory, private processes and files, images. Reduced, with a line in "
        "the node's log, to " + ", ".join(PROCESS_ISOLATION) + " without root or cgroups and on "
        "simulated machines.",
    ),
    Flag(
        "launcher",
        lambda setting: "linux" if setting.has_containers else "posix",
        "linux (1)",
        "Cgroups hold a task's processes, also those that leave its session.",
    ),
    Flag(
        "containerizers",
        _containerizers,
        "docker, mesos",
        "Docker first, for tasks that ask for it. Without Docker Engine only mesos.",
    ),
    Flag(
        "image_providers",
        _with_containers("docker"),
        "docker (1)",
        "Images of Docker for the Mesos containerizer.",
    ),
    Flag(
        "cgroups_enable_cfs",
        _with_containers("true"),
        "true (1)",
        "A task gets the cpus that were priced for it, also beside idle ones.",
    ),
    Flag(
        "systemd_enable_support",
        lambda setting: _boolean(is_set=setting.has_containers and setting.features.has_systemd),
        "true (1)",
        "Executors are in mesos_executors.slice, and outlive restarts of agent and node.",
    ),
    Flag(
        "switch_user",
        lambda setting: _boolean(is_set=setting.features.is_root),
        "true",
        "Tasks run as their user. Only root can do that.",
    ),
    Flag(
        "reconfiguration_policy",
        lambda _: "additive",
        "additive",
        "New attributes or more resources need no loss of tasks.",
    ),
    Flag(
        "executor_registration_timeout",
        lambda _: "5mins",
        "5mins",
        "The default of 1 min ends tasks whose image is still pulled.",
    ),
    Flag(
        "gc_delay",
        lambda _: "1days",
        "1days",
        "Sandboxes of a week, the default, fill disks of machines that run batches.",
    ),
)
"""Flags of mesos-agent."""


@dataclass(frozen=True, slots=True)
class AccessFlag:
    """A flag of credentials or ACLs, whose value `identities` gives."""

    name: str
    shown: str
    reason: str


MASTER_ACCESS = (
    AccessFlag("credentials", "file", "Secrets of services, autoscaler, frameworks and agents."),
    AccessFlag("authenticate_agents", "true", "A task cannot register an agent of its own."),
    AccessFlag(
        "acls", "JSON or file", "Only agents register agents; no tasks as root; roles and users."
    ),
    AccessFlag(
        "authenticate_http_frameworks",
        "true (2)",
        "A framework proves its principal. Also `authenticate_frameworks`.",
    ),
    AccessFlag("authenticate_http_readwrite", "true (2)", "Changes need the operator's token."),
    AccessFlag("http_framework_authenticators", "basic (2)", "The form in which clients log in."),
)
AGENT_ACCESS = (
    AccessFlag("credential", "file", "The agent's own; tasks cannot read it."),
    AccessFlag("acls", "JSON", "No task starts a container as root by the agent's API."),
)
LOG = AccessFlag(
    "log_auto_initialize",
    "at a member's first start",
    "A member that lost its log takes it from the others (`mesaform.node.mesos_log`).",
)
