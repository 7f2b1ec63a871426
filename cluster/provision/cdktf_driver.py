"""Runs cdktf, reports its progress, and stops it so that Terraform loses no state.

cdktf answers a signal by killing Terraform, whose unwritten state would be lost. So signals go to
Terraform alone: it finishes or abandons what is under way and writes its state; then cdktf ends by
itself. cdktf writes into a log file, not into a pipe, and holds a lock of its own: it goes on
undisturbed if `mesaform` dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mesaform.common.errors import CloudError
from mesaform.common.progress import Report
from mesaform.provision import environment, progress, tools
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.image import BootImage
from mesaform.provision.lock import HeldLock
from mesaform.provision.state_folders import STACKS, synth_dir

LOOK_S = 0.2
"""Seconds between two looks at the log."""
STOP_TIMEOUT_S = 180.0
"""Seconds until a stop kills: beyond the longest waits of the AWS provider."""
ALONE_S = 2.0
"""Seconds without a Terraform after a stop until cdktf has nothing left to do."""
TERRAFORM_VERBS = frozenset({"init", "plan", "apply", "destroy", "refresh", "output", "show"})


@dataclass(frozen=True, slots=True)
class CdktfCommand:
    """A call of cdktf: `verb` is `deploy`, `synth` or `destroy`.

    `destroy`, and `deploy` if `is_synthesized`, use the stacks' JSON of an earlier synthesis.
    Stacks that `destroy` is not given must be gone already.
    """

    verb: str
    stacks: tuple[str, ...] = ()
    is_synthesized: bool = False


async def run(
    place: ClusterContext,
    command: CdktfCommand,
    image: BootImage,
    report: Report,
    held: HeldLock,
) -> None:
    """Run cdktf. Cancelling stops Terraform in order before it returns.

    Args:
        place: the cluster.
        command: what to run.
        image: what the machines boot from.
        report: receives progress.
        held: the lock of Terraform; cdktf inherits it.

    Raises:
        MissingPrerequisite: cdktf or terraform is missing.
        CloudError: it failed; the first cause, with its resource and the log's path.

    """
    verb, stacks = command.verb, command.stacks
    settled = await asyncio.to_thread(environment.prepare_environment, place, image)
    await asyncio.to_thread(tools.install_tools, report)
    program = tools.cdktf_program()
    log = place.cluster_dir / "log" / f"{verb}-{time.strftime('%Y%m%d-%H%M%S')}.log"
    with _opened(log) as writing:
        child = await asyncio.create_subprocess_exec(
            str(program),
            verb,
            *stacks,
            *_options(command, settled.options),
            "--output",
            str(synth_dir(place.cluster_dir)),
            cwd=tools.tools_folder(),
            env=settled.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
            pass_fds=(held.descriptor,),
        )
        held.note(f"pid {child.pid}: cdktf {verb}, started by mesaform (pid {os.getpid()})")
        progress = ProgressReporter(verb, stacks, report, is_synthesized=command.is_synthesized)
        await _report_until_exit(child, log, progress)


async def _report_until_exit(
    child: asyncio.subprocess.Process, log: Path, progress: ProgressReporter
) -> None:
    """Report the output of cdktf until it exits; stop it when this is cancelled or fails.

    Raises:
        CloudError: cdktf failed.

    """
    try:
        async for lines in _follow(log, child):
            progress.read(lines)
    except BaseException:
        await asyncio.shield(_stop(child))
        progress.abandon("stopped")
        raise
    progress.end(child.returncode or 0, log)


def _options(command: CdktfCommand, for_terraform: tuple[str, ...]) -> tuple[str, ...]:
    """Command-line options of cdktf.

    `--ignore-missing-stack-dependencies` is not used: with several stacks cdktf 0.21 spins and
    starts Terraform again and again (ADR 0002). All stacks are named instead.
    """
    if command.verb == "synth":
        return ()
    is_reused = command.verb == "destroy" or command.is_synthesized
    again = ("--skip-synth",) if is_reused else ()
    return ("--auto-approve", *again, *for_terraform)


@contextmanager
def _opened(log: Path) -> Iterator[int]:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _follow(log: Path, child: Process) -> AsyncIterator[list[str]]:
    """The log's lines as they come, until the child has ended and everything is read."""
    rest = ""
    with log.open(encoding="utf-8", errors="replace") as reading:
        ended = False
        while True:
            rest += reading.read()
            *lines, rest = rest.split("\n")
            if lines:
                yield lines
            if ended:
                yield [rest]
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), LOOK_S)
            ended = child.returncode is not None


async def _stop(child: Process) -> None:
    """Interrupt each Terraform once, and wait; kill what remains after `STOP_TIMEOUT_S`."""
    signalled: set[int] = set()
    began = alone_since = time.monotonic()
    while child.returncode is None:
        now = time.monotonic()
        running = terraforms(child.pid)
        if running:
            alone_since = now
        for process in running:
            if process.pid not in signalled:
                signalled.add(process.pid)
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)
        if now - began > STOP_TIMEOUT_S:
            _signal_group(child.pid, signal.SIGKILL)
        elif now - alone_since > ALONE_S:
            _signal_group(child.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), LOOK_S)


def terraforms(pid: int) -> list[psutil.Process]:
    """The Terraform processes below a cdktf, without their providers and without synthesis."""
    processes = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                words = process.cmdline()
                if any("terraform" in word for word in words[:3]) and TERRAFORM_VERBS & set(
                    words[1:]
                ):
                    processes.append(process)
    return processes


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


@dataclass(slots=True)
class ProgressReporter:
    """Turns events into stages of a report: one a stack."""

    verb: str
    stacks: tuple[str, ...]
    report: Report
    is_synthesized: bool = False
    _reader: progress.Reader = field(init=False)
    _open: set[str] = field(default_factory=set)
    _closed: set[str] = field(default_factory=set)
    _planned: dict[str, int] = field(default_factory=dict)
    _done: dict[str, int] = field(default_factory=dict)
    _faults: list[progress.Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = progress.Reader(self.stacks or STACKS)
        if self.verb == "destroy" or self.is_synthesized:
            self._closed.add(self._synthesis)
        else:
            self.report.started(self._synthesis, "the stacks as Terraform's JSON")

    _synthesis = "Describe the stacks"

    def _stage(self, stack: str) -> str:
        return f"{self.verb.capitalize()} {stack}"

    def read(self, lines: list[str]) -> None:
        for event in self._reader.read(lines):
            self._event(event)
        if self._synthesis not in self._closed and any("Initializing" in line for line in lines):
            self._close_synthesis()

    def _event(self, event: progress.Event) -> None:
        if isinstance(event, progress.Fault):
            self._faults.append(event)
            return
        self._close_synthesis()
        stack = event.stack
        if stack not in self._open and stack not in self._closed:
            self._open.add(stack)
            self.report.started(self._stage(stack))
        if isinstance(event, progress.Planned):
            self._planned[stack] = event.steps
        elif isinstance(event, progress.Ended):
            self._end_stack(stack, event.summary)
        else:
            if event.verb in {"created", "changed", "destroyed"}:
                self._done[stack] = self._done.get(stack, 0) + 1
            if stack in self._open:
                self.report.advanced(self._stage(stack), self._where(stack, event))

    def _where(self, stack: str, step: progress.Step) -> str:
        of = f" of {self._planned[stack]}" if stack in self._planned else ""
        return f"{self._done.get(stack, 0)}{of}: {step.resource} {step.verb}"

    def _end_stack(self, stack: str, summary: str) -> None:
        if stack in self._open:
            self._open.discard(stack)
            self._closed.add(stack)
            self.report.done(self._stage(stack), summary.rpartition("Resources: ")[2].rstrip("."))

    def _close_synthesis(self) -> None:
        if self._synthesis not in self._closed:
            self._closed.add(self._synthesis)
            self.report.done(self._synthesis)

    def abandon(self, why: str) -> None:
        """Whatever is still open ended badly."""
        for stack in sorted(self._open):
            self.report.failed(self._stage(stack), why)
        self._open.clear()
        if self._synthesis not in self._closed:
            self._closed.add(self._synthesis)
            self.report.failed(self._synthesis, why)

    def end(self, code: int, log: Path) -> None:
        """Settle the stages by cdktf's exit code.

        Raises:
            CloudError: it failed.

        """
        if code == 0:
            self._close_synthesis()
            for stack in sorted(self._open):
                self._end_stack(stack, "")
            return
        for event in self._reader.finish():
            self._event(event)
        cause = progress.first_cause(self._faults) or progress.Fault(f"cdktf ended with {code}")
        where = ": ".join(part for part in (cause.stack, cause.resource) if part)
        self.abandon(cause.what)
        raise CloudError(
            cause.what,
            where=where or f"cdktf {self.verb}",
            fix=f"everything it said: {log}\n  then run the same command again: it carries on",
        )
