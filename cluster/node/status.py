"""What the node tells others of its work: a status file for people and programs, and readiness for systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from mesaform.node.supervisor import Entry, State


class ServiceStatus(msgspec.Struct, frozen=True):
    """One service. `since` (epoch seconds) is when its state began; `last_end` is how its last process ended."""

    service: str
    state: str
    pid: int | None
    restarts: int
    since: float
    last_end: str


class NodeStatus(msgspec.Struct, frozen=True):
    """`status.json` in the machine's folder."""

    pid: int
    cluster: str
    role: str
    instance_id: str
    address: str
    services: list[ServiceStatus]


def services_status(
    entries: Iterable[Entry], epoch_minus_monotonic_s: float
) -> list[ServiceStatus]:
    """The supervisor's entries, with wall-clock times."""
    return [
        ServiceStatus(
            service=entry.service.name,
            state=entry.state.value,
            pid=entry.pid,
            restarts=entry.restarts,
            since=round(entry.since + epoch_minus_monotonic_s, 3),
            last_end=entry.last_end,
        )
        for entry in entries
    ]


def write(path: Path, status: NodeStatus) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(status), indent=1) + b"\n")
    temporary.replace(path)


def summary(entries: Iterable[Entry]) -> str:
    """One line: `3 of 4 up; autoscaler backoff`."""
    states = {entry.service.name: entry.state for entry in entries}
    up = sum(state is State.RUNNING for state in states.values())
    others = [f"{name} {state}" for name, state in states.items() if state is not State.RUNNING]
    return "; ".join([f"{up} of {len(states)} up", *others])


def notify(message: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell systemd (`READY=1`, `STOPPING=1`, `STATUS=…`), where systemd started this program; else do nothing."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(message.encode(), name)
        except OSError:
            return  # systemd going away is no reason to stop serving
