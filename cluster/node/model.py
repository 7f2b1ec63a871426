"""The values that the node's parts hand to each other: who this machine is, what it has, what it should run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Identity:
    """What the metadata service says of this machine. `lifecycle` is `on-demand` or `spot`."""

    instance_id: str
    instance_type: str
    zone: str
    address: str
    lifecycle: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the machine has, before anything is kept back."""

    vcpus: int
    mem_mib: int


@dataclass(frozen=True, slots=True)
class Programs:
    """Where this machine keeps what its services are started from.

    `zookeeper_classpath` is empty where ZooKeeper is not installed; the `mesos_*` programs are empty where Apache Mesos is not.
    """

    python: str
    java: str = "java"
    zookeeper_classpath: tuple[str, ...] = ()
    mesos_master: str = ""
    mesos_agent: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep running.

    `ready` is an address and port that accept connections once the service is up; the next service starts then, or after
    `ready_within_s`, whichever is first. On a stop it has `stop_within_s` seconds between SIGTERM and SIGKILL. One that `steers`
    has a line to the node (`mesaform.node.control_channel`), by which it may have the others stopped and the machine powered off.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: tuple[str, int] | None = None
    ready_within_s: float = 3.0
    stop_within_s: float = 5.0
    controls_node: bool = False


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that must hold exactly `text` before the services start."""

    path: PurePosixPath
    text: str


@dataclass(frozen=True, slots=True)
class Desired:
    """All that a machine should run, in the order of starting, and the files and folders it needs for that."""

    services: tuple[Service, ...]
    files: tuple[ConfigFile, ...] = ()
    folders: tuple[PurePosixPath, ...] = ()
