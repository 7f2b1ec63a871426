"""`mesaform run` without the command line: subscribe, launch, follow, and tear down whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from mesaform.common.errors import ClusterUnreachable, MesaformError, Permanent, Retryable
from mesaform.mesos.run_state import TIMED_OUT, Change, Execution, Job, Task
from mesaform.mesos.sandbox import Sandboxes, SandboxUnreadable
from mesaform.mesos.scheduler import SchedulerClient
from mesaform.mesos.scheduler_api import Call, Event, kill, revive, teardown

COMPLAIN_AFTER_S = 10.0
LEADER_WAIT_S = 15.0
"""Longer than masters need to elect another leader: a job begun meanwhile waits instead of failing."""

LOOK_AGAIN_S = 0.5
KILL_WAIT_S = 20.0
KILL_AGAIN_S = 5.0
TEARDOWN_WAIT_S = 5.0
INTERRUPTED = 130


class Reporter(Protocol):
    """Where news of a job goes."""

    def changed(self, change: Change) -> None: ...
    def output(self, task: str, stream: str, text: str) -> None: ...
    def note(self, line: str) -> None: ...
    def ended(self, code: int) -> None: ...


@dataclass(slots=True)
class Runner:
    """Runs one job.

    Args:
        job: what to run.
        unique: makes the tasks' ids unique.
        leader: finds the leading master's base URL.
        sandboxes: reads the tasks' output.
        session: owned by the caller.
        reporter: is told everything.
        timeout_s: after this long the tasks are killed and the code is 124; None waits for ever.
        leader_wait_s: how long a leading master is waited for at the start.

    """

    job: Job
    unique: str
    leader: Callable[[], Awaitable[str]]
    sandboxes: Sandboxes
    session: aiohttp.ClientSession
    reporter: Reporter
    timeout_s: float | None = None
    leader_wait_s: float = LEADER_WAIT_S
    _ended: dict[str, asyncio.Event] = field(default_factory=dict)
    _following: list[asyncio.Task[None]] = field(default_factory=list)
    _cut_off: bool = False

    async def run(self, interrupted: asyncio.Event) -> int:
        """The exit code: the first failing task's own, 130 when `interrupted` was set, 124 when the time was over.

        Raises:
            ClusterUnreachable: no master leads within `leader_wait_s` of the start; later a leader is waited for as long as it takes.
            Permanent: the master refuses the framework.

        """
        if not await self._leader_is_there(interrupted):
            return INTERRUPTED
        execution = Execution(self.job, self.unique)
        client = SchedulerClient(self.leader, self.job.framework(), self.session, self._connection)
        news = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group, asyncio.TaskGroup() as followers:

                async def handle(event: Event) -> None:
                    for call in execution.handle(event):
                        await client.call(call)
                    self._tell(execution, followers)
                    news.set()

                working = group.create_task(client.run(handle), name="subscription")
                try:
                    code = await self._until_done(execution, client, news, interrupted)
                    await self._all_followed()
                finally:
                    await self._tear_down(client)
                    working.cancel()
        except* MesaformError as errors:
            raise _first(errors) from None
        return code

    async def _leader_is_there(self, interrupted: asyncio.Event) -> bool:
        """False when interrupted first."""
        give_up_at = asyncio.get_running_loop().time() + self.leader_wait_s
        said = False
        while True:
            try:
                await self.leader()
            except ClusterUnreachable as error:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise
                if not said:
                    self.reporter.note(
                        f"{error.what}; waiting up to {self.leader_wait_s:g} s for a leader"
                    )
                said = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
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
        complaints = asyncio.create_task(self._complain(execution, client), name="complaints")
        done = asyncio.create_task(_until(lambda: execution.done, news), name="all tasks ended")
        stop = asyncio.create_task(interrupted.wait(), name="interrupt")
        try:
            await asyncio.wait(
                {done, stop}, timeout=self.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
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
            for task in (complaints, done, stop):
                task.cancel()
            await asyncio.gather(complaints, done, stop, return_exceptions=True)

    async def _kill_all(
        self, execution: Execution, client: SchedulerClient, done: asyncio.Task[None]
    ) -> None:
        calls = execution.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_WAIT_S):
                while execution.live:
                    await _say(client, calls)
                    await asyncio.wait({done}, timeout=KILL_AGAIN_S)
                    calls = [kill(task.id, task.agent_id) for task in execution.live]
        for event in self._ended.values():
            event.set()

    async def _complain(self, execution: Execution, client: SchedulerClient) -> None:
        """While something waits, say why, and ask anew for offers: that is also what an autoscaler notices."""
        while True:
            before = len(execution.waiting)
            await asyncio.sleep(COMPLAIN_AFTER_S)
            if before and len(execution.waiting) == before:
                self.reporter.note(execution.why_waiting())
                await _say(client, [revive()])

    def _tell(self, execution: Execution, followers: asyncio.TaskGroup) -> None:
        for change in execution.changes:
            self.reporter.changed(change)
        execution.changes.clear()
        for task in execution.tasks.values():
            if task.launched and task.state != "TASK_STAGING" and task.id not in self._ended:
                self._ended[task.id] = asyncio.Event()
                self._following.append(
                    followers.create_task(self._follow(task), name=f"output of {task.name}")
                )
            if task.ended:
                self._ended[task.id].set()

    async def _follow(self, task: Task) -> None:
        def write(stream: str, text: str) -> None:
            self.reporter.output(task.name, stream, text)

        pause_s = max(0.25, 0.01 * self.job.instances)
        try:
            await self.sandboxes.follow(
                task.agent_id, task.id, self._ended[task.id], write, pause_s
            )
        except SandboxUnreadable as error:
            self.reporter.note(f"the output of {task.name} cannot be read: {error}")

    async def _tear_down(self, client: SchedulerClient) -> None:
        if client.framework_id is None:
            return
        try:
            async with asyncio.timeout(TEARDOWN_WAIT_S):
                await client.call(teardown())
        except (MesaformError, TimeoutError) as error:
            self.reporter.note(
                f"the framework {client.framework_id} could not be torn down, its tasks end within a minute: {error}"
            )

    async def _all_followed(self) -> None:
        """The framework is torn down only when all output was read: some agents forget a framework's sandboxes with it."""
        if self._following:
            await asyncio.wait(self._following)

    def _connection(self, line: str) -> None:
        """Say once that the connection is gone, and once that it is back: attempts in between are of no interest."""
        lost = line.startswith("not subscribed")
        if lost and not self._cut_off:
            why = line.partition(": ")[2].partition("\n")[0].partition("; again in")[0]
            self.reporter.note(
                f"no connection to a leading master; tasks go on, waiting for a leader ({why[:160]})"
            )
        elif not lost and self._cut_off:
            self.reporter.note(f"{line} again")
        self._cut_off = lost


async def _until(holds: Callable[[], bool], news: asyncio.Event) -> None:
    while not holds():
        await news.wait()
        news.clear()


async def _say(client: SchedulerClient, calls: list[Call]) -> None:
    """Calls that are repeated anyway: one that does not get through now is said again later."""
    for call in calls:
        with contextlib.suppress(Retryable, Permanent):
            await client.call(call)


def _first(errors: BaseExceptionGroup[MesaformError]) -> MesaformError:
    """The first error of a nest of groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, MesaformError):
        raise error
    return error
