"""Inbox of interruption notices from the SQS queue, from machines and from EC2's scheduled events.

A notice stays in the inbox until a pass has recorded it. A message is deleted from the queue after
its notice is journaled, so a change of leader loses none. A message that cannot be parsed is logged
and deleted. Depends on `aws.ports` and the notice parser of `interruption`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import structlog

from mesaform.autoscaler.interruption.notice import (
    SEVERITY,
    ParsedNotice,
    Unreadable,
    notice_of_machine,
    read,
)
from mesaform.autoscaler.model.notice import Notice
from mesaform.aws.ports import Message, Notices, ScheduledEvent
from mesaform.common.errors import MesaformError, NotFound
from mesaform.topology.user_data import MachineNotice

T = TypeVar("T")
LONG_POLL_S = 20.0
ANSWERS_WITHIN_S = 2 * LONG_POLL_S
"""Seconds after the last answer of the queue in which its events count as arriving."""

SCHEDULE_EVERY_S = 300.0
PATIENCE_S = 5.0
SHOWN = 300

MOST_PENDING = 10_000
"""Passes fail for long if so many notices wait."""

log = structlog.get_logger()


class Inbox:
    """Inbox of a term of leadership.

    `listen` fills it. A pass calls `take`, records the notices, and then calls `settle`.

    Args:
        notices: the cloud's queue and schedule.
        clock: seconds since the epoch.
        patience_s: pause in seconds after a queue is missing or does not answer.
        most_pending: notices that wait for a pass; further messages stay in the queue.

    Attributes:
        woken: set when a notice about a machine of the cluster arrives.

    """

    def __init__(
        self,
        notices: Notices,
        clock: Callable[[], float],
        patience_s: float = PATIENCE_S,
        most_pending: int = MOST_PENDING,
    ) -> None:
        self._most_pending = most_pending
        self._patience_s = patience_s
        self._notices = notices
        self._clock = clock
        self.woken = asyncio.Event()
        self._received_at = float("-inf")
        self._pending: dict[str, tuple[ParsedNotice, Message | None]] = {}
        self._taken: tuple[str, ...] = ()
        self._addresses: Mapping[str, str] | None = None
        self._standing: Mapping[str, Notice] = {}

    @property
    def is_receiving(self) -> bool:
        """Whether the queue answered lately, so that what it gets arrives."""
        return time.monotonic() - self._received_at < ANSWERS_WITHIN_S

    def take(self) -> list[ParsedNotice]:
        """Return the notices that are not settled. They are returned again if the pass fails."""
        self.woken.clear()
        self._taken = tuple(self._pending)
        return [self._pending[name][0] for name in self._taken]

    async def settle(self) -> None:
        """Delete the messages of the notices that were taken. The caller has journaled them.

        A message whose deletion fails arrives again and has no effect.
        """
        messages = [
            message
            for name in self._taken
            if (message := self._pending.pop(name, (None, None))[1]) is not None
        ]
        self._taken = ()
        await self._delete(messages)

    def update(self, addresses: Mapping[str, str], standing: Mapping[str, Notice]) -> None:
        """Set the machines' addresses and the recorded notices of the last pass."""
        self._addresses, self._standing = addresses, standing

    def report(self, reported: MachineNotice, address: str) -> bool:
        """Add the notice of a machine about itself; return whether it is already recorded.

        Raises:
            PermissionError: the sender's address is not that of the machine.

        """
        if self._addresses is None:
            return False  # Addresses are unknown before the first pass; the machine repeats it.
        if self._addresses.get(reported.instance_id) != address:
            raise PermissionError(f"{address} is not the address of {reported.instance_id}")
        standing = self._standing.get(reported.instance_id)
        if (
            standing is not None
            and SEVERITY[standing.kind] >= SEVERITY[reported.kind]
            and (not reported.ends_at or standing.ends_at <= reported.ends_at)
        ):
            return True
        self._put(
            f"{reported.instance_id}/{reported.kind}",
            ParsedNotice((notice_of_machine(reported),)),
            None,
        )
        return False

    async def listen(self) -> None:
        """Receive messages until cancelled."""
        while True:
            try:
                await self._receive()
            except NotFound:
                log.info(
                    "the queue of notices does not exist yet; machines report their own notices"
                )
                await asyncio.sleep(self._patience_s)
            except MesaformError as error:
                log.warning("notices cannot be received", error=str(error))
                await asyncio.sleep(self._patience_s)
            except Exception:  # A fault of this program must not end the task.
                log.exception("notices")
                await asyncio.sleep(self._patience_s)

    async def watch_schedule(self) -> None:
        """Poll EC2's scheduled events until cancelled, because a message may be missed."""
        while True:
            try:
                for event in await run_in_daemon_thread(self._notices.scheduled):
                    self._scheduled(event)
            except MesaformError as error:
                log.warning("scheduled events cannot be read", error=str(error))
            except Exception:  # A fault of this program must not end the task.
                log.exception("scheduled events")
            await asyncio.sleep(SCHEDULE_EVERY_S)

    async def _receive(self) -> None:
        if len(self._pending) >= self._most_pending:
            await asyncio.sleep(self._patience_s)
            return
        messages = await run_in_daemon_thread(lambda: self._notices.receive(LONG_POLL_S))
        self._received_at = time.monotonic()
        useless = [message for message in messages if not self._arrived(message)]
        await self._delete(useless)

    def _arrived(self, message: Message) -> bool:
        """Add a message; return whether it is relevant."""
        try:
            parsed = read(message.body)
        except Unreadable as error:
            log.warning(
                "dropped a message that cannot be parsed",
                why=str(error),
                message=message.id,
                body=message.body[:SHOWN],
            )
            return False
        if not parsed.notices and not parsed.withdrawn and not self._concerns(parsed):
            return False  # A state change of another machine of the account; most messages are.
        self._put(message.id, parsed, message)
        return True

    def _scheduled(self, event: ScheduledEvent) -> None:
        standing = self._standing.get(event.instance_id)
        if standing is None or standing.kind != "scheduled" or standing.ends_at > event.not_before:
            notice = Notice(
                "scheduled",
                event.instance_id,
                self._clock(),
                event.not_before,
                "ec2",
                event.code.replace("-", " "),
            )
            self._put(f"{event.instance_id}/schedule", ParsedNotice((notice,)), None)

    def _put(self, name: str, parsed: ParsedNotice, message: Message | None) -> None:
        self._pending[name] = (parsed, message)
        if self._concerns(parsed):
            self.woken.set()

    def _concerns(self, parsed: ParsedNotice) -> bool:
        return self._addresses is None or bool(parsed.machines & self._addresses.keys())

    async def _delete(self, messages: list[Message]) -> None:
        if not messages:
            return
        try:
            await run_in_daemon_thread(lambda: self._notices.delete(messages))
        except MesaformError as error:
            log.warning(
                "messages were not deleted; they arrive again",
                count=len(messages),
                error=str(error),
            )


async def run_in_daemon_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread. A long poll does not delay the process's end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settled(function: Callable[[Any], None], result: object) -> None:
        if not answer.done():
            function(result)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # The future carries it to the caller.
            _call_in_loop(loop, settled, answer.set_exception, error)
        else:
            _call_in_loop(loop, settled, answer.set_result, result)

    threading.Thread(target=run, daemon=True, name="notices").start()
    return await answer


def _call_in_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object
) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        return  # The loop is closed.
