"""Waiting for somebody else to finish, with a bound and a word to the person who waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mesaform.common.errors import Busy
from mesaform.common.progress import Stage

T = TypeVar("T")
# Terraform of an earlier run continues after a kill -9. The AWS provider waits less than this.
EARLIER_S = 600.0
POLL_S = 1.0


async def wait_for_earlier(
    work: Callable[[], Awaitable[T]],
    under_way: Stage,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[Any]],
) -> T:
    """Do the work as soon as nobody else holds its lock.

    Raises:
        Busy: somebody held it for all of `EARLIER_S`.

    """
    began = clock()
    while True:
        try:
            return await work()
        except Busy as error:
            if clock() - began > EARLIER_S:
                raise
            under_way.advance(f"waiting: {error.what}")
        await sleep(POLL_S)
