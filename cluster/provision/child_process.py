"""Child processes of a deployment: output into files, an orderly stop, a lock that they share.

A child writes into a file, not into a pipe, and inherits the descriptor of Terraform's lock. It
goes on undisturbed if `mesaform` dies, and the next run sees that it is still at work.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mesaform.provision.holders import LOOK_S, STOP_TIMEOUT_S, holder_of
from mesaform.provision.lock import HeldLock


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run in `folder`.

    A stop kills what it has not ended after `stop_timeout_s` seconds. `work` names what it does for
    those who wait for it; by default it is the program's name and its first argument.
    """

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    stop_timeout_s: float = STOP_TIMEOUT_S
    work: str = ""


class Child:
    """A started program."""

    def __init__(self, process: Process, stop_timeout_s: float) -> None:
        self._process = process
        self._stop_timeout_s = stop_timeout_s

    @property
    def exit_code(self) -> int:
        return self._process.returncode or 0

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> None:
        """Wait until the program ends. Cancelling stops it in order, and waits for its end."""
        try:
            await asyncio.shield(self._process.wait())
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def stop(self) -> None:
        """Interrupt the program once and wait; kill its group after the time-out.

        Terraform answers SIGINT by finishing or abandoning what is under way; then it writes its
        state. The signal goes to Terraform alone: its providers must live until then.
        """
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), self._stop_timeout_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


class LoggedChild(Child):
    """A program whose output goes to a log. Iterate over `lines`, then read `exit_code`."""

    def __init__(self, process: Process, stop_timeout_s: float, log: Path, offset: int) -> None:
        super().__init__(process, stop_timeout_s)
        self._log = log
        self._offset = offset

    async def lines(self) -> AsyncIterator[list[str]]:
        """New lines as they come, until the program has ended and everything is read."""
        rest = ""
        with self._log.open(encoding="utf-8", errors="replace") as reading:
            reading.seek(self._offset)
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
                    await asyncio.wait_for(self._process.wait(), LOOK_S)
                ended = self._process.returncode is not None


async def start_logged(command: Command, log: Path, held: HeldLock) -> LoggedChild:
    """Start a program whose outputs are appended to a log.

    Raises:
        OSError: the program cannot be run, or the log cannot be written.

    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        offset = os.fstat(descriptor).st_size
        process = await _spawn(command, held, descriptor, descriptor)
    finally:
        os.close(descriptor)
    return LoggedChild(process, command.stop_timeout_s, log, offset)


async def start(command: Command, held: HeldLock, output: int, errors: int) -> Child:
    """Start a program that writes to open files.

    Args:
        command: the program.
        held: the lock of Terraform, which the program inherits.
        output: the descriptor for its standard output.
        errors: the descriptor for its standard error.

    Raises:
        OSError: the program cannot be run.

    """
    return Child(await _spawn(command, held, output, errors), command.stop_timeout_s)


async def _spawn(command: Command, held: HeldLock, output: int, errors: int) -> Process:
    """Start a program in a session of its own, which a terminal's Ctrl-C does not reach."""
    process = await asyncio.create_subprocess_exec(
        *command.arguments,
        cwd=command.folder,
        env=dict(command.environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
        pass_fds=(held.descriptor,),
    )
    work = command.work or f"{Path(command.arguments[0]).name} {command.arguments[1]}"
    if holder := holder_of(process.pid, work):
        held.note(holder)
    return process
