"""Running something that must be stopped with care: Ctrl-C, a polite kill and a lost terminal all cancel it, once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(work: Callable[[], Coroutine[Any, Any, T]], *, stopping: str) -> T:
    """Run to the end.

    Args:
        work: makes the coroutine.
        stopping: said once when the first signal comes ("stopping Terraform"); later signals change nothing.

    Raises:
        KeyboardInterrupt: a signal came, and the work has ended since.

    """
    return asyncio.run(_guarded(work, stopping))


async def _guarded(work: Callable[[], Coroutine[Any, Any, T]], stopping: str) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work(), name="work")
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        if not interrupted:
            sys.stderr.write(f"\nmesaform: {stopping}\n")
            interrupted = True
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except Exception:
        if interrupted:  # what was cut short may fail in its own way
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
