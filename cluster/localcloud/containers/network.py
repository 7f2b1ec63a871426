"""Networks of machines: one bridge for each VPC, one network namespace for each machine.

The bridge has the first address of the VPC and routes: its ports are isolated from each other, so
that every packet between machines passes the packet filter of this host. A machine has its private
address, and the address of the metadata service on its loopback device. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import threading
from ipaddress import IPv4Network
from pathlib import Path

from mesaform.localcloud.containers.commands import run
from mesaform.localcloud.containers.names import BRIDGE_PREFIX, Owner
from mesaform.localcloud.protocol import Machine

METADATA_ADDRESS = "169.254.169.254"
DEVICE = "eth0"
SPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_IPV4 = Path("/proc/sys/net/ipv4/conf")
_CHANGED = Path("/run/mesaform/forwarding")
"""A file for each device of this host whose forwarding a local cloud switched on."""


def gateway(cidr: str) -> str:
    """The address of a VPC's router: the first one, which AWS reserves for it."""
    return str(IPv4Network(cidr).network_address + 1)


def attach(owner: Owner, machine: Machine) -> None:
    """Give a machine its network. Idempotent. Blocks.

    Raises:
        CommandFailed: this host refuses.

    """
    bridge, port, space = (
        owner.bridge(machine.vpc_id),
        owner.port(machine.instance_id),
        owner.space(machine.instance_id),
    )
    _add_bridge(bridge, machine.vpc_cidr)
    detach(owner, machine.instance_id)
    prefix = IPv4Network(machine.vpc_cidr).prefixlen
    run("ip", "netns", "add", space)
    run("ip", "link", "add", port, "type", "veth", "peer", "name", DEVICE, "netns", space)
    run("ip", "link", "set", port, "master", bridge, "up")
    run("ip", "link", "set", port, "type", "bridge_slave", "isolated", "on")
    router = gateway(machine.vpc_cidr)
    inside = "\n".join(
        (
            "link set lo up",
            f"addr add {METADATA_ADDRESS}/32 dev lo",
            f"addr add {machine.address}/{prefix} dev {DEVICE} noprefixroute",
            f"link set {DEVICE} up",
            f"route add {router} dev {DEVICE} scope link",
            f"route add default via {router} dev {DEVICE} src {machine.address}",
        )
    )
    run("ip", "-n", space, "-batch", "-", text=inside)


def _add_bridge(bridge: str, cidr: str) -> None:
    """Add the bridge of a VPC, and let this host forward for it."""
    if not (_IPV4 / bridge).exists():
        address = f"{gateway(cidr)}/{IPv4Network(cidr).prefixlen}"
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "addr", "add", address, "dev", bridge)
        run("ip", "link", "set", bridge, "up")
    (_IPV4 / bridge / "send_redirects").write_text("0")
    (_IPV4 / bridge / "forwarding").write_text("1")
    if device := _default_device():
        _switch_forwarding_on(device)


def _default_device() -> str:
    """The device of this host's default route; empty without one."""
    routes = json.loads(run("ip", "-j", "-4", "route", "show", "default") or "[]")
    return str(routes[0].get("dev", "")) if routes else ""


def _switch_forwarding_on(device: str) -> None:
    setting = _IPV4 / device / "forwarding"
    if setting.read_text().strip() == "1":
        return
    _CHANGED.mkdir(parents=True, exist_ok=True)
    (_CHANGED / device).touch()
    setting.write_text("1")


def detach(owner: Owner, instance_id: str) -> None:
    """Remove a machine's network. Idempotent. Blocks.

    The pair of devices goes with either end.
    """
    port, space = owner.port(instance_id), owner.space(instance_id)
    if (_IPV4 / port).exists():
        run("ip", "link", "del", port)
    if (SPACES / space).exists():
        run("ip", "netns", "del", space)


def machines(owner: Owner) -> set[str]:
    """The instances of this local cloud that have a network namespace."""
    if not SPACES.is_dir():
        return set()
    prefix = owner.space_prefix
    return {path.name.removeprefix(prefix) for path in SPACES.glob(f"{prefix}*")}


def bridges(owner: Owner) -> set[str]:
    """The bridges of this local cloud."""
    return {path.name for path in _IPV4.glob(f"{owner.bridge_prefix}*")}


def remove_bridge(bridge: str) -> None:
    """Remove a bridge; with the last one of all local clouds put this host's settings back."""
    with contextlib.suppress(OSError):
        run("ip", "link", "del", bridge)
    if any(_IPV4.glob(f"{BRIDGE_PREFIX}*")) or not _CHANGED.is_dir():
        return
    for changed in _CHANGED.iterdir():
        with contextlib.suppress(OSError):
            (_IPV4 / changed.name / "forwarding").write_text("0")
        changed.unlink(missing_ok=True)


def listen_inside(owner: Owner, instance_id: str, address: str, port: int) -> socket.socket:
    """A listening socket in a machine's network, served by this process. Blocks shortly.

    A socket stays in the network namespace in which it was made.

    Raises:
        OSError: the address cannot be bound there.

    """
    results: list[socket.socket | OSError] = []
    path = SPACES / owner.space(instance_id)

    def make() -> None:
        try:
            results.append(_listen(path, address, port))
        except OSError as error:
            results.append(error)

    thread = threading.Thread(target=make, name=f"socket {instance_id}")  # setns is of one thread
    thread.start()
    thread.join()
    if isinstance(results[0], OSError):
        raise results[0]
    return results[0]


def _listen(path: Path, address: str, port: int) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening
