"""Machines as processes of this host: no root needed, no system of their own.

A machine has an address of 127.0.0.0/8 and a folder. Its metadata service listens on its address.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from mesaform.common.errors import Busy
from mesaform.localcloud import boot, processes, storage
from mesaform.localcloud.layout import METADATA_PORT, Layout
from mesaform.localcloud.metadata import Metadata
from mesaform.localcloud.protocol import Machine, PendingImage, World


class ProcessRunner:
    """Implements `machine_runner.MachineRunner`."""

    grace_s = 10.0

    def __init__(self, layout: Layout, url: str, metadata: Metadata) -> None:
        self._layout = layout
        self._url = url
        self._metadata = metadata

    async def start(self, machine: Machine, console: BinaryIO) -> subprocess.Popen[bytes]:
        """Start the metadata service, then the baked node or on a base image `cloudinit`."""
        command = boot.command(self._layout, machine)
        try:
            await self._metadata.open(machine)
        except Busy as error:
            raise boot.CannotBootError(
                f"its metadata service cannot listen on {machine.address}:{METADATA_PORT}: "
                f"{error.what}; "
                "addresses must be in 127.0.0.0/8 and not used by another local cloud"
            ) from None
        environment = boot.environment(self._layout, machine, self._url, os.environ)
        if command[-1] == "cloudinit":
            environment |= boot.cloudinit_environment(self._layout, machine)
        return _spawn(command, self._layout.machine(machine.instance_id), environment, console)

    def request_shutdown(self, pid: int) -> None:
        """Send SIGTERM to the first process."""
        processes.send(pid, signal.SIGTERM)

    async def serve(self, machine: Machine) -> None:
        """Open the metadata service."""
        await self._metadata.open(machine)

    def is_served(self, machine: Machine) -> bool:
        """Whether the metadata service listens for this machine."""
        return self._metadata.listens_for(machine)

    def update(self, world: World) -> None:
        """Give the metadata service the machines' facts."""
        for machine in world.machines:
            self._metadata.update(machine)

    async def release(self, instance_id: str) -> None:
        """Close the metadata service."""
        await self._metadata.close(instance_id)

    async def release_unlisted(self, instance_ids: Collection[str]) -> None:
        """Do nothing: a killed hypervisor leaves nothing but processes and folders."""

    def make_image(self, image: PendingImage) -> bool:
        """Fill a new image's folder with links to the files of its instance."""
        return storage.make_image(self._layout, image)

    async def close(self) -> None:
        """Stop the metadata service."""
        await self._metadata.stop()


def _spawn(
    command: list[str], folder: Path, environment: dict[str, str], console: BinaryIO
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        start_new_session=True,
    )
