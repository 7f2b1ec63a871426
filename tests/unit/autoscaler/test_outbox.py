"""Rows on the way to the ledger: number of objects, order of writes, and outages of S3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mesaform.autoscaler.accounting import outbox as module
from mesaform.autoscaler.accounting.outbox import Outbox
from mesaform.common.errors import Retryable
from mesaform.testing.fake_cloud import FakeLedger

NOW = 1_800_000_000.0


class AwayLedger(FakeLedger):
    """S3 that is away for so many calls."""

    def __init__(self, calls: int = 0) -> None:
        super().__init__()
        self.away_for = calls
        self.asked = 0

    def append_many(self, records) -> None:
        self.asked += 1
        if self.away_for:
            self.away_for -= 1
            raise Retryable("no answer from AWS", after_s=1.0, where="s3://bucket")
        super().append_many(records)


def decision(number: int) -> dict:
    return {"kind": "decision", "at": NOW + number, "what": str(number)}


def sample(number: int) -> dict:
    return {"kind": "resource_usage", "at": NOW + number, "what": str(number)}


@asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[Outbox]:
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    monkeypatch.setattr(module, "RETRY_S", 0.02)


async def test_samples_wait_for_each_other_and_become_one_object(quick: None):
    ledger, outbox = FakeLedger(), Outbox()
    outbox.known(ledger)
    async with running(outbox):
        outbox.put_all(sample(number) for number in range(50))
        await until(lambda: len(ledger.records) == 50)
    assert ledger.writes == 1


async def test_a_decision_is_written_at_once_and_takes_with_it_what_waits():
    ledger, outbox = FakeLedger(), Outbox()
    outbox.known(ledger)
    async with running(outbox):
        outbox.put(sample(1))
        outbox.put(decision(2), urgent=True)
        async with asyncio.timeout(60):
            await until(lambda: len(outbox) == 0)
    assert [row["kind"] for row in ledger.read()] == ["resource_usage", "decision"]
    assert module.FLUSH_S > 2.0


async def test_rows_wait_for_a_ledger_that_is_not_known_yet():
    ledger, outbox = FakeLedger(), Outbox()
    async with running(outbox):
        outbox.put(decision(1), urgent=True)
        assert not await outbox.settled(0.05)
        outbox.known(ledger)
        assert await outbox.settled(2.0)
    assert len(ledger.records) == 1


async def test_what_s3_did_not_take_is_written_later_and_once_and_each_failure_is_counted(
    quick: None,
):
    failures: list[int] = []
    ledger, outbox = AwayLedger(3), Outbox(lambda: failures.append(1))
    outbox.known(ledger)
    async with running(outbox):
        outbox.put(decision(1), urgent=True)
        await until(lambda: ledger.asked >= 2)
        outbox.put(decision(2), urgent=True)
        await until(lambda: len(outbox) == 0)
    assert [row["what"] for row in ledger.read()] == ["1", "2"]
    assert len(failures) == 3


async def test_a_batch_whose_answer_was_lost_is_given_again_with_the_same_ids(quick: None):
    class Deaf(AwayLedger):
        def append_many(self, records) -> None:
            rows = list(records)
            if self.away_for:
                FakeLedger.append_many(self, rows)
            super().append_many(rows)

    ledger, outbox = Deaf(1), Outbox()
    outbox.known(ledger)
    async with running(outbox):
        outbox.put(decision(1), urgent=True)
        await until(lambda: len(outbox) == 0)
    assert len(ledger.read()) == 1


async def test_when_too_much_waits_samples_go_first_and_the_ledger_says_how_many(quick: None):
    ledger, outbox = AwayLedger(2), Outbox(most=10, clock=lambda: NOW + 99)
    outbox.known(ledger)
    outbox.put_all(sample(number) for number in range(15))
    outbox.put_all([decision(number) for number in range(20, 30)], urgent=True)
    async with running(outbox):
        await until(lambda: len(outbox) == 0)
    assert [row["what"] for row in ledger.read(kinds=["decision"])] == [
        str(number) for number in range(20, 30)
    ]
    assert [row["what"] for row in ledger.read(kinds=["resource_usage"])] == [
        str(number) for number in range(5, 15)
    ]
    (gap,) = ledger.read(kinds=["lost_rows"])
    assert (gap["rows"], gap["from"], gap["until"], outbox.lost) == (5, NOW, NOW + 4, 5)


async def test_the_end_writes_what_waits_and_gives_up_at_the_first_failure():
    ledger, outbox = AwayLedger(1), Outbox()
    outbox.known(ledger)
    outbox.put(sample(1))
    await outbox.flush()
    assert (len(outbox), ledger.asked) == (1, 1)
    await outbox.flush()
    assert len(outbox) == 0
