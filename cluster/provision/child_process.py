"""Child processes of a deployment: output into a log file, an orderly stop, a lock that they share.

A child writes into a log file, not into a pipe, and inherits the descriptor of Terraform's lock. It
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
    """A program to run in `folder`; its output is appended to `log`."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    log: Path


class Child:
    """A started program. Iterate over `lines` to its end, then read `exit_code`."""

    def __init__(self, process: Process, log: Path, offset: int) -> None:
        self._process = process
        self._log = log
        self._offset = offset

    @property
    def exit_code(self) -> int:
        return self._process.returncode or 0

    @property
    def pid(self) -> int:
        return self._process.pid

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

    async def stop(self) -> None:
        """Interrupt the program once and wait; kill its group after `STOP_TIMEOUT_S`.

        Terraform answers SIGINT by finishing or abandoning what is under way; then it writes its
        state. The signal goes to Terraform alone: its providers must live until then.
        """
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


async def start(command: Command, held: HeldLock) -> Child:
    """Start a program in a session of its own, which a terminal's Ctrl-C does not reach.

    Raises:
        OSError: the program cannot be run, or the log cannot be written.

    """
    command.log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        offset = os.fstat(descriptor).st_size
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            cwd=command.folder,
            env=dict(command.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            pass_fds=(held.descriptor,),
        )
    finally:
        os.close(descriptor)
    work = f"{Path(command.arguments[0]).name} {command.arguments[1]}"
    if holder := holder_of(process.pid, work):
        held.note(holder)
    return Child(process, command.log, offset)
