"""Values of the node: the machine's identity, its hardware and programs, its desired services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mesaform.topology.instance_identity import SignedIdentity

EXIT_REFUSED = 78
"""EX_CONFIG of sysexits(3): a restart would end the same way, so systemd does not restart."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The machine in the metadata service.

    `lifecycle` is `on-demand` or `spot`. `proof` is the signed document that proves the identity;
    None where the metadata service has none. `account_id` is the account in it.
    `public_address` is empty without one.
    """

    instance_id: str
    instance_type: str
    zone: str
    address: str
    lifecycle: str
    account_id: str = ""
    proof: SignedIdentity | None = field(default=None, repr=False)
    public_address: str = ""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine's whole size, before anything is reserved for the system."""

    vcpus: int
    mem_mib: int


@dataclass(frozen=True, slots=True)
class MachineFeatures:
    """What the machine's kernel and system offer to Apache Mesos.

    Attributes:
        is_root: the node runs as root.
        is_shared: the machine is a process of its host and shares its files and control groups.
        has_cgroups: a hierarchy with the controllers of cpu and memory is mounted.
        has_systemd: systemd runs the machine.
        has_docker: Docker Engine is installed.

    """

    is_root: bool = False
    is_shared: bool = False
    has_cgroups: bool = False
    has_systemd: bool = False
    has_docker: bool = False


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs that services are started from.

    `zookeeper_classpath` is empty where ZooKeeper is not installed, the `mesos_*` programs where
    Apache Mesos is not. `features` is what Apache Mesos finds on the machine. `task_unit` is the
    file with the control groups that systemd delegates for tasks, empty where it does not.
    """

    python: str
    java: str = "java"
    zookeeper_classpath: tuple[str, ...] = ()
    mesos_master: str = ""
    mesos_agent: str = ""
    features: MachineFeatures = MachineFeatures()
    task_unit: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """One process to supervise.

    `ready` is an address and port that accept connections once the service is ready; the next
    service starts then, or after `ready_within_s` seconds. On a stop the process has
    `stop_within_s` seconds between SIGTERM and SIGKILL. After an early end it starts again within
    `restart_within_s` seconds, however often it has ended. A service that `controls_node` gets a
    channel (`mesaform.node.control_channel`) to stop the others and to power the machine off.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: tuple[str, int] | None = None
    ready_within_s: float = 3.0
    stop_within_s: float = 5.0
    restart_within_s: float = 30.0
    controls_node: bool = False


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that is written with `text` before the services start. `is_secret`: mode 0600."""

    path: PurePosixPath
    text: str = field(repr=False)
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Desired:
    """Services of a machine in the order of starting, with the files and folders they need.

    Private folders are closed to other users. On the local target the masters share their file
    system with the tasks of agents.
    """

    services: tuple[Service, ...]
    files: tuple[ConfigFile, ...] = ()
    folders: tuple[PurePosixPath, ...] = ()
    private_folders: tuple[PurePosixPath, ...] = ()
