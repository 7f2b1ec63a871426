"""Outputs of the node: `status.json` in the machine's folder and notifications for systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from mesaform.common.files import write_atomically
from mesaform.node.supervisor import Entry, State


class ServiceStatus(msgspec.Struct, frozen=True):
    """State of one service.

    `since` (epoch seconds) is when the state began; `last_end` says how the last process ended.
    """

    service: str
    state: str
    pid: int | None
    restarts: int
    since: float
    last_end: str


class NodeStatus(msgspec.Struct, frozen=True):
    """Content of `status.json`."""

    pid: int
    cluster: str
    role: str
    instance_id: str
    address: str
    services: list[ServiceStatus]


def services_status(
    entries: Iterable[Entry], epoch_minus_monotonic_s: float
) -> list[ServiceStatus]:
    """The supervisor's entries with wall-clock times."""
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
    """Replace the status file atomically."""
    text = msgspec.json.format(msgspec.json.encode(status), indent=1)
    write_atomically(path, text + b"\n")


def summary(entries: Iterable[Entry]) -> str:
    """One line: `3 of 4 up; autoscaler backoff`."""
    states = {entry.service.name: entry.state for entry in entries}
    running = sum(state is State.RUNNING for state in states.values())
    others = [f"{name} {state}" for name, state in states.items() if state is not State.RUNNING]
    return "; ".join([f"{running} of {len(states)} up", *others])


def notify(message: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send `READY=1`, `STOPPING=1` or `STATUS=…` to systemd (sd_notify(3)).

    Does nothing where systemd did not start this program.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(message.encode(), name)
        except OSError:
            return  # the services run without systemd too
