"""The agent's settings from its environment.

The variables are those that Apache Mesos reads (MESOS_*), and MESAFORM_LINK_PORT.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mesaform.common.durations import parse_mesos_duration_s
from mesaform.common.errors import BadInput
from mesaform.common.resources import Range, Resources
from mesaform.engine.agent.identity import UserPolicy
from mesaform.engine.agent.output import OutputLimits
from mesaform.http import HttpSettings, http_settings
from mesaform.mesos.messages import (
    AgentInfo,
    Attribute,
    DomainInfo,
    PortRange,
    Ranges,
    Text,
    to_wire,
)
from mesaform.mesos.values import SignedScalar
from mesaform.placement.attributes import number_of, ranges_of
from mesaform.topology.instance_identity import PROOF_VARIABLE

DEFAULT_PORT = 5051
MESOS_VERSION = "1.12.0"
"""The Apache Mesos release whose interfaces this agent has."""
DEFAULT_LINK_PORT = 5052
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PRIVATE_PREFIXES = (
    "MESOS_",
    "LIBPROCESS_",
    "MESAFORM_LINK_PORT",
    "MESAFORM_TASK_",
    "MESAFORM_ALLOW_ROOT_TASKS",
    "MESAFORM_IDENTITY_",
    "MESAFORM_TLS_",
    PROOF_VARIABLE,
    "MESAFORM_HTTP_",
    "GRPC_",
    "NOTIFY_SOCKET",
)


@dataclass(frozen=True, slots=True)
class Config:
    """What an agent is started with.

    `master` is `zk://…/path`, or `host:port` of the only master. Addresses are IPv4. `gc_delay_s`
    is how long the sandbox of an ended task stays while the disk is not full (MESOS_GC_DELAY).
    `disk_watch_s` is the interval in which sandboxes are compared with the disk of their tasks;
    None: they are not limited, as by default (MESOS_ENFORCE_CONTAINER_DISK_QUOTA).
    `task_environment` is what tasks inherit, `users` as whom they run, and `output` limits what
    they write. `proof_file` has the signed identity of this instance, which only root reads; empty:
    the agent proves nothing. `task_unit_file` has the control groups of tasks (`task_unit`).
    """

    master: str
    ip: str
    port: int
    hostname: str
    work_dir: Path
    resources: Resources
    attributes: tuple[Attribute, ...]
    link_port: int
    isolation: str
    gc_delay_s: float
    disk_watch_s: float | None
    flags: Mapping[str, str]
    task_environment: Mapping[str, str]
    output: OutputLimits
    http: HttpSettings
    users: UserPolicy = field(default_factory=UserPolicy)
    proof_file: str = ""
    task_unit_file: str = ""
    domain: DomainInfo | None = None

    @property
    def info(self) -> AgentInfo:
        """The agent's AgentInfo, without an id."""
        return AgentInfo(
            hostname=self.hostname,
            port=self.port,
            resources=to_wire(self.resources, role="*"),
            attributes=list(self.attributes),
            domain=self.domain,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read and check every setting.

        Raises:
            BadInput: a setting is missing or malformed; the error names the variable.

        """
        ip = environment.get("MESOS_IP") or _own_address()
        work_dir = Path(_required(environment, "MESOS_WORK_DIR"))
        hostname = environment.get("MESOS_HOSTNAME") or ip
        resources = environment.get("MESOS_RESOURCES", "")
        return cls(
            master=_required(environment, "MESOS_MASTER"),
            ip=ip,
            port=_port(environment, "MESOS_PORT", DEFAULT_PORT),
            hostname=hostname,
            work_dir=work_dir,
            resources=parse_resources(resources) if resources else machine_resources(work_dir),
            attributes=parse_attributes(environment.get("MESOS_ATTRIBUTES", "")),
            domain=parse_domain(environment.get("MESOS_DOMAIN", "")),
            link_port=_port(environment, "MESAFORM_LINK_PORT", DEFAULT_LINK_PORT),
            disk_watch_s=_disk_watch_s(environment),
            gc_delay_s=parse_mesos_duration_s(
                environment.get("MESOS_GC_DELAY") or "1weeks", "MESOS_GC_DELAY"
            ),
            isolation=environment.get("MESOS_ISOLATION", ""),
            flags=_flags(environment),
            task_environment=_task_environment(environment),
            output=OutputLimits.from_settings(
                environment.get("MESAFORM_TASK_OUTPUT_SIZE", ""),
                environment.get("MESAFORM_TASK_OUTPUT_FILES", ""),
            ),
            http=http_settings(environment, ip, hostname),
            users=UserPolicy(
                environment.get("MESAFORM_TASK_USER", ""),
                environment.get("MESAFORM_ALLOW_ROOT_TASKS", "1") == "1",
            ),
            proof_file=environment.get(PROOF_VARIABLE, ""),
            task_unit_file=environment.get("MESAFORM_TASK_UNIT", ""),
        )


def _disk_watch_s(environment: Mapping[str, str]) -> float | None:
    if environment.get("MESOS_ENFORCE_CONTAINER_DISK_QUOTA", "").lower() not in {"true", "1"}:
        return None
    name = "MESOS_CONTAINER_DISK_WATCH_INTERVAL"
    return parse_mesos_duration_s(environment.get(name) or "15secs", name)


def _flags(environment: Mapping[str, str]) -> dict[str, str]:
    """The values of Mesos' flags by name, as GET_FLAGS shows them."""
    return {
        name.removeprefix("MESOS_").lower(): value
        for name, value in sorted(environment.items())
        if name.startswith("MESOS_")
    }


def _task_environment(environment: Mapping[str, str]) -> dict[str, str]:
    inherited = {
        name: value for name, value in environment.items() if not name.startswith(_PRIVATE_PREFIXES)
    }
    return {"PATH": DEFAULT_PATH, **inherited}


def parse_resources(text: str) -> Resources:
    """The vector of a text such as `cpus:4;mem:15360;disk:35840;ports:[31000-32000]`.

    Memory and disk are in MiB. A name may occur several times.

    Raises:
        BadInput: a part has another form.

    """
    scalars: dict[str, float] = {}
    ports: tuple[Range, ...] = ()
    for part in _parts(text, ";"):
        name, _, text_value = (piece.strip() for piece in part.partition(":"))
        value = _resource_value(name, text_value)
        if isinstance(value, tuple):
            ports += value
        elif value is not None:
            scalars[name] = scalars.get(name, 0.0) + value
        else:
            raise BadInput(
                f"{part!r} is not a resource",
                where="MESOS_RESOURCES",
                fix="write cpus:4;mem:15360;disk:35840;ports:[31000-32000]",
            )
    return Resources.from_scalars(scalars, ports)


def _resource_value(name: str, text: str) -> tuple[Range, ...] | float | None:
    """Ranges of `ports`, otherwise an amount; None for another form."""
    if name == "ports":
        return ranges_of(text)
    return _amount(text) if name else None


def _parts(text: str, separator: str) -> list[str]:
    """The parts of a list, without white space and empty ones."""
    return [part for part in (piece.strip() for piece in text.split(separator)) if part]


def _amount(text: str) -> float | None:
    number = number_of(text)
    return number if number is not None and number >= 0 else None


def parse_attributes(text: str) -> tuple[Attribute, ...]:
    """The attributes of a text such as `zone:us-east-1a;rank:2;span:[1-5]`.

    The types of these three are text, scalar and ranges.

    Raises:
        BadInput: a part has no name or no value.

    """
    attributes = []
    for part in _parts(text, ";"):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if not name or not value:
            raise BadInput(
                f"{part!r} is not an attribute",
                where="MESOS_ATTRIBUTES",
                fix="write name:value;name:value",
            )
        attributes.append(_attribute(name, value))
    return tuple(attributes)


def parse_domain(text: str) -> DomainInfo | None:
    """The fault domain of Mesos' flag `--domain`, a DomainInfo in JSON; None for an empty text.

    Raises:
        BadInput: it is not JSON of this form.

    """
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=DomainInfo)
    except msgspec.DecodeError as error:
        raise BadInput(
            f"{text!r} is not a domain: {error}",
            where="MESOS_DOMAIN",
            fix='write {"fault_domain":{"region":{"name":"…"},"zone":{"name":"…"}}}',
        ) from None


def _attribute(name: str, value: str) -> Attribute:
    ranges, number = ranges_of(value), number_of(value)
    if ranges is not None:
        wire = Ranges(range=[PortRange(begin=low, end=high) for low, high in ranges])
        return Attribute(name=name, type="RANGES", ranges=wire)
    if number is not None:
        return Attribute(name=name, type="SCALAR", scalar=SignedScalar(value=number))
    return Attribute(name=name, type="TEXT", text=Text(value=value))


def machine_resources(work_dir: Path) -> Resources:
    """The resources of this machine, by the defaults of Mesos (slave/containerizer.cpp).

    All cpus, memory and disk minus a reserve, and ports 31000 to 32000.
    """
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    work_dir.mkdir(parents=True, exist_ok=True)
    disk_mib = shutil.disk_usage(work_dir).total / 2**20
    return Resources.of(
        cpus=os.cpu_count() or 1,
        mem_mib=round(memory_mib - 1024 if memory_mib > 2048 else memory_mib / 2),
        disk_mib=round(disk_mib - 5120 if disk_mib > 10240 else disk_mib / 2),
        ports=[(31000, 32000)],
    )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise BadInput(
            "is not set",
            where=name,
            fix="an agent needs MESOS_MASTER (zk://host:2181/mesos) and MESOS_WORK_DIR",
        )
    return value


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdigit() or not 0 <= int(text) < 65536:
        raise BadInput(
            f"{text!r} is not a port",
            where=name,
            fix="write a number from 0 (any free one) to 65535",
        )
    return int(text)


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
