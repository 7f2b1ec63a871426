"""The operators' orders: the freeze and the overrides in S3, and their confirmation.

A leader that has not read the orders of late obeys a freeze of its own: it takes no action. Depends
on the port `Control`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from mesaform.aws.overrides import Override
from mesaform.aws.ports import Control
from mesaform.common.conditions import Condition, Conditions
from mesaform.common.errors import MesaformError, NotAuthenticated
from mesaform.common.set_aside import SetAside

VALID_S = 15.0
"""Age up to which orders are obeyed that cannot be read again."""

HEARTBEAT_EVERY_S = 10.0

log = structlog.get_logger()


class Orders:
    """The orders during one term of leadership.

    Args:
        control: the control objects.
        conditions: where reading succeeds or fails.
        address: of this leader, for the heartbeat.
        failed: receives the name of an API that does not answer.
        clock: seconds since the epoch.
        monotonic: seconds with any origin.

    Attributes:
        overrides: those that were last read.
        set_aside: records in ZooKeeper that were set aside, for the heartbeat.

    """

    def __init__(
        self,
        control: Control,
        conditions: Conditions,
        address: str,
        failed: Callable[[str], None],
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control = control
        self._conditions = conditions
        self._address = address
        self._failed = failed
        self._clock = clock
        self._monotonic = monotonic
        self._freeze: str | None = None
        self._read_at: float | None = None
        self._problem = "they are being read"
        self._heartbeat_at = 0.0
        self._heartbeat_says: tuple[bool, tuple[str, ...]] = (False, ())
        self.set_aside: Sequence[SetAside] = ()
        self.overrides: tuple[Override, ...] = ()

    @property
    def freeze_reason(self) -> str | None:
        """The reason of the freeze in force; also while the orders are not known."""
        if self._read_at is None:
            return f"the freeze and the overrides were not read yet: {self._problem}"
        age_s = self._monotonic() - self._read_at
        if age_s > VALID_S:
            return f"the freeze and the overrides were last read {age_s:.0f} s ago: {self._problem}"
        return self._freeze

    async def read(self, planner_state: Callable[[], Mapping[str, object]]) -> None:
        """Read the orders, and confirm a change of the freeze at once.

        The program that sets a freeze waits for the confirmation in the heartbeat, which has
        what `planner_state` returns, for `mesaform plan`.
        """
        try:
            self._freeze, self.overrides = await asyncio.gather(
                asyncio.to_thread(self._control.frozen_reason),
                asyncio.to_thread(self._control.overrides),
            )
            self._read_at = self._monotonic()
            self._conditions.satisfied(Condition.ORDERS)
            await self._confirm(planner_state)
        except MesaformError as error:
            self._problem = error.what
            self._failed("s3")
            self._conditions.failed(Condition.ORDERS, str(error).partition("\n")[0])
            if isinstance(error, NotAuthenticated):
                self._conditions.failed(Condition.CREDENTIALS, error.what)
            log.warning("the orders cannot be read", error=str(error), freeze=self.freeze_reason)

    async def _confirm(self, planner_state: Callable[[], Mapping[str, object]]) -> None:
        """Write the heartbeat when it is due or what it says has changed."""
        frozen, now = self._freeze is not None, self._clock()
        says = (frozen, tuple(entry.id for entry in self.set_aside))
        if now - self._heartbeat_at < HEARTBEAT_EVERY_S and says == self._heartbeat_says:
            return
        await asyncio.to_thread(
            self._control.write_heartbeat,
            now,
            frozen=frozen,
            address=self._address,
            planner_state=planner_state(),
            set_aside=self.set_aside,
            reasons=self._conditions.reasons(),
        )
        self._heartbeat_at, self._heartbeat_says = now, says
