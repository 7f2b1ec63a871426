"""The hypervisor: makes what runs equal to what EC2 says, twice a second and at once when EC2 changes.

One pass looks at every instance and takes the next step that `reconcile` names. Boots and kills run as tasks; while one is
under way its instance is `Busy`. What a pass could not do, the next one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import structlog

from mesaform.localcloud import processes, storage
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.machine_processes import MachineProcesses
from mesaform.localcloud.metadata import Metadata
from mesaform.localcloud.protocol import PREFIX, Credentials, Machine, StateReport, World
from mesaform.localcloud.reconcile import (
    Boot,
    Busy,
    Down,
    Forget,
    Kill,
    Report,
    Seen,
    Step,
    Up,
    next_step,
)

log = structlog.get_logger(__name__)
PASS_EVERY_S = 0.5
POLL_S = 25.0
CALL_TIMEOUT_S = 60.0


class Ec2Client:
    """The endpoint's side door. Retries while the endpoint restarts are the caller's: every pass asks again."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._base = url + PREFIX

    async def world(self, after: str = "", wait_s: float = 0.0) -> World:
        async with self._session.get(
            f"{self._base}/machines", params={"after": after, "wait_s": str(wait_s)}
        ) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read(), type=World)

    async def report(self, instance_id: str, report: StateReport) -> None:
        async with self._session.post(
            f"{self._base}/machines/{instance_id}/state", data=msgspec.json.encode(report)
        ) as answer:
            if answer.status != 404:
                answer.raise_for_status()

    async def report_image(self, image_id: str, state: str) -> None:
        async with self._session.post(
            f"{self._base}/images/{image_id}", json={"state": state}
        ) as answer:
            answer.raise_for_status()

    async def credentials(self, instance_id: str) -> Credentials:
        async with self._session.post(f"{self._base}/machines/{instance_id}/credentials") as answer:
            if answer.status == 404:
                raise LookupError(await answer.text())
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read(), type=Credentials)


class Hypervisor:
    """Desired: the world as EC2 last told it. Observed: `Trees`. Requested: the tasks under way."""

    def __init__(self, layout: Layout, url: str, session: aiohttp.ClientSession) -> None:
        self._layout = layout
        self._ec2 = Ec2Client(session, url)
        self._metadata = Metadata(self._ec2.credentials)
        self._trees = MachineProcesses(layout, url, self._metadata)
        self._world: World | None = None
        self._wake = asyncio.Event()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until SIGTERM; then every machine is ended, though not in EC2's eyes: they boot again with the next start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        await self._metadata.start()
        async with asyncio.TaskGroup() as group:
            eternal = [
                group.create_task(self._watch(), name="watch"),
                group.create_task(self._pass_for_ever(group), name="pass"),
            ]
            await self._stopping.wait()
            for task in (*eternal, *self._working.values()):
                task.cancel()
        await self._trees.end_all()
        await self._metadata.stop()

    def _reap(self) -> None:
        if self._trees.reap():
            self._wake.set()

    async def _watch(self) -> None:
        """Keep `_world` fresh."""
        while not self._stopping.is_set():
            try:
                after = self._world.version if self._world else ""
                self._accept(await self._ec2.world(after, POLL_S if after else 0.0))
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                log.warning("endpoint.unreachable", error=repr(error))
                await asyncio.sleep(0.2)

    def _accept(self, world: World) -> None:
        """Two requests may be under way; an older answer that comes later must not bring back what has ended."""
        if self._world is None or not world.is_older_than(self._world):
            self._world = world
            self._wake.set()

    async def _pass_for_ever(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    PASS_EVERY_S
                ):  # not wait_for: 3.11's swallows a cancellation that comes with the event
                    await self._wake.wait()
            self._wake.clear()
            if self._world is not None:
                self._pass(self._world, group)

    def _pass(self, world: World, group: asyncio.TaskGroup) -> None:
        machines = {machine.instance_id: machine for machine in world.machines}
        self._trees.look({*machines, *world.known})
        now = time.time()
        for instance_id in {*machines, *self._trees.known()}:
            machine = machines.get(instance_id)
            if machine is not None:
                self._metadata.update(machine)
            seen = self._seen(instance_id)
            step = next_step(machine, seen, now, world.boot_delay_s)
            if step != "nothing":
                self._begin(group, instance_id, self._take(instance_id, machine, step))
            elif (
                machine is not None
                and isinstance(seen, Up)
                and not self._metadata.listens_for(machine)
            ):
                self._begin(
                    group, instance_id, self._metadata.open(machine)
                )  # an earlier hypervisor booted it
        for image in world.images:
            self._begin(group, image.image_id, self._make_image(image))
        self._begin_cleaning(group, world)

    def _seen(self, instance_id: str) -> Seen:
        return Busy() if instance_id in self._working else self._trees.seen(instance_id)

    def _begin(self, group: asyncio.TaskGroup, key: str, work: Coroutine[Any, Any, None]) -> None:
        if key in self._working:
            work.close()
            return
        task = group.create_task(self._guarded(key, work), name=key)
        self._working[key] = task
        task.add_done_callback(lambda _: self._finished(key))

    def _finished(self, key: str) -> None:
        self._working.pop(key, None)
        self._wake.set()

    async def _guarded(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("step.failed", subject=key, error=repr(error))
            await asyncio.sleep(0.3)
        except Exception:  # one machine's trouble must not end all others
            log.exception("step.failed", subject=key)
            await asyncio.sleep(2.0)

    async def _take(self, instance_id: str, machine: Machine | None, step: Step) -> None:
        if isinstance(step, Boot) and machine is not None:
            await self._boot(machine, step.after_s)
        elif isinstance(step, Kill):
            await self._trees.end(instance_id, hard=step.hard)
        elif isinstance(step, Forget):
            await self._trees.forget(instance_id)
        elif isinstance(step, Report):
            if isinstance(self._trees.seen(instance_id), Down):
                await self._trees.end(instance_id, hard=True, keep=True)
            await self._ec2.report(instance_id, step.report)
            if step.forget:
                await self._trees.forget(instance_id)
            self._accept(await self._ec2.world())  # the next pass must know what was reported

    async def _boot(self, machine: Machine, after_s: float) -> None:
        if after_s > 0:
            await asyncio.sleep(
                min(after_s, PASS_EVERY_S)
            )  # then look again: it may have been terminated, or the delay lifted
            return
        await self._trees.boot(machine)

    async def _make_image(self, image: Any) -> None:
        made = await asyncio.to_thread(storage.make_image, self._layout, image)
        await self._ec2.report_image(image.image_id, "available" if made else "failed")
        self._accept(await self._ec2.world())

    def _begin_cleaning(self, group: asyncio.TaskGroup, world: World) -> None:
        if garbage := storage.garbage(self._layout, world, set(self._trees.known())):
            self._begin(group, "cleaning", asyncio.to_thread(storage.remove, garbage))


async def _main(layout: Layout, url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await Hypervisor(layout, url, session).run()


def run(layout: Layout, url: str) -> None:
    """The process's entry."""
    processes.become_subreaper()
    os.chdir(Path("/"))
    log.info("hypervisor.ready", pid=os.getpid())
    asyncio.run(_main(layout, url))
