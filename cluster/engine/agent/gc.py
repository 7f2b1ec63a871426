"""Removes the sandboxes of tasks that are over: after a delay, and earlier as the disk fills, by Mesos' rule."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
DISK_HEADROOM = 0.1
"""The share of the disk that is kept free: at that point nothing old is worth keeping."""


def max_age_s(gc_delay_s: float, disk_used: float) -> float:
    """How old a sandbox may be when `disk_used` (0 to 1) of the disk is in use."""
    return gc_delay_s * max(0.0, 1.0 - DISK_HEADROOM - disk_used)


async def collect_for_ever(
    sandboxes: Path, gc_delay_s: float, in_use: Callable[[], Collection[str]]
) -> None:
    """Look each minute. `in_use` names the containers whose sandboxes must stay."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        usage = shutil.disk_usage(sandboxes)
        age_s = max_age_s(gc_delay_s, usage.used / usage.total)
        await asyncio.to_thread(collect, sandboxes, age_s, set(in_use()), time.time())


def collect(sandboxes: Path, age_s: float, in_use: Collection[str], now: float) -> None:
    """Remove sandboxes that were last changed more than `age_s` ago, and folders that this leaves empty."""
    for sandbox in sandboxes.glob("*/*/*"):
        with contextlib.suppress(OSError):
            if sandbox.name not in in_use and sandbox.stat().st_mtime < now - age_s:
                shutil.rmtree(sandbox)
                log.info("removed the old sandbox %s", sandbox)
                for folder in (sandbox.parent, sandbox.parent.parent):
                    folder.rmdir()  # fails, and ends this, at the first that is not empty


def touch(sandbox: Path) -> None:
    """A sandbox's age counts from its task's end."""
    with contextlib.suppress(OSError):
        os.utime(sandbox)
