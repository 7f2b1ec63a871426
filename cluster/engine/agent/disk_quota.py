"""Disk quota of sandboxes: a task that uses more than its `disk` is ended.

As Mesos' isolator `disk/du` with `--enforce_container_disk_quota`: usage is measured at intervals,
so a task may exceed its quota for a while. Off by default, as there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from mesaform.engine.agent.events import DiskExceeded

log = structlog.get_logger(__name__)

BLOCK_BYTES = 512  # the unit of st_blocks (stat(2))


@dataclass(frozen=True, slots=True)
class Quota:
    """A live container's sandbox, and the bytes that it may use."""

    container_id: str
    sandbox: Path
    limit_bytes: int


async def enforce(
    quotas: Callable[[], Iterable[Quota]],
    report: Callable[[DiskExceeded], None],
    interval_s: float,
) -> None:
    """Measure every sandbox at each interval, and report those above their quota.

    This never returns.
    """
    while True:
        await asyncio.sleep(interval_s)
        for quota in list(quotas()):
            used_bytes = await asyncio.to_thread(usage_bytes, quota.sandbox)
            if used_bytes > quota.limit_bytes:
                log.info("disk_quota_exceeded", container=quota.container_id, used_bytes=used_bytes)
                report(DiskExceeded(quota.container_id, used_bytes, quota.limit_bytes))


def usage_bytes(folder: Path) -> int:
    """The bytes of all files below a folder on disk. Links are not followed."""
    total = 0
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * BLOCK_BYTES  # noqa: PTH118
            except OSError:
                continue  # it was removed meanwhile
    return total
