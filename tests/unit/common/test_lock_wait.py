"""Waiting for an earlier run: polls until the lock is free, or for as long as the bound."""

from __future__ import annotations

import pytest

from mesaform.common.errors import Busy
from mesaform.common.lock_wait import EARLIER_S, POLL_S, wait_for_earlier
from mesaform.common.progress import Recorded, stage


class Clock:
    """Seconds that pass only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 2 * EARLIER_S, "the wait has no end"


async def wait(clock: Clock, free_at: float) -> str:
    """Wait for a lock that somebody holds until `free_at`."""

    async def work() -> str:
        if clock.now < free_at:
            raise Busy("another run works")
        return "done"

    with stage(Recorded(), "Deploy") as under_way:
        return await wait_for_earlier(work, under_way, lambda: clock.now, clock.sleep)


async def test_work_is_done_at_the_first_poll_after_the_lock_is_free() -> None:
    clock = Clock()
    assert await wait(clock, 1.5 * POLL_S) == "done"
    assert clock.now == 2 * POLL_S


async def test_a_lock_that_is_held_for_longer_than_the_bound_is_an_error() -> None:
    clock = Clock()
    with pytest.raises(Busy, match="another run works"):
        await wait(clock, 1.5 * EARLIER_S)
    assert EARLIER_S < clock.now <= EARLIER_S + POLL_S
