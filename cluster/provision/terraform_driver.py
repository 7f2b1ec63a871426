"""Runs Terraform in the synthesized stacks: one process a stack, independent stacks side by side.

A stack starts when those that it depends on are done; its folder is initialized before, as soon as
a stack that runs has begun to change resources, which mostly is waiting. When a stack fails, the
stacks that run are completed and no other starts. A cancellation interrupts every running
Terraform, which then writes its state (ADR 0002).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal

from mesaform.common.errors import CloudError, MesaformError
from mesaform.common.progress import Report, Stage, stage
from mesaform.provision import progress
from mesaform.provision.child_process import LoggedChild
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.image import BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.lock_conflict import lock_conflict
from mesaform.provision.provider_mirror import drop_checksums
from mesaform.provision.stack_order import Order, creation_order, destruction_order
from mesaform.provision.state_copies import run_protected
from mesaform.provision.state_folders import stack_dir
from mesaform.provision.terraform_run import (
    INITIALIZE,
    TerraformRunner,
    is_initialized,
    open_runner,
)

Verb = Literal["apply", "destroy"]
TITLES: dict[Verb, str] = {"apply": "Deploy", "destroy": "Destroy"}


@dataclass(slots=True)
class StacksRun:
    """One run of Terraform over several stacks.

    Args:
        place: the cluster, synthesized.
        image: what the machines boot from.
        report: receives progress, one stage a stack.
        held: the lock of Terraform, which every Terraform inherits.

    """

    place: ClusterContext
    image: BootImages
    report: Report
    held: HeldLock
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict, init=False)
    _changes_begun: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def run(self, verb: Verb, stacks: Collection[str]) -> None:
        """Apply or destroy the stacks in their order. Cancelling stops Terraform in order.

        Raises:
            MissingPrerequisite: terraform is missing.
            CloudError: it failed; the first cause, with its resource and the log's path.

        """
        folder = self.place.cluster_dir
        runner = await open_runner(self.place, self.image, self.held)
        order = (creation_order if verb == "apply" else destruction_order)(folder, stacks)
        began = time.strftime("%Y%m%d-%H%M%S")

        def log(stack: str) -> Path:
            return folder / "log" / f"{verb}-{began}-{stack}.log"

        async def run_stack(stack: str) -> None:
            async with self._turn(stack):
                await self._run_stack(runner, verb, stack, log(stack))

        async def run_all() -> None:
            async with _beside(self._initialize_waiting(runner, order, log)):
                await run_in_order(order, run_stack)

        await run_protected(folder, run_all(), runner.refresh)

    def _turn(self, stack: str) -> asyncio.Lock:
        """Held while Terraform works in a stack's folder."""
        return self._turns.setdefault(stack, asyncio.Lock())

    async def _initialize_waiting(
        self, runner: TerraformRunner, order: Order, log: Callable[[str], Path]
    ) -> None:
        """Initialize the stacks that wait for others, one after the other.

        A failure is not reported: the stack's own run initializes again, and reports it.
        """
        await self._changes_begun.wait()
        for stack in (stack for stack, needs in order.items() if needs):
            async with self._turn(stack):
                folder = stack_dir(self.place.cluster_dir, stack)
                if not is_initialized(folder):
                    child = await runner.start_logged(folder, INITIALIZE, log(stack))
                    await _read_until_exit(child, _ignore)
                    if not child.exit_code:
                        drop_checksums(folder)

    async def _run_stack(self, runner: TerraformRunner, verb: Verb, stack: str, log: Path) -> None:
        """Run Terraform in one stack.

        Raises:
            SharedBusy: another Terraform holds the state.
            CloudError: it failed.

        """
        folder = stack_dir(self.place.cluster_dir, stack)
        with stage(self.report, f"{TITLES[verb]} {stack}") as under_way:
            stack_report = StackReport(under_way)

            def read(lines: list[str]) -> None:
                stack_report.read(lines)
                if stack_report.is_planned:
                    self._changes_begun.set()

            for arguments in terraform_commands(verb, is_initialized=is_initialized(folder)):
                child = await runner.start_logged(folder, arguments, log)
                await _read_until_exit(child, read)
                if child.exit_code:
                    raise stack_report.failure(stack, verb, child.exit_code, log)
                if arguments == INITIALIZE:
                    drop_checksums(folder)
            under_way.outcome = stack_report.summary


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let work go on during the body; its failure is no one's, and it is cancelled at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.shield(asyncio.gather(task, return_exceptions=True))


def _ignore(_: list[str]) -> None:
    """Leave lines to the log."""


def terraform_commands(verb: Verb, *, is_initialized: bool) -> tuple[tuple[str, ...], ...]:
    """The calls of Terraform for one stack. `init` reads all of the provider, 700 MB."""
    run = (verb, "-auto-approve", "-input=false", "-json")
    return (run,) if is_initialized else (INITIALIZE, run)


async def run_in_order(order: Order, work: Callable[[str], Awaitable[None]]) -> None:
    """Do the work of each stack as soon as the stacks that it waits for are done.

    Raises:
        CloudError: the first failure; work that was under way is done, other work not begun.

    """
    running: dict[asyncio.Future[None], str] = {}
    try:
        await _run_ready(TopologicalSorter(order), work, running)
    except BaseException:
        for task in running:
            task.cancel()
        await asyncio.shield(asyncio.gather(*running, return_exceptions=True))
        raise


async def _run_ready(
    sorter: TopologicalSorter[str],
    work: Callable[[str], Awaitable[None]],
    running: dict[asyncio.Future[None], str],
) -> None:
    """Start work as it becomes ready, until all is done or until what runs after a failure is."""
    sorter.prepare()
    failures: list[BaseException] = []
    while sorter.is_active():
        for stack in () if failures else sorter.get_ready():
            running[asyncio.ensure_future(work(stack))] = stack
        if not running:
            break
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            stack = running.pop(task)
            if error := task.exception():
                failures.append(error)
            else:
                sorter.done(stack)
    if failures:
        raise failures[0]


async def _read_until_exit(child: LoggedChild, read: Callable[[list[str]], None]) -> None:
    """Read the program's output until it exits; stop it when this is cancelled or fails."""
    try:
        async for lines in child.lines():
            read(lines)
    except BaseException:
        await asyncio.shield(child.stop())
        raise


@dataclass(slots=True)
class StackReport:
    """Turns Terraform's events of one stack into progress of its stage."""

    under_way: Stage
    summary: str = ""
    last_line: str = ""
    _steps: str = ""
    _complete: int = 0
    _faults: list[progress.Fault] = field(default_factory=list)
    _failed: list[str] = field(default_factory=list)

    @property
    def is_planned(self) -> bool:
        """Whether Terraform knows what it changes, and begins."""
        return bool(self._steps)

    def read(self, lines: list[str]) -> None:
        texts = [text for line in lines if (text := line.strip(" ╷│╵"))]
        self.last_line = next((text for text in texts if _is_error(text)), self.last_line)
        for event in progress.read(lines):
            self._event(event)

    def _event(self, event: progress.Event) -> None:
        if isinstance(event, progress.Fault):
            self._faults.append(event)
        elif isinstance(event, progress.Planned):
            self._steps = f" of {event.steps}"
        elif isinstance(event, progress.Ended):
            self.summary = event.summary
        elif isinstance(event, progress.Failed):
            self._failed.append(event.resource)
        else:
            self._complete += event.is_complete
            self.under_way.advance(f"{self._complete}{self._steps}: {event.resource} {event.verb}")

    def failure(self, stack: str, verb: Verb, code: int, log: Path) -> MesaformError:
        """The error of a Terraform that ended with `code`."""
        text = self.last_line.removeprefix("Error: ") or f"terraform {verb} ended with {code}"
        cause = progress.first_cause(self._faults, self._failed) or progress.Fault(text)
        return lock_conflict(cause.what, time.time()) or CloudError(
            cause.what,
            where=": ".join(part for part in (stack, cause.resource) if part),
            fix=f"all of its output: {log}\n  then run the same command again: it carries on",
        )


def _is_error(text: str) -> bool:
    return text.startswith("Error: ")
