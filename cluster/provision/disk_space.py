"""Space on the operator's disk: a check before any change, and a reserve while Terraform runs.

Terraform writes its state in place; on a full disk the state would be cut short. So a run begins
only with room, keeps a reserve, and frees the reserve and stops Terraform in order when the disk
fills up meanwhile. Depends on the local disk.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mesaform.common.errors import MesaformError

T = TypeVar("T")
MIB = 1024 * 1024
NEEDED_BYTES = 32 * MIB
"""What a run may write: the synthesized stacks, plans, states, logs."""
RESERVE_BYTES = 8 * MIB
"""What Terraform may need to write its states when it is stopped."""
LEAST_BYTES = 2 * MIB
LOOK_S = 0.5


class DiskFull(MesaformError):
    """The operator's disk has no room for what a run must write."""


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the disk of a folder."""
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def require_space(folder: Path) -> None:
    """Check that there is room for a run.

    Raises:
        DiskFull: there is not. Nothing was changed.

    """
    free = free_bytes(folder)
    if free < NEEDED_BYTES:
        raise _full(folder, free, "nothing was changed; free some space")


def _full(folder: Path, free: int, fix: str) -> DiskFull:
    return DiskFull(
        f"the disk is full: {free / MIB:.1f} MiB are free, {NEEDED_BYTES // MIB} MiB are needed",
        where=str(folder),
        fix=f"{fix}, then run the same command again",
    )


async def run_with_reserve(folder: Path, work: Coroutine[Any, Any, T]) -> T:
    """Run work that writes to a folder's disk while a reserve is kept there.

    Raises:
        DiskFull: the disk filled up. The work was cancelled, and ended with the reserve at hand.

    """
    with _reserve(folder, work) as give_back:
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(_wait_until_full(folder))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                free = watching.result()
                give_back()
                await _cancel(working)
                raise _full(folder, free, "Terraform was stopped in order; free some space")
            return await working
        finally:
            await _cancel(watching)
            await _cancel(working)


async def _cancel(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.cancel()
        with suppress(asyncio.CancelledError, MesaformError):
            await future


async def _wait_until_full(folder: Path) -> int:
    while (free := free_bytes(folder)) >= LEAST_BYTES:  # noqa: ASYNC110 - no event announces it
        await asyncio.sleep(LOOK_S)
    return free


@contextmanager
def _reserve(folder: Path, work: Coroutine[Any, Any, object]) -> Iterator[Callable[[], None]]:
    """Hold a reserve in a file without a name, which ends with this process. Yields its release.

    Raises:
        DiskFull: there is no room for it; the work is not begun.

    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            work.close()
            if error.errno != errno.ENOSPC:
                raise
            fix = "nothing was changed; free some space"
            raise _full(folder, free_bytes(folder), fix) from None
        yield file.close
