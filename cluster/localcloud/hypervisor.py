"""The hypervisor: makes what runs equal to what EC2 says, each second and when EC2 changes.

A pass looks at every instance and takes the step that `reconcile` decides. Boots and kills run as
tasks; while one is under way its instance is `Busy`. What fails is tried again by the next pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path

import aiohttp
import msgspec
import structlog

from mesaform.common import errors, proc
from mesaform.http import UNHANDLED
from mesaform.localcloud import machine_kind, storage, volume_folders
from mesaform.localcloud.instance_identity import IdentityService
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.machine_processes import MachineProcesses
from mesaform.localcloud.machine_runner import MachineRunner
from mesaform.localcloud.metadata import PORT, Metadata
from mesaform.localcloud.operator_credentials import read_credentials
from mesaform.localcloud.process_runner import ProcessRunner
from mesaform.localcloud.protocol import (
    PREFIX,
    Credentials,
    Machine,
    PendingImage,
    StateReport,
    World,
)
from mesaform.localcloud.reconcile import (
    Boot,
    Busy,
    Down,
    Forget,
    Kill,
    Observation,
    Report,
    Step,
    Up,
    next_step,
)

log = structlog.get_logger(__name__)
PASS_INTERVAL_S = 1.0
POLL_S = 25.0
"""How long the endpoint may hold a request for the next world."""
CALL_TIMEOUT_S = 60.0
UNREACHABLE_PAUSE_S = 0.2
FAILED_CALL_PAUSE_S = 0.3
CLEANING_INTERVAL_S = 5.0
DEFECT_PAUSE_S = 2.0
"""The pause after an unexpected error: the log must not fill up."""

Work = Coroutine[None, None, None]
"""A step under way."""


class Ec2Client:
    """Client of the endpoint's own routes. It does not retry: every pass asks again."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._base = url + PREFIX

    async def world(self, after: str = "", wait_s: float = 0.0) -> World:
        """What EC2 says; with `after` not before it differs from that version or time is up.

        The question tells how many errors the metadata service, which runs here, did not foresee.
        """
        errors = UNHANDLED.by_port().get(PORT.name, 0)
        asked = {"after": after, "wait_s": str(wait_s), "unhandled_errors": str(errors)}
        async with self._session.get(f"{self._base}/machines", params=asked) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read(), type=World)

    async def report(self, instance_id: str, report: StateReport) -> None:
        """Report an instance's state; an instance that EC2 does not list is no error."""
        async with self._session.post(
            f"{self._base}/machines/{instance_id}/state", data=msgspec.json.encode(report)
        ) as answer:
            if answer.status != 404:
                answer.raise_for_status()

    async def report_image(self, image_id: str, state: str) -> None:
        """Report that an image is complete, or that it failed."""
        async with self._session.post(
            f"{self._base}/images/{image_id}", json={"state": state}
        ) as answer:
            answer.raise_for_status()

    async def credentials(self, instance_id: str) -> Credentials:
        """Credentials of the instance's role.

        Raises:
            LookupError: the instance has no role.

        """
        async with self._session.post(f"{self._base}/machines/{instance_id}/credentials") as answer:
            if answer.status == 404:
                raise LookupError(await answer.text())
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read(), type=Credentials)


class Hypervisor:
    """Reconciles the desired world of EC2 with the observed processes; steps are its tasks."""

    def __init__(self, layout: Layout, url: str, session: aiohttp.ClientSession) -> None:
        self._layout = layout
        self._ec2 = Ec2Client(session, url)
        self._runner = _runner(layout, url, self._ec2)
        self._processes = MachineProcesses(layout, self._runner)
        self._world: World | None = None
        self._wake = asyncio.Event()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._files = storage.MachineFiles(layout)
        self._cleaned_at = 0.0

    async def run(self) -> None:
        """Run until SIGTERM, then end every machine.

        EC2 does not learn of these ends: the machines boot again with the next start.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self._watch(), name="watch"),
                group.create_task(self._run_passes(group), name="pass"),
            ]
            await self._stopping.wait()
            for task in (*loops, *self._working.values()):
                task.cancel()
        await self._processes.end_all()
        await self._runner.release_unlisted(())
        await self._runner.close()

    def _reap(self) -> None:
        if self._processes.reap():
            self._wake.set()

    async def _watch(self) -> None:
        """Keep `_world` fresh."""
        while not self._stopping.is_set():
            try:
                after = self._world.version if self._world else ""
                self._accept(await self._ec2.world(after, POLL_S if after else 0.0))
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                log.warning("endpoint.unreachable", error=repr(error))
                await asyncio.sleep(UNREACHABLE_PAUSE_S)

    def _accept(self, world: World) -> None:
        """Take a world, unless it is older than the present one: two requests may be under way."""
        if self._world is None or not world.is_older_than(self._world):
            self._world = world
            self._wake.set()

    async def _run_passes(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                # wait_for of Python 3.11 loses a cancellation that comes with the event.
                async with asyncio.timeout(PASS_INTERVAL_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._world is not None:
                self._pass(self._world, group)

    def _pass(self, world: World, group: asyncio.TaskGroup) -> None:
        machines = {machine.instance_id: machine for machine in world.machines}
        self._processes.refresh({*machines, *world.known})
        self._runner.update(world)
        for instance_id in {*machines, *self._processes.known()}:
            machine = machines.get(instance_id)
            if machine is None and not world.is_complete:
                continue  # it may be in the record that was set aside
            if machine is not None:
                volume_folders.show_volumes(self._layout, machine)
            self._begin_step(instance_id, machine, world.boot_delay_s, group)
        for image in world.images:
            self._begin(group, image.image_id, self._make_image(image))
        self._begin_cleaning(group, world)

    def _begin_step(
        self,
        instance_id: str,
        machine: Machine | None,
        boot_delay_s: float,
        group: asyncio.TaskGroup,
    ) -> None:
        observed = self._observe(instance_id)
        step = next_step(machine, observed, time.time(), boot_delay_s)
        if step != "nothing":
            self._begin(group, instance_id, self._take(instance_id, machine, step))
        elif machine is not None and isinstance(observed, Up):
            self._open_metadata(group, machine)

    def _open_metadata(self, group: asyncio.TaskGroup, machine: Machine) -> None:
        """Open the metadata service of a machine that an earlier hypervisor booted."""
        if not self._runner.is_served(machine):
            self._begin(group, machine.instance_id, self._runner.serve(machine))

    def _observe(self, instance_id: str) -> Observation:
        return Busy() if instance_id in self._working else self._processes.observe(instance_id)

    def _begin(self, group: asyncio.TaskGroup, key: str, work: Work) -> None:
        if key in self._working:
            work.close()
            return
        task = group.create_task(self._guarded(key, work), name=key)
        self._working[key] = task
        task.add_done_callback(lambda _: self._finished(key))

    def _finished(self, key: str) -> None:
        self._working.pop(key, None)
        self._wake.set()

    async def _guarded(self, key: str, work: Work) -> None:
        try:
            await work
        except (aiohttp.ClientError, errors.Busy, OSError, TimeoutError) as error:
            log.warning("step.failed", subject=key, error=repr(error))
            await asyncio.sleep(FAILED_CALL_PAUSE_S)
        except Exception:  # an error of one machine must not end the others
            log.exception("step.failed", subject=key)
            await asyncio.sleep(DEFECT_PAUSE_S)

    async def _take(self, instance_id: str, machine: Machine | None, step: Step) -> None:
        if isinstance(step, Boot) and machine is not None:
            await self._boot(machine, step.after_s)
        elif isinstance(step, Kill):
            await self._processes.end(instance_id, hard=step.hard)
        elif isinstance(step, Forget):
            await self._processes.forget(instance_id)
        elif isinstance(step, Report):
            await self._report(instance_id, step)

    async def _report(self, instance_id: str, step: Report) -> None:
        if isinstance(self._processes.observe(instance_id), Down):
            await self._processes.end(instance_id, hard=True, keep=True)
        await self._ec2.report(instance_id, step.report)
        if step.forget:
            await self._processes.forget(instance_id)
        self._accept(await self._ec2.world())  # the next pass must know the report's effect

    async def _boot(self, machine: Machine, after_s: float) -> None:
        if after_s > 0:
            # The next pass decides again: it may be terminated, or the delay be removed.
            await asyncio.sleep(min(after_s, PASS_INTERVAL_S))
            return
        await self._processes.boot(machine)

    async def _make_image(self, image: PendingImage) -> None:
        is_complete = await asyncio.to_thread(self._runner.make_image, image)
        await self._ec2.report_image(image.image_id, "available" if is_complete else "failed")
        self._accept(await self._ec2.world())

    def _begin_cleaning(self, group: asyncio.TaskGroup, world: World) -> None:
        is_due = time.monotonic() - self._cleaned_at >= CLEANING_INTERVAL_S
        known = self._processes.known()
        if is_due:
            self._cleaned_at = time.monotonic()
            self._begin(group, "logs", asyncio.to_thread(self._files.rotate, known))
        if not world.is_complete:
            return
        if unused := storage.unused_images(self._layout, world):
            self._begin(group, "images", asyncio.to_thread(storage.remove, unused))
        if deleted := volume_folders.unused_volumes(self._layout, world):
            self._begin(group, "volumes", asyncio.to_thread(storage.remove, deleted))
        if is_due:
            kept = {machine.instance_id for machine in world.machines} | known
            self._begin(group, "leftovers", self._runner.release_unlisted(kept))
            folders = self._files.folders(world, known)
            work = asyncio.to_thread(self._files.clean, folders, world.known, time.time())
            self._begin(group, "cleaning", work)


def _runner(layout: Layout, url: str, ec2: Ec2Client) -> MachineRunner:
    """The runner of this local cloud's kind of machines."""
    identity = IdentityService(layout)
    if machine_kind.read(layout) == "processes":
        return ProcessRunner(layout, url, Metadata(ec2.credentials, identity))
    from mesaform.localcloud.containers.runner import ContainerRunner

    return ContainerRunner(layout, url, ec2.credentials, identity)


async def _main(layout: Layout, url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {read_credentials(layout).control_token}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        await Hypervisor(layout, url, session).run()


def run(layout: Layout, url: str) -> None:
    """The process's entry point."""
    proc.become_subreaper()
    os.chdir(Path("/"))
    log.info("hypervisor.ready", pid=os.getpid())
    asyncio.run(_main(layout, url))
