"""The processes of machines: start, adoption after a restart, and the end of every last one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import BinaryIO

import structlog

from mesaform.common import proc
from mesaform.common.files import PRIVATE_FILE_MODE, open_log
from mesaform.localcloud import boot, processes
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.machine_runner import MachineRunner
from mesaform.localcloud.protocol import Machine
from mesaform.localcloud.reconcile import Down, Failed, Observation, Up

log = structlog.get_logger(__name__)
POLL_S = 0.05


@dataclass(slots=True)
class ProcessTree:
    """A machine's processes.

    Attributes:
        pid, started: the first process, 0 for a failed boot; `started` in clock ticks.
        boots: which boot of the instance it is.
        popen: None for an adopted process, whose exit code is not known.
        code: the first process's exit code once it was reaped.
        failure: why the machine could not boot; empty if it could.

    """

    pid: int
    started: int
    boots: int
    popen: subprocess.Popen[bytes] | None = None
    code: int | None = None
    failure: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether the first process runs."""
        if self.failure or self.code is not None:
            return False
        return proc.is_alive(self.pid, self.started)


class MachineProcesses:
    """The processes of all machines of this local cloud."""

    def __init__(self, layout: Layout, runner: MachineRunner) -> None:
        self._layout = layout
        self._runner = runner
        self._trees: dict[str, ProcessTree] = {}
        self._census = processes.Census()
        self._members: dict[str, set[int]] = {}
        self._has_adopted = False

    def known(self) -> set[str]:
        """The instances that have or had processes."""
        return set(self._trees)

    def observe(self, instance_id: str) -> Observation:
        """What runs of an instance."""
        tree = self._trees.get(instance_id)
        if tree is None:
            return None
        if tree.failure:
            return Failed(tree.boots, tree.failure)
        if tree.is_alive:
            return Up(tree.boots)
        if tree.popen is not None and tree.code is None:
            # It ended before its signal was handled. The exit code decides what EC2 reports.
            self.reap()
        return Down(tree.boots, tree.code)

    def refresh(self, instance_ids: set[str]) -> None:
        """Count the processes; the first time also adopt those of an earlier hypervisor."""
        if not self._has_adopted:
            for instance_id in {*instance_ids, *self._folders()}:
                self._adopt(instance_id)
            self._has_adopted = True
        if self._trees:
            self._members = self._census.take()

    def _folders(self) -> set[str]:
        folder = self._layout.machines
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def _adopt(self, instance_id: str) -> None:
        record = boot.read_record(self._layout, instance_id)
        if record is None:
            return
        tree = ProcessTree(record.pid, record.started, record.boots)
        self._trees[instance_id] = tree
        log.info("machine.adopted", instance=instance_id, pid=tree.pid, alive=tree.is_alive)

    def reap(self) -> bool:
        """Reap ended children, orphans of machines included.

        Returns whether a machine's first process was among them.
        """
        by_pid = {tree.pid: tree for tree in self._trees.values() if tree.popen is not None}
        has_ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return has_ended
            if pid == 0:
                return has_ended
            if tree := by_pid.get(pid):
                tree.code = os.waitstatus_to_exitcode(status)
                if tree.popen is not None:
                    tree.popen.returncode = tree.code
                has_ended = True

    async def boot(self, machine: Machine) -> None:
        """Start a machine. A boot that fails is observed as `Failed`."""
        instance_id = machine.instance_id
        await self._kill_members(instance_id)
        self._layout.machine(instance_id).mkdir(parents=True, exist_ok=True)
        with open_log(self._layout.console(instance_id), PRIVATE_FILE_MODE) as console:
            try:
                tree = await self._start(machine, console)
            except (boot.CannotBootError, OSError) as error:
                console.write(f"hypervisor: {_now()} boot failed: {error}\n".encode())
                tree = ProcessTree(0, 0, machine.boots, failure=str(error))
                log.warning("machine.failed", instance=instance_id, reason=str(error))
        self._trees[instance_id] = tree

    async def _start(self, machine: Machine, console: BinaryIO) -> ProcessTree:
        instance_id, boots = machine.instance_id, machine.boots
        text = f"hypervisor: {_now()} boot {boots} of {instance_id} from {machine.image_id}\n"
        console.write(text.encode())
        console.flush()
        popen = await self._runner.start(machine, console)
        try:
            record = boot.write_record(self._layout, instance_id, popen.pid, boots)
        except OSError:  # a full disk: a process that no later hypervisor finds must not stay
            popen.kill()
            raise
        log.info(
            "machine.booted",
            instance=instance_id,
            pid=popen.pid,
            address=machine.address,
            image=machine.image_id,
        )
        return ProcessTree(popen.pid, record.started, boots, popen=popen)

    async def end(self, instance_id: str, *, hard: bool = False, keep: bool = False) -> None:
        """End all processes of a machine: in order, after `grace_s` of the runner with SIGKILL.

        `hard` kills at once. Afterwards nothing is observed, unless `keep` is set: then what was
        observed stays, for a machine that ended by itself and whose end is reported next.
        """
        tree = self._trees.get(instance_id)
        if tree is not None and tree.is_alive and not hard:
            self._runner.request_shutdown(tree.pid)
            await _wait_for_end(tree, self._runner.grace_s)
        await self._kill_members(instance_id)
        await self._runner.release(instance_id)
        if not keep:
            await self.forget(instance_id)

    async def _kill_members(self, instance_id: str) -> None:
        """SIGKILL until a count has no process of this machine."""
        while True:
            self._members = self._census.take()
            tree = self._trees.get(instance_id)
            pids = set(self._members.get(instance_id, ()))
            if tree is not None and tree.is_alive:
                pids.add(tree.pid)
            pids.discard(os.getpid())
            if not pids:
                return
            for pid in pids:
                processes.send(pid, signal.SIGKILL)
            await asyncio.sleep(POLL_S)

    async def forget(self, instance_id: str) -> None:
        """Remove what is known of an instance; the runner releases it."""
        await self._runner.release(instance_id)
        self._trees.pop(instance_id, None)
        boot.drop_record(self._layout, instance_id)

    async def end_all(self) -> None:
        """End every machine, all at the same time."""
        async with asyncio.TaskGroup() as group:
            for instance_id in list(self._trees):
                group.create_task(self.end(instance_id), name=f"end {instance_id}")


async def _wait_for_end(tree: ProcessTree, grace_s: float) -> None:
    """Wait up to `grace_s`. It polls: no signal tells of the end of an adopted process."""
    until = time.monotonic() + grace_s
    while tree.is_alive and time.monotonic() < until:  # noqa: ASYNC110 - see above
        await asyncio.sleep(POLL_S)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
