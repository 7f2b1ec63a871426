"""The port through which the emulated EC2 runs machines; processes and containers implement it."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from typing import BinaryIO, Literal, Protocol

from mesaform.localcloud.protocol import Machine, PendingImage, World

MachineKind = Literal["processes", "containers"]
"""What an instance is: a process tree of this host, or a Debian system in a container."""


class MachineRunner(Protocol):
    """Starts machines of one kind, serves their metadata, and makes images of them.

    The caller (`machine_processes`) keeps the processes, kills them, and adopts those of an earlier
    hypervisor. A machine is the process that `start` returns and all its descendants.
    """

    grace_s: float
    """How long a machine may take to shut down before it is killed, in seconds."""

    async def start(self, machine: Machine, console: BinaryIO) -> subprocess.Popen[bytes]:
        """Start the first process of a machine that has none; its output goes to `console`.

        Its exit code is 0 after an orderly shutdown from inside.

        Raises:
            CannotBootError: the machine cannot boot; the message says why.
            OSError: this host refuses.

        """
        ...

    def request_shutdown(self, pid: int) -> None:
        """Ask the machine with this first process to shut down in order. Idempotent."""
        ...

    async def serve(self, machine: Machine) -> None:
        """Serve the metadata of a running machine that an earlier hypervisor started. Idempotent.

        Raises:
            Busy: the service cannot listen.

        """
        ...

    def is_served(self, machine: Machine) -> bool:
        """Whether this hypervisor serves the machine's metadata."""
        ...

    def update(self, world: World) -> None:
        """Take changed facts of all machines: tags, notices, the rules of security groups."""
        ...

    async def release(self, instance_id: str) -> None:
        """Remove what a machine without processes has on this host, its files excepted.

        Idempotent. What the machine wrote stays for its next boot.
        """
        ...

    async def release_unlisted(self, instance_ids: Collection[str]) -> None:
        """Remove what machines of this local cloud have on this host, except of these. Idempotent.

        It finds also what a killed hypervisor left behind, and touches nothing of others.
        """
        ...

    def make_image(self, image: PendingImage) -> bool:
        """Fill a new image's folder from its instance. Blocks. Returns whether it succeeded."""
        ...

    async def close(self) -> None:
        """Stop serving all machines. Their processes have ended."""
        ...
