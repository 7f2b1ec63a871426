"""Where announcements wait until a pass has them in its memory: from the queue, from machines themselves, from EC2's schedule. Shell.

A message leaves the queue only after what it says is journaled, so a change of leader loses none; what nobody can read leaves it with a
line in the log, so that it stops nobody.
"""

from __future__ import annotations

import asyncio
import threading
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
SCHEDULE_EVERY_S = 300.0
PATIENCE_S = 5.0
SHOWN = 300

log = structlog.get_logger()


class Inbox:
    """One per term. `listen` fills it; a pass calls `take`, remembers what it got, and then `settle`.

    Args:
        notices: the cloud's queue and schedule.
        clock: seconds since the epoch.
        patience_s: how long to leave a queue alone that is not there or does not answer.

    Attributes:
        woken: set when something came that concerns a machine of the cluster.

    """

    def __init__(
        self, notices: Notices, clock: Callable[[], float], patience_s: float = PATIENCE_S
    ) -> None:
        self._patience_s = patience_s
        self._notices = notices
        self._clock = clock
        self.woken = asyncio.Event()
        self._pending: dict[str, tuple[ParsedNotice, Message | None]] = {}
        self._taken: tuple[str, ...] = ()
        self._addresses: Mapping[str, str] | None = None
        self._standing: Mapping[str, Notice] = {}

    # for the pass

    def take(self) -> list[ParsedNotice]:
        """All that came and is not settled. Taken again by the next pass if this one fails."""
        self.woken.clear()
        self._taken = tuple(self._pending)
        return [self._pending[name][0] for name in self._taken]

    async def settle(self) -> None:
        """What was taken is in the journal: the queue may forget it. If it does not, it comes again, and changes nothing."""
        messages = [
            message
            for name in self._taken
            if (message := self._pending.pop(name, (None, None))[1]) is not None
        ]
        self._taken = ()
        await self._delete(messages)

    def knows(self, addresses: Mapping[str, str], standing: Mapping[str, Notice]) -> None:
        """The cluster's machines with their addresses, and the notices that are remembered, as the last pass had them."""
        self._addresses, self._standing = addresses, standing

    # for machines

    def tell(self, told: MachineNotice, address: str) -> bool:
        """A machine tells of itself; whether that is remembered already, so that it may stop telling.

        Raises:
            PermissionError: it is not at the address of the machine that it speaks of.

        """
        if self._addresses is None:
            return False  # nobody can be believed before the first pass; it tells again
        if self._addresses.get(told.instance_id) != address:
            raise PermissionError(f"{address} is not the address of {told.instance_id}")
        standing = self._standing.get(told.instance_id)
        if (
            standing is not None
            and SEVERITY[standing.kind] >= SEVERITY[told.kind]
            and (not told.ends_at or standing.ends_at <= told.ends_at)
        ):
            return True
        self._put(f"{told.instance_id}/{told.kind}", ParsedNotice((notice_of_machine(told),)), None)
        return False

    # from the cloud

    async def listen(self) -> None:
        """Receive, for ever."""
        while True:
            try:
                await self._receive()
            except NotFound:
                log.info(
                    "the queue of notices is not there yet; machines tell of themselves meanwhile"
                )
                await asyncio.sleep(self._patience_s)
            except MesaformError as error:
                log.warning("notices cannot be received", error=str(error))
                await asyncio.sleep(self._patience_s)
            except Exception:  # a fault of ours must not end listening
                log.exception("notices")
                await asyncio.sleep(self._patience_s)

    async def watch_schedule(self) -> None:
        """Ask EC2 for scheduled events, for ever: a message may have been missed."""
        while True:
            try:
                for event in await beside(self._notices.scheduled):
                    self._scheduled(event)
            except MesaformError as error:
                log.warning("scheduled events cannot be read", error=str(error))
            except Exception:  # a fault of ours must not end watching
                log.exception("scheduled events")
            await asyncio.sleep(SCHEDULE_EVERY_S)

    async def _receive(self) -> None:
        useless = [
            message
            for message in await beside(lambda: self._notices.receive(LONG_POLL_S))
            if not self._arrived(message)
        ]
        await self._delete(useless)

    def _arrived(self, message: Message) -> bool:
        """Keep a message; whether it is of any use."""
        try:
            heard = read(message.body)
        except Unreadable as error:
            log.warning(
                "a message that nobody can read is dropped",
                why=str(error),
                message=message.id,
                body=message.body[:SHOWN],
            )
            return False
        if not heard.notices and not heard.withdrawn and not self._concerns(heard):
            return False  # some other machine of the account changed its state: most of what comes
        self._put(message.id, heard, message)
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

    def _put(self, name: str, heard: ParsedNotice, message: Message | None) -> None:
        self._pending[name] = (heard, message)
        if self._concerns(heard):
            self.woken.set()

    def _concerns(self, heard: ParsedNotice) -> bool:
        return self._addresses is None or bool(heard.machines & self._addresses.keys())

    async def _delete(self, messages: list[Message]) -> None:
        if not messages:
            return
        try:
            await beside(lambda: self._notices.delete(messages))
        except MesaformError as error:
            log.warning(
                "messages were not deleted; they come again", count=len(messages), error=str(error)
            )


async def beside(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own that does not keep the process from ending: a long poll outlasts any patience."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settled(function: Callable[[Any], None], result: object) -> None:
        if not answer.done():
            function(result)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # handed to whoever waits
            _tell(loop, settled, answer.set_exception, error)
        else:
            _tell(loop, settled, answer.set_result, result)

    threading.Thread(target=run, daemon=True, name="notices").start()
    return await answer


def _tell(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object
) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more
