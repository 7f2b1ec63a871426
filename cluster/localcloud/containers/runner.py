"""Runs machines as containers: networks, metadata, disks, limits and systemd-nspawn.

A machine's first process is `script`, which records the console of systemd-nspawn. The root disk is
mounted in a mount namespace of its own, which ends with the machine. Sockets for the metadata
service and the endpoint are made in the machine's network and served by this process, so that they
end with it, and a restarted hypervisor makes them again.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import msgspec
import structlog

from mesaform.common import proc
from mesaform.common.errors import Busy
from mesaform.localcloud import processes
from mesaform.localcloud.boot import CannotBootError
from mesaform.localcloud.containers import disks, limits, network, packet_filter
from mesaform.localcloud.containers.commands import CommandFailed, run
from mesaform.localcloud.containers.names import Owner
from mesaform.localcloud.containers.relay import Relay
from mesaform.localcloud.instance_identity import IdentityService
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.metadata import Metadata
from mesaform.localcloud.protocol import Credentials, Machine, PendingImage, World

log = structlog.get_logger(__name__)
SYSTEMD_POWEROFF = signal.SIGRTMIN + 4
"""systemd(1), "Signals": start poweroff.target."""
IDENTITY_INSIDE = "/run/mesaform-identity.pem"
VOLUMES_INSIDE = "/run/mesaform-volumes"
"""All volumes of the local cloud; the node asks EC2 which one is attached to its machine."""
AUTHORITIES_INSIDE = "/etc/ssl/certs/ca-certificates.crt"
"""Debian's bundle with this host's own authorities, which installers with a bundle do not read."""
METADATA_HTTP_PORT = 80
SYSTEM_CALLS = ("add_key", "keyctl", "bpf")
"""What runc calls for the containers of Docker Engine, and systemd-nspawn refuses by default."""

_START = """\
for file in $ENTER; do echo $$ > "$file"; done
mount -t overlay overlay -o "$OPTIONS" "$MOUNT_POINT"
code=$RESTART
while [ "$code" = "$RESTART" ]; do
  code=0
  script --quiet --flush --return --append --echo never --command "$COMMAND" "$CONSOLE" || code=$?
done
exit "$code"
"""
"""The program of a machine's first process, with its own mount namespace. `script` gives
systemd-nspawn a terminal, without which nothing of the boot is shown, and ends with its code."""
RESTART_CODE = 133
"""systemd-nspawn with --keep-unit ends with it where the machine restarts itself (nspawn.c,
EXIT_FORCE_RESTART). For EC2 the instance runs all the time."""


@dataclass(slots=True)
class _Services:
    """What this process serves in the network of one machine."""

    metadata: Metadata
    endpoint: Relay


class ContainerRunner:
    """Implements `machine_runner.MachineRunner`. Needs root."""

    grace_s = 20.0
    """Less than the daemon gives the hypervisor for the end of all machines."""

    def __init__(
        self,
        layout: Layout,
        url: str,
        credentials: Callable[[str], Awaitable[Credentials]],
        identity: IdentityService,
    ) -> None:
        self._layout = layout
        self._url = url
        self._credentials = credentials
        self._identity = identity
        self._owner = Owner(layout.root)
        self._services: dict[str, _Services] = {}
        self._world: World | None = None
        self._rules = ""
        self._lock = asyncio.Lock()

    async def start(self, machine: Machine, console: BinaryIO) -> subprocess.Popen[bytes]:
        """Prepare disk, network and limits, serve the metadata, and boot systemd."""
        if not machine.vpc_cidr:
            raise CannotBootError("it has no network interface in a VPC")
        await asyncio.to_thread(self._identity.prepare)
        disk = await asyncio.to_thread(disks.prepare, self._layout, machine)
        try:
            await self._close_services(machine.instance_id)
            async with self._lock:
                await asyncio.to_thread(network.attach, self._owner, machine)
            await self._apply_rules()
            await self.serve(machine)
            enter = await asyncio.to_thread(limits.enter_files, self._owner, machine)
        except Busy as error:
            raise CannotBootError(f"its metadata service cannot listen: {error.what}") from None
        except CommandFailed as error:
            raise CannotBootError(str(error)) from None
        return self._spawn(machine, disk, enter, console)

    def _spawn(
        self, machine: Machine, disk: disks.Disk, enter: list[Path], console: BinaryIO
    ) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM": "dumb",
            "MESAFORM_INSTANCE_ID": machine.instance_id,
            # Controllers that this host has in version 1 cannot be used in version 2.
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1" if limits.has_version_2() else "0",
            # Docker Engine lets packets pass in the machine's own network; see ENVIRONMENT.md of
            # systemd. The rest of /proc/sys is the host's, and stays closed.
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            "RESTART": str(RESTART_CODE),
            "ENTER": " ".join(map(str, enter)),
            "OPTIONS": disk.options,
            "MOUNT_POINT": str(disk.mount_point),
            "CONSOLE": str(self._layout.console(machine.instance_id).resolve()),
            "COMMAND": shlex.join(self._nspawn(machine, disk)),
        }
        return subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _START],
            cwd=self._layout.machine(machine.instance_id),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=console,
            start_new_session=True,
        )

    def _nspawn(self, machine: Machine, disk: disks.Disk) -> list[str]:
        volumes = self._layout.volumes.resolve()
        variables = {
            "AWS_ENDPOINT_URL": self._url,
            "MESAFORM_INSTANCE_ID": machine.instance_id,
            "MESAFORM_VOLUMES": VOLUMES_INSIDE,
            "MESAFORM_IDENTITY_CERTIFICATE": IDENTITY_INSIDE,
            "SSL_CERT_FILE": AUTHORITIES_INSIDE,
            "MESAFORM_HARDWARE": msgspec.json.encode(
                {"vcpus": machine.vcpus, "mem_mib": machine.mem_mib}
            ).decode(),
        }
        return [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            f"--directory={disk.mount_point}",
            "--register=no",
            "--keep-unit",
            f"--machine={machine.instance_id}",
            f"--hostname=ip-{machine.address.replace('.', '-')}",
            f"--network-namespace-path={network.SPACES / self._owner.space(machine.instance_id)}",
            "--capability=CAP_NET_ADMIN",
            f"--system-call-filter={' '.join(SYSTEM_CALLS)}",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            f"--bind={volumes}:{VOLUMES_INSIDE}",
            f"--bind-ro={self._layout.identity_certificate.resolve()}:{IDENTITY_INSIDE}",
            f"--setenv=MESAFORM_INSTANCE_ID={machine.instance_id}",
            "systemd.journald.forward_to_console=1",
            # systemd joins and splits its arguments again, hence the second pair of quotes.
            *(f"systemd.setenv='{name}={value}'" for name, value in variables.items()),
        ]

    def request_shutdown(self, pid: int) -> None:
        """Ask the systemd of the machine to power off."""
        init = _init_below(pid)
        processes.send(init or pid, SYSTEMD_POWEROFF if init else signal.SIGTERM)

    async def serve(self, machine: Machine) -> None:
        """Listen in the machine's network: the metadata service, and this host's endpoint."""
        if self.is_served(machine):
            return
        metadata = Metadata(self._credentials, self._identity)
        endpoint = Relay(self._url)
        self._services[machine.instance_id] = _Services(metadata, endpoint)
        host, port = urlsplit(self._url).hostname or "", urlsplit(self._url).port or 0
        try:
            listening = self._listen(machine, network.METADATA_ADDRESS, METADATA_HTTP_PORT)
            # The hop limit of IMDS is the time to live of its packets; loopback does not count.
            listening.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, machine.hop_limit)
            await metadata.open(machine, listening)
            await endpoint.serve(self._listen(machine, host, port))
        except OSError as error:
            await self._close_services(machine.instance_id)
            raise Busy(str(error), where=machine.address) from None

    def _listen(self, machine: Machine, address: str, port: int) -> socket.socket:
        return network.listen_inside(self._owner, machine.instance_id, address, port)

    def is_served(self, machine: Machine) -> bool:
        """Whether the services listen in the machine's network."""
        return machine.instance_id in self._services

    def update(self, world: World) -> None:
        """Give the metadata services the machines' facts; the rules follow with the next step."""
        self._world = world
        for machine in world.machines:
            if services := self._services.get(machine.instance_id):
                services.metadata.update(machine)

    async def _apply_rules(self) -> None:
        """Replace the packet filter's table if anything changed."""
        world = self._world
        if world is None:
            return
        machines = [machine for machine in world.machines if machine.vpc_cidr]
        present = await asyncio.to_thread(network.bridges, self._owner)
        vpcs = {
            packet_filter.Vpc(bridge, machine.vpc_cidr)
            for machine in machines
            if (bridge := self._owner.bridge(machine.vpc_id)) in present
        }
        rules = packet_filter.rules(self._owner.table, vpcs, machines, world.groups)
        if rules != self._rules:
            await asyncio.to_thread(run, "nft", "-f", "-", text=rules)
            self._rules = rules

    async def release(self, instance_id: str) -> None:
        """Remove the machine's services, network and control groups."""
        await self._close_services(instance_id)
        async with self._lock:
            await asyncio.to_thread(network.detach, self._owner, instance_id)
        await asyncio.to_thread(limits.remove, self._owner, instance_id)

    async def release_unlisted(self, instance_ids: Collection[str]) -> None:
        """Remove networks and groups of other machines, and bridges of VPCs without machines."""
        present = await asyncio.to_thread(
            lambda: network.machines(self._owner) | limits.machines(self._owner)
        )
        for instance_id in present - set(instance_ids):
            await self.release(instance_id)
        kept = {
            self._owner.bridge(machine.vpc_id)
            for machine in (self._world.machines if self._world else ())
            if machine.instance_id in instance_ids and machine.vpc_id
        }
        async with self._lock:
            bridges = await asyncio.to_thread(network.bridges, self._owner)
            for bridge in bridges - kept:
                await asyncio.to_thread(network.remove_bridge, bridge)
        if instance_ids:
            await self._apply_rules()
        else:
            await asyncio.to_thread(_remove_common, self._owner)
            self._rules = ""

    def make_image(self, image: PendingImage) -> bool:
        """Copy what the machine wrote as a layer of a new image."""
        return disks.make_image(self._layout, image)

    async def _close_services(self, instance_id: str) -> None:
        services = self._services.pop(instance_id, None)
        if services is not None:
            await services.metadata.stop()
            await services.endpoint.close()

    async def close(self) -> None:
        """Stop all services."""
        for instance_id in list(self._services):
            await self._close_services(instance_id)


def remove_everything(layout: Layout) -> None:
    """Remove what the machines of a local cloud without a daemon have on this host. Blocks."""
    owner = Owner(layout.root)
    for instance_id in network.machines(owner) | limits.machines(owner):
        network.detach(owner, instance_id)
        limits.remove(owner, instance_id)
    for bridge in network.bridges(owner):
        network.remove_bridge(bridge)
    _remove_common(owner)


def _remove_common(owner: Owner) -> None:
    limits.remove_common(owner)
    # Deletion of a table that does not exist fails; after its declaration it exists.
    run("nft", "-f", "-", text=f"table inet {owner.table}\ndelete table inet {owner.table}\n")


def _init_below(pid: int) -> int | None:
    """The first process of the container below this process, by the host's numbers."""
    children: dict[int, list[int]] = {}
    for process in proc.running_processes().values():
        children.setdefault(process.parent, []).append(process.pid)
    waiting = list(children.get(pid, ()))
    while waiting:
        candidate = waiting.pop(0)
        if _is_first_in_space(candidate):
            return candidate
        waiting += children.get(candidate, ())
    return None


def _is_first_in_space(pid: int) -> bool:
    """Whether the process has number 1 in a process namespace of its own (proc_pid_status(5))."""
    try:
        with Path(f"/proc/{pid}/status").open(encoding="ascii", errors="replace") as status:
            numbers = next(line for line in status if line.startswith("NSpid:")).split()[1:]
    except (OSError, StopIteration):
        return False
    return len(numbers) > 1 and numbers[-1] == "1" and pid != os.getpid()
