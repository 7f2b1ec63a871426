"""The queue of rows to the ledger: batches every few seconds, decisions at once, retries. Shell.

Rows wait in memory. When there are too many, samples are dropped before decisions; a `lost_rows`
row says how many and when. A process that ends before S3 took its rows loses them; the next leader
states all machines again from the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable

import structlog

from mesaform.aws import ledger_rows
from mesaform.aws.ports import Ledger, Row
from mesaform.common.errors import MesaformError

FLUSH_S = 15.0
"""Time that a row waits for others (s): a crash loses samples of so long."""

RETRY_S = 5.0
BATCH_MOST = 2000
MOST = 20_000
"""Rows kept of either sort: weeks of samples."""

log = structlog.get_logger()


class Outbox:
    """The queue; one per process.

    Args:
        failed: called each time that the ledger does not take rows.
        most: rows kept of either sort.
        clock: seconds since the epoch.

    Attributes:
        ledger: where rows go; rows wait while it is None.
        lost: rows dropped so far.
    """

    def __init__(
        self,
        failed: Callable[[], None] = lambda: None,
        most: int = MOST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger: Ledger | None = None
        self.lost = 0
        self._failed = failed
        self._clock = clock
        self._urgent: deque[Row] = deque()
        self._samples: deque[Row] = deque()
        self._most = most
        self._writer = f"o{secrets.token_hex(5)}"
        self._numbers = itertools.count()
        self._gap: Row | None = None
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._drained = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._samples)

    def put(self, row: Row, *, urgent: bool = False) -> None:
        """Keep a row until it is written."""
        queue = self._urgent if urgent else self._samples
        queue.append(ledger_rows.stamped(row, self._writer, next(self._numbers)))
        if len(queue) > self._most:
            self._lose(queue.popleft())
        self._drained.clear()
        self._wake.set()
        if urgent:
            self._hurry.set()

    def put_all(self, rows: Iterable[Row], *, urgent: bool = False) -> None:
        for row in rows:
            self.put(row, urgent=urgent)

    def _lose(self, row: Row) -> None:
        self.lost += 1
        gap = self._gap or {"kind": "lost_rows", "from": row["at"], "until": row["at"], "rows": 0}
        self._gap = {
            **gap,
            "from": min(gap["from"], row["at"]),
            "until": max(gap["until"], row["at"]),
            "rows": gap["rows"] + 1,
        }

    async def run(self) -> None:
        """Write rows until cancelled."""
        while True:
            await self._wake.wait()
            if self.ledger is None or not len(self):
                self._wake.clear()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._hurry.wait()
            self._hurry.clear()
            while len(self):
                if not await self._write():
                    await asyncio.sleep(RETRY_S)

    async def settled(self, patience_s: float) -> bool:
        """Whether all rows are written within a time (s)."""
        self._hurry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._drained.wait()
        return self._drained.is_set()

    async def flush(self) -> None:
        """Write all rows, and stop at the first failure."""
        while len(self) and await self._write():
            pass

    def known(self, ledger: Ledger) -> None:
        """Set the ledger."""
        self.ledger = ledger
        self._wake.set()

    async def _write(self) -> bool:
        """Write one batch, urgent rows first. False when the ledger did not take it."""
        if self.ledger is None:
            return False
        batch = list(itertools.islice(itertools.chain(self._urgent, self._samples), BATCH_MOST))
        gap, self._gap = self._gap, None
        if gap is not None:
            row = {**gap, "at": self._clock()}
            batch.append(ledger_rows.stamped(row, self._writer, next(self._numbers)))
        try:
            await asyncio.to_thread(self.ledger.append_many, batch)
        except MesaformError as error:
            self._failed()
            self._gap = _joined(gap, self._gap)
            log.warning("the ledger does not take rows yet", error=str(error), rows=len(self))
            return False
        self._forget({row[ledger_rows.ROW] for row in batch})
        return True

    def _forget(self, written: set[object]) -> None:
        """Drop rows that are written, by their ids."""
        for queue in (self._urgent, self._samples):
            while queue and queue[0][ledger_rows.ROW] in written:
                queue.popleft()
        if not len(self):
            self._drained.set()


def _joined(first: Row | None, second: Row | None) -> Row | None:
    if first is None or second is None:
        return first or second
    rows = first["rows"] + second["rows"]
    return {
        **first,
        "from": min(first["from"], second["from"]),
        "until": max(first["until"], second["until"]),
        "rows": rows,
    }
