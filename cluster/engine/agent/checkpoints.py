"""Writes the agent's records, and keeps in memory what a full disk does not take.

A record that cannot be written is written again every `RETRY_S` until it can. Until then the last
written one is on the disk: after a crash the agent would go on from there, and the containerizer
reports what happened since. docs/adr/0030 has the reasons.
"""

from __future__ import annotations

import asyncio

import structlog

from mesaform.common.records import RecordRefused
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.tasks import AgentMeta, SavedTask

log = structlog.get_logger(__name__)

RETRY_S = 2.0


class Checkpoints:
    """The records of one agent."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._tasks: dict[str, SavedTask] = {}
        self._meta: AgentMeta | None = None
        self._changed = asyncio.Event()
        self._reported = ""

    @property
    def unwritten(self) -> int:
        """The number of records that are in memory only."""
        return len(self._tasks) + (self._meta is not None)

    def save_task(self, saved: SavedTask) -> str:
        """Write a task's record. Return why it is in memory only; empty when it is durable."""
        container_id = saved.record.container_id
        try:
            self._layout.save_task(saved)
        except (OSError, RecordRefused) as error:
            self._tasks[container_id] = saved
            return self._keep(error)
        self._tasks.pop(container_id, None)
        return ""

    def save_meta(self, meta: AgentMeta) -> None:
        """Write the agent's own record, now or later."""
        self._meta = meta
        try:
            self._layout.save_meta(meta)
        except (OSError, RecordRefused) as error:
            self._keep(error)
        else:
            self._meta = None

    def remove_task(self, container_id: str) -> None:
        """Remove a task's record."""
        self._tasks.pop(container_id, None)
        self._layout.remove_task(container_id)

    async def retry(self) -> None:
        """Write what is in memory only, as soon as the disk takes it. This never returns."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(RETRY_S)
            self._changed.clear()
            for saved in list(self._tasks.values()):
                if self.save_task(saved):
                    break  # the disk takes nothing yet
            if self._meta is not None:
                self.save_meta(self._meta)
            if not self.unwritten:
                log.info("checkpoints_written")
                self._reported = ""

    def _keep(self, error: OSError | RecordRefused) -> str:
        why = (error.strerror or "") if isinstance(error, OSError) else str(error)
        why = why or str(error)
        if why != self._reported:
            log.error("checkpoint_not_written", error=why, action="kept in memory")
            self._reported = why
        self._changed.set()
        return why
