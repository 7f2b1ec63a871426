"""The process trees of machines: booted, found again, ended to the last process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import BinaryIO

import structlog

from mesaform.localcloud import boot, processes
from mesaform.localcloud.layout import METADATA_PORT, Layout
from mesaform.localcloud.metadata import Metadata
from mesaform.localcloud.protocol import Machine
from mesaform.localcloud.reconcile import Down, Failed, Seen, Up

log = structlog.get_logger(__name__)
GRACE_S = 10.0
POLL_S = 0.05


@dataclass(slots=True)
class Tree:
    """A machine's processes. `pid` is the first; `code` its exit code once it was reaped; `popen` is None for adopted ones."""

    pid: int
    started: int
    boots: int
    popen: subprocess.Popen[bytes] | None = None
    code: int | None = None
    failed: str = ""

    @property
    def alive(self) -> bool:
        return not self.failed and self.code is None and processes.alive(self.pid, self.started)


class MachineProcesses:
    """All machines of this host."""

    def __init__(self, layout: Layout, url: str, metadata: Metadata) -> None:
        self._layout = layout
        self._url = url
        self._metadata = metadata
        self._trees: dict[str, Tree] = {}
        self._census = processes.Census()
        self._members: dict[str, set[int]] = {}
        self._adopted = False

    def known(self) -> set[str]:
        return set(self._trees)

    def seen(self, instance_id: str) -> Seen:
        tree = self._trees.get(instance_id)
        if tree is None:
            return None
        if tree.failed:
            return Failed(tree.boots, tree.failed)
        if tree.alive:
            return Up(tree.boots)
        if tree.popen is not None and tree.code is None:
            self.reap()  # it ended, and its signal has not been handled yet: how it ended decides what EC2 is told
        return Down(tree.boots, tree.code)

    def look(self, instance_ids: set[str]) -> None:
        """Count processes; the first time, find the machines that an earlier hypervisor started."""
        if not self._adopted:
            for instance_id in {*instance_ids, *self._folders()}:
                self._adopt(instance_id)
            self._adopted = True
        if self._trees:
            self._members = self._census.take()

    def _folders(self) -> set[str]:
        return (
            {path.name for path in self._layout.machines.iterdir()}
            if self._layout.machines.is_dir()
            else set()
        )

    def _adopt(self, instance_id: str) -> None:
        if record := boot.read_record(self._layout, instance_id):
            self._trees[instance_id] = Tree(record.pid, record.started, record.boots)
            log.info(
                "machine.adopted",
                instance=instance_id,
                pid=record.pid,
                alive=self._trees[instance_id].alive,
            )

    def reap(self) -> bool:
        """Collect ended children, orphans of machines included; whether a machine's first process was among them."""
        by_pid = {tree.pid: tree for tree in self._trees.values() if tree.popen is not None}
        found = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if tree := by_pid.get(pid):
                tree.code = os.waitstatus_to_exitcode(status)
                if tree.popen is not None:
                    tree.popen.returncode = tree.code
                found = True

    async def boot(self, machine: Machine) -> None:
        """Start a machine: its metadata service, then its first process. What cannot be is seen as `Failed`."""
        instance_id = machine.instance_id
        await self._end_strays(instance_id)
        folder = self._layout.machine(instance_id)
        folder.mkdir(parents=True, exist_ok=True)
        with self._layout.console(instance_id).open("ab") as console:
            try:
                command = boot.command(self._layout, machine)
                await self._open_metadata(machine)
                tree = self._spawn(machine, command, console)
            except (boot.CannotBootError, OSError) as error:
                console.write(f"hypervisor: {_now()} boot failed: {error}\n".encode())
                tree = Tree(0, 0, machine.boots, failed=str(error))
                log.warning("machine.failed", instance=instance_id, why=str(error))
        self._trees[instance_id] = tree

    async def _open_metadata(self, machine: Machine) -> None:
        try:
            await self._metadata.open(machine)
        except OSError as error:
            raise boot.CannotBootError(
                f"its metadata service cannot listen on {machine.address}:{METADATA_PORT}: {error.strerror or error}; "
                "addresses must be in 127.0.0.0/8 and no other local cloud's"
            ) from None

    def _spawn(self, machine: Machine, command: list[str], console: BinaryIO) -> Tree:
        environment = boot.environment(self._layout, machine, self._url, os.environ)
        if command[-1] == "cloudinit":
            environment |= boot.cloudinit_environment(self._layout, machine)
        console.write(
            f"hypervisor: {_now()} boot {machine.boots} of {machine.instance_id} from {machine.image_id}\n".encode()
        )
        console.flush()
        popen = subprocess.Popen(
            command,
            cwd=self._layout.machine(machine.instance_id),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        record = boot.write_record(self._layout, machine.instance_id, popen.pid, machine.boots)
        log.info(
            "machine.booted",
            instance=machine.instance_id,
            pid=popen.pid,
            address=machine.address,
            image=machine.image_id,
        )
        return Tree(popen.pid, record.started, machine.boots, popen=popen)

    async def end(self, instance_id: str, *, hard: bool = False, keep: bool = False) -> None:
        """End a machine to its last process: SIGTERM to the first, ten seconds, SIGKILL to all. Afterwards nothing is seen of it.

        With `keep` what was seen stays (a machine that went down by itself, whose rest is ended before that is reported).
        """
        tree = self._trees.get(instance_id)
        if tree is not None and tree.alive and not hard:
            processes.send(tree.pid, signal.SIGTERM)
            until = time.monotonic() + GRACE_S
            while tree.alive and time.monotonic() < until:  # noqa: ASYNC110  # an adopted process announces its end to nobody
                await asyncio.sleep(POLL_S)
        await self._end_strays(instance_id)
        await self._metadata.close(instance_id)
        if not keep:
            await self.forget(instance_id)

    async def _end_strays(self, instance_id: str) -> None:
        """SIGKILL until a count finds nobody of this machine."""
        while True:
            self._members = self._census.take()
            tree = self._trees.get(instance_id)
            left = set(self._members.get(instance_id, ()))
            if tree is not None and tree.alive:
                left.add(tree.pid)
            left.discard(os.getpid())
            if not left:
                return
            for pid in left:
                processes.send(pid, signal.SIGKILL)
            await asyncio.sleep(POLL_S)

    async def forget(self, instance_id: str) -> None:
        await self._metadata.close(instance_id)
        self._trees.pop(instance_id, None)
        boot.drop_record(self._layout, instance_id)

    async def end_all(self) -> None:
        """End every machine, at the same time."""
        async with asyncio.TaskGroup() as group:
            for instance_id in list(self._trees):
                group.create_task(self.end(instance_id), name=f"end {instance_id}")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
