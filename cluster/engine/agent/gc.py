"""Garbage collection of the sandboxes of ended tasks.

A sandbox is removed after a delay, which shrinks as the disk fills (Mesos' GarbageCollector).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

INTERVAL_S = 60.0
DISK_HEADROOM = 0.1
"""The share of the disk, 0 to 1, that stays free: Mesos' default of --gc_disk_headroom."""


def max_age_s(gc_delay_s: float, disk_used: float) -> float:
    """The greatest age of a sandbox when `disk_used` (0 to 1) of the disk is in use."""
    return gc_delay_s * max(0.0, 1.0 - DISK_HEADROOM - disk_used)


async def collect_repeatedly(
    sandboxes: Path, gc_delay_s: float, in_use: Callable[[], Collection[str]]
) -> None:
    """Collect every minute. `in_use` returns the containers whose sandboxes must stay."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        usage = shutil.disk_usage(sandboxes)
        age_s = max_age_s(gc_delay_s, usage.used / usage.total)
        await asyncio.to_thread(collect, sandboxes, age_s, set(in_use()), time.time())


def collect(sandboxes: Path, age_s: float, in_use: Collection[str], now: float) -> None:
    """Remove sandboxes that were last changed more than `age_s` ago, and folders left empty."""
    for sandbox in sandboxes.glob("*/*/*"):
        with contextlib.suppress(OSError):
            if sandbox.name not in in_use and sandbox.stat().st_mtime < now - age_s:
                shutil.rmtree(sandbox)
                log.info("sandbox_removed", path=str(sandbox))
                for folder in (sandbox.parent, sandbox.parent.parent):
                    folder.rmdir()  # fails at the first that is not empty, which ends the loop


def touch(sandbox: Path) -> None:
    """Start a sandbox's age at the end of its task."""
    with contextlib.suppress(OSError):
        os.utime(sandbox)
