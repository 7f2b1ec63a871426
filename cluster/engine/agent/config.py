"""An agent's settings, from the same `MESOS_*` environment variables that Apache Mesos reads, and MESAFORM_LINK_PORT."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.errors import BadInput
from mesaform.common.resources import Range, Resources
from mesaform.mesos.messages import AgentInfo, Attribute, PortRange, Ranges, Scalar, Text, to_wire

DEFAULT_PORT = 5051
MESOS_VERSION = "1.12.0"
"""The version of Apache Mesos whose interfaces this agent keeps."""
DEFAULT_LINK_PORT = 5052
_UNIT_S = {"secs": 1.0, "mins": 60.0, "hrs": 3600.0, "days": 86400.0, "weeks": 604800.0}
_NOT_FOR_TASKS = ("MESOS_", "LIBPROCESS_", "MESAFORM_LINK_PORT", "GRPC_", "NOTIFY_SOCKET")


@dataclass(frozen=True, slots=True)
class Config:
    """`master` is `zk://…/path`, or `host:port` of the only master. Addresses are IPv4; folders are made when missing.

    `gc_delay_s`: how long the sandbox of a task that is over stays while the disk has room (MESOS_GC_DELAY).
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
    flags: Mapping[str, str]
    task_environment: Mapping[str, str]

    @property
    def info(self) -> AgentInfo:
        return AgentInfo(
            hostname=self.hostname,
            port=self.port,
            resources=to_wire(self.resources, role="*"),
            attributes=list(self.attributes),
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read and check every setting.

        Raises:
            BadInput: one is missing or malformed; the text names the variable.

        """
        ip = environment.get("MESOS_IP") or _own_address()
        work_dir = Path(_required(environment, "MESOS_WORK_DIR"))
        given = environment.get("MESOS_RESOURCES", "")
        return cls(
            master=_required(environment, "MESOS_MASTER"),
            ip=ip,
            port=_port(environment, "MESOS_PORT", DEFAULT_PORT),
            hostname=environment.get("MESOS_HOSTNAME") or ip,
            work_dir=work_dir,
            resources=parse_resources(given) if given else machine_resources(work_dir),
            attributes=parse_attributes(environment.get("MESOS_ATTRIBUTES", "")),
            link_port=_port(environment, "MESAFORM_LINK_PORT", DEFAULT_LINK_PORT),
            gc_delay_s=_duration(environment, "MESOS_GC_DELAY", "1weeks"),
            isolation=environment.get("MESOS_ISOLATION", ""),
            flags={
                name[6:].lower(): value
                for name, value in sorted(environment.items())
                if name.startswith("MESOS_")
            },
            task_environment={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                **{
                    name: value
                    for name, value in environment.items()
                    if not name.startswith(_NOT_FOR_TASKS)
                },
            },
        )


def parse_resources(text: str) -> Resources:
    """`cpus:4;mem:15360;disk:35840;ports:[31000-32000,33000-33001]`: memory and disk in MiB.

    Raises:
        BadInput: a part has another form.

    """
    scalars: dict[str, float] = {}
    ports: tuple[Range, ...] = ()
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, colon, value = (word.strip() for word in part.partition(":"))
        ranges = _ranges(value)
        number = _number(value)
        if colon and name == "ports" and ranges is not None:
            ports += ranges
        elif colon and name and name != "ports" and number is not None and number >= 0:
            scalars[name] = scalars.get(name, 0.0) + number
        else:
            raise BadInput(
                f"{part!r} is no resource",
                where="MESOS_RESOURCES",
                fix="write cpus:4;mem:15360;disk:35840;ports:[31000-32000]",
            )
    return Resources.from_scalars(scalars, ports)


def parse_attributes(text: str) -> tuple[Attribute, ...]:
    """`zone:us-east-1a;rank:2;span:[1-5]` as text, scalar and ranges.

    Raises:
        BadInput: a part has no name or no value.

    """
    attributes = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, _, value = (word.strip() for word in part.partition(":"))
        if not name or not value:
            raise BadInput(
                f"{part!r} is no attribute",
                where="MESOS_ATTRIBUTES",
                fix="write name:value;name:value",
            )
        attributes.append(_attribute(name, value))
    return tuple(attributes)


def _attribute(name: str, value: str) -> Attribute:
    ranges, number = _ranges(value), _number(value)
    if ranges is not None:
        wire = Ranges(range=[PortRange(begin=low, end=high) for low, high in ranges])
        return Attribute(name=name, type="RANGES", ranges=wire)
    if number is not None:
        return Attribute(name=name, type="SCALAR", scalar=Scalar(value=number))
    return Attribute(name=name, type="TEXT", text=Text(value=value))


def machine_resources(work_dir: Path) -> Resources:
    """What Mesos takes for granted on a machine: its cpus; memory and disk but for a reserve; ports 31000 to 32000."""
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
            f"{text!r} is no port", where=name, fix="write a number from 0 (any free one) to 65535"
        )
    return int(text)


def _duration(environment: Mapping[str, str], name: str, default: str) -> float:
    text = environment.get(name) or default
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(secs|mins|hrs|days|weeks)", text.strip())
    if found is None:
        raise BadInput(
            f"{text!r} is no duration",
            where=name,
            fix="write a number and secs, mins, hrs, days or weeks, such as 1weeks",
        )
    return float(found[1]) * _UNIT_S[found[2]]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _ranges(text: str) -> tuple[Range, ...] | None:
    if not (text.startswith("[") and text.endswith("]")):
        return None
    ranges = []
    for part in filter(None, (piece.strip() for piece in text[1:-1].split(","))):
        low, dash, high = (word.strip() for word in part.partition("-"))
        if not (dash and low.isdigit() and high.isdigit() and int(low) <= int(high)):
            return None
        ranges.append((int(low), int(high)))
    return tuple(ranges)


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
