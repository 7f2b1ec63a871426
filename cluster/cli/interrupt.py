"""Run work that must end in order: SIGINT, SIGTERM and SIGHUP cancel it, once.

SIGHUP comes when the terminal closes. A program that ignores it from its start (nohup) goes on.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from mesaform.common.errors import Exit

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

T = TypeVar("T")
AGAIN_S = 0.05
"""After which time a dropped interruption is repeated: outside of the destructor, as a rule."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end(text: str) -> NoReturn:
    """Print a message and end after an interruption; further signals change nothing.

    Raises:
        typer.Exit: always, with the code for an interruption.

    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # the terminal may be closed
        typer.echo(f"mesaform: {text}", err=True)
    raise typer.Exit(Exit.INTERRUPTED) from None


@contextmanager
def raised() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at each of `SIGNALS`, not at SIGINT alone.

    Python drops an exception that a handler raises in a destructor or a callback of a weak
    reference. Such an interruption comes again.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in _handled()}
    hook, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt_again(dropped: UnraisableHookArgs) -> None:
    if not isinstance(dropped.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    main = threading.main_thread().ident or 0
    again = threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
    again.daemon = True
    again.start()


def _handled() -> list[signal.Signals]:
    """`SIGNALS` without a SIGHUP that is ignored."""
    return [
        number
        for number in SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]


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
            interrupted = True
            task.cancel()
            with suppress(OSError):  # the terminal may be closed
                sys.stderr.write(f"\nmesaform: {stopping}\n")

    handled = _handled()
    for number in handled:
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
        for number in handled:
            loop.remove_signal_handler(number)
