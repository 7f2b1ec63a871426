"""Runs one job as a framework: subscribe, launch, follow the output, and tear the framework down.

This is `mesaform run` without the command line. `run_state` decides; `scheduler` and `sandbox` do
the I/O.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from mesaform.common.errors import ClusterUnreachable, MesaformError, Permanent, Retryable
from mesaform.mesos.executor_log import ExecutorLogFilter
from mesaform.mesos.run_state import TIMED_OUT, Change, Execution, Job, Task
from mesaform.mesos.sandbox import Sandboxes, SandboxUnreadable
from mesaform.mesos.scheduler import SchedulerClient
from mesaform.mesos.scheduler_api import Call, Event, kill, revive, teardown

WAIT_REPORT_S = 10.0
"""Seconds without progress after which the reason is reported and offers are requested again."""
LEADER_WAIT_S = 15.0
"""Seconds to wait for a leader at the start; an election takes less."""

LEADER_RETRY_S = 0.5
GONE_LOOK_S = 3.0
"""Seconds between two looks for masters while none answers."""

KILL_WAIT_S = 20.0
KILL_RETRY_S = 5.0
TEARDOWN_WAIT_S = 5.0
INTERRUPTED = 130  # 128 + SIGINT, as a shell gives it


class Reporter(Protocol):
    """Receives the progress of a job. No method may block."""

    def changed(self, change: Change) -> None:
        """A task's state changed."""

    def output(self, task: str, stream: str, text: str) -> None:
        """A task wrote `text` to `stdout` or `stderr`."""

    def note(self, line: str) -> None:
        """A remark for the operator."""

    def ended(self, code: int) -> None:
        """The job ended with this exit code."""


@dataclass(slots=True)
class Runner:
    """Runs one job.

    Args:
        job: what to run.
        unique: a suffix that makes the tasks' ids unique.
        leader: gives the leading master's base URL.
        sandboxes: reads the tasks' output.
        session: the caller closes it.
        reporter: receives the progress.
        timeout_s: after this time the tasks are killed and the exit code is 124; None: no limit.
        leader_wait_s: seconds to wait for a leading master at the start.
        is_gone: whether the cluster's masters exist no more; asked while no master answers.
        hides_executor_log: whether lines of Mesos' command executor are left out of stderr.

    """

    job: Job
    unique: str
    leader: Callable[[], Awaitable[str]]
    sandboxes: Sandboxes
    session: aiohttp.ClientSession
    reporter: Reporter
    timeout_s: float | None = None
    leader_wait_s: float = LEADER_WAIT_S
    is_gone: Callable[[], Awaitable[bool]] | None = None
    hides_executor_log: bool = False
    _ended: dict[str, asyncio.Event] = field(default_factory=dict)
    _following: list[asyncio.Task[None]] = field(default_factory=list)
    _is_cut_off: bool = False

    async def run(self, interrupted: asyncio.Event) -> int:
        """Run the job and return its exit code.

        The code is that of the task that failed first, 130 when `interrupted` was set, and 124
        when the time was over.

        Raises:
            ClusterUnreachable: no master leads within `leader_wait_s` of the start, or the masters
                are gone. Otherwise a leader is waited for without a limit.
            Permanent: the master refuses the framework.

        """
        if not await self._wait_for_leader(interrupted):
            return INTERRUPTED
        execution = Execution(self.job, self.unique)
        client = SchedulerClient(self.leader, self.job.framework(), self.session, self._connection)
        news = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group, asyncio.TaskGroup() as followers:

                async def handle(event: Event) -> None:
                    for call in execution.handle(event):
                        await client.call(call)
                    self._report(execution, followers)
                    news.set()

                working = group.create_task(client.run(handle), name="subscription")
                try:
                    code = await self._until_done(execution, client, news, interrupted)
                    await self._wait_for_output()
                finally:
                    await self._tear_down(client)
                    working.cancel()
        except* MesaformError as errors:
            raise _first(errors) from None
        return code

    async def _wait_for_leader(self, interrupted: asyncio.Event) -> bool:
        """Return True when a master leads, and False when interrupted first."""
        give_up_at = asyncio.get_running_loop().time() + self.leader_wait_s
        is_noted = False
        while True:
            try:
                await self.leader()
            except ClusterUnreachable as error:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise
                if not is_noted:
                    self.reporter.note(
                        f"{error.what}; waiting up to {self.leader_wait_s:g} s for a leader"
                    )
                is_noted = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LEADER_RETRY_S):
                        await interrupted.wait()
                    return False
            else:
                return True

    async def _until_done(
        self,
        execution: Execution,
        client: SchedulerClient,
        news: asyncio.Event,
        interrupted: asyncio.Event,
    ) -> int:
        reports = asyncio.create_task(self._report_waits(execution, client), name="wait reports")
        done = asyncio.create_task(_until(lambda: execution.is_done, news), name="all tasks ended")
        stop = asyncio.create_task(interrupted.wait(), name="interrupt")
        gone = asyncio.create_task(self._until_gone(), name="cluster gone")
        try:
            await asyncio.wait(
                {done, stop, gone}, timeout=self.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done():
                gone.result()
            if done.done():
                return execution.exit_code
            self.reporter.note(
                "interrupted: killing the tasks"
                if stop.done()
                else f"not done after {self.timeout_s:g} s: killing the tasks"
            )
            await self._kill_all(execution, client, done)
            return INTERRUPTED if stop.done() else TIMED_OUT
        finally:
            for task in (reports, done, stop, gone):
                task.cancel()
            await asyncio.gather(reports, done, stop, gone, return_exceptions=True)

    async def _until_gone(self) -> None:
        """Watch the cluster while no master answers.

        Raises:
            ClusterUnreachable: its masters exist no more.

        """
        while True:
            await asyncio.sleep(GONE_LOOK_S)
            if self._is_cut_off and self.is_gone is not None and await self.is_gone():
                for event in self._ended.values():
                    event.set()
                raise ClusterUnreachable(
                    "the cluster was taken down while the job ran",
                    fix="raise it again, then run the job again: mesaform up",
                )

    async def _kill_all(
        self, execution: Execution, client: SchedulerClient, done: asyncio.Task[None]
    ) -> None:
        calls = execution.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_WAIT_S):
                while execution.live:
                    await _try_calls(client, calls)
                    await asyncio.wait({done}, timeout=KILL_RETRY_S)
                    calls = [kill(task.id, task.agent_id) for task in execution.live]
        for event in self._ended.values():
            event.set()

    async def _report_waits(self, execution: Execution, client: SchedulerClient) -> None:
        """Report why tasks wait, and send REVIVE, from which the autoscaler sees the demand."""
        while True:
            before = len(execution.waiting)
            await asyncio.sleep(WAIT_REPORT_S)
            if before and len(execution.waiting) == before:
                self.reporter.note(execution.why_waiting())
                await _try_calls(client, [revive()])

    def _report(self, execution: Execution, followers: asyncio.TaskGroup) -> None:
        for change in execution.changes:
            self.reporter.changed(change)
        execution.changes.clear()
        for task in execution.tasks.values():
            if task.is_launched and task.state != "TASK_STAGING" and task.id not in self._ended:
                self._ended[task.id] = asyncio.Event()
                self._following.append(
                    followers.create_task(self._follow(task), name=f"output of {task.name}")
                )
            if task.has_ended:
                self._ended[task.id].set()

    async def _follow(self, task: Task) -> None:
        log = ExecutorLogFilter() if self.hides_executor_log else None

        def write(stream: str, text: str) -> None:
            own = log.feed(text) if log is not None and stream == "stderr" else text
            if own:
                self.reporter.output(task.name, stream, own)

        pause_s = max(0.25, 0.01 * self.job.instances)
        try:
            await self.sandboxes.follow(
                task.agent_id, task.id, self._ended[task.id], write, pause_s
            )
        except SandboxUnreadable as error:
            self.reporter.note(f"the output of {task.name} cannot be read: {error}")
        if log is not None and (rest := log.flush()):
            self.reporter.output(task.name, "stderr", rest)

    async def _tear_down(self, client: SchedulerClient) -> None:
        if client.framework_id is None:
            return
        try:
            async with asyncio.timeout(TEARDOWN_WAIT_S):
                await client.call(teardown())
        except (MesaformError, TimeoutError) as error:
            self.reporter.note(
                f"the framework {client.framework_id} could not be torn down, "
                f"its tasks end within a minute: {error}"
            )

    async def _wait_for_output(self) -> None:
        """Return when all output is read. Some agents remove the sandboxes with the framework."""
        if self._following:
            await asyncio.wait(self._following)

    def _connection(self, line: str) -> None:
        """Report the loss and the return of the connection, and no attempt in between."""
        is_lost = line.startswith("not subscribed")
        if is_lost and not self._is_cut_off:
            cause = line.partition(": ")[2].partition("\n")[0].partition("; again in")[0]
            self.reporter.note(
                "no connection to a leading master; tasks go on, "
                f"waiting for a leader ({cause[:160]})"
            )
        elif not is_lost and self._is_cut_off:
            self.reporter.note(f"{line} again")
        self._is_cut_off = is_lost


async def _until(condition: Callable[[], bool], news: asyncio.Event) -> None:
    while not condition():
        await news.wait()
        news.clear()


async def _try_calls(client: SchedulerClient, calls: list[Call]) -> None:
    """Make calls that the caller repeats until they have an effect; failures are ignored."""
    for call in calls:
        with contextlib.suppress(Retryable, Permanent):
            await client.call(call)


def _first(errors: BaseExceptionGroup[MesaformError]) -> MesaformError:
    """The first error of nested groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, MesaformError):
        raise error
    return error
