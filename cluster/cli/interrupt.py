"""Run work that must end in order: SIGINT, SIGTERM and SIGHUP cancel it, once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import typer

from mesaform.common.errors import Exit

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end(text: str) -> NoReturn:
    """Print a message and end after an interruption; further signals change nothing.

    Raises:
        typer.Exit: always, with the code for an interruption.

    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    typer.echo(f"mesaform: {text}", err=True)
    raise typer.Exit(Exit.INTERRUPTED) from None


def run(work: Callable[[], Coroutine[Any, Any, T]], *, stopping: str) -> T:
    """Run to the end.

    Args:
        work: makes the coroutine.
        stopping: printed at the first signal, such as "stopping Terraform"; later signals change
            nothing.

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
