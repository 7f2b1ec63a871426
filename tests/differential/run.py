"""Both engines for the duration of a run, and generated cases one after another."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from hypothesis import HealthCheck, Phase, given, seed, settings

from harness.zookeeper import ZooKeeperServer
from tests.differential.cases import Case, cases
from tests.differential.comparison import Answers, Pair
from tests.differential.engines import (
    Engine,
    EngineEnded,
    apache_mesos,
    embedded_engine,
    running,
)

Result = TypeVar("Result")
CASE_S = 120.0
BATCH = 100
"""Hypothesis varies what it has made, so later cases of one seed resemble earlier ones."""


@contextlib.asynccontextmanager
async def pair(prefix: Path, folder: Path) -> AsyncIterator[Pair]:
    """Both engines, with a subscribed framework each. `folder` gets their logs."""
    zookeeper = ZooKeeperServer(folder / "zookeeper", address="127.97.1.3")
    zookeeper.start()
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    try:
        async with (
            running(apache_mesos(prefix, folder / "mesos")) as mesos,
            running(
                embedded_engine(folder / "embedded", f"zk://{zookeeper.hosts}/mesos")
            ) as embedded,
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        ):
            both = Pair(mesos, embedded, session)
            await both.start()
            yield both
            await both.stop()
    finally:
        zookeeper.kill()


class Comparer:
    """Compares one case after another. The engines live in an event loop of another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, both: Pair) -> None:
        self._loop, self._both = loop, both

    @property
    def reference(self) -> Engine:
        """The running Apache Mesos."""
        return self._both.mesos

    def __call__(self, case: Case) -> Answers:
        """The answers of both engines.

        Raises:
            EngineEnded: a process of the embedded engine ended, or Apache Mesos does not start.
            NoEnd: the case has no end.

        """
        running = asyncio.run_coroutine_threadsafe(self._both.compare(case), self._loop)
        try:
            return running.result(CASE_S)
        except TimeoutError as error:
            raise NoEnd(
                f"no answer within {CASE_S:g} s to {case.name}: {case.document!r}"
            ) from error


class NoEnd(Exception):
    """An engine neither answers nor ends."""


@contextlib.contextmanager
def comparer(prefix: Path, folder: Path) -> Iterator[Comparer]:
    """Both engines, for the duration of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="differential")
    thread.start()
    stack = contextlib.AsyncExitStack()

    def wait_for(coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(CASE_S)

    try:
        yield Comparer(loop, wait_for(stack.enter_async_context(pair(prefix, folder))))
    finally:
        wait_for(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run_generated(
    compare: Callable[[Case], Answers], count: int, number: int, report: Callable[[Answers], None]
) -> None:
    """Compare `count` generated cases. Each hundred has a seed of its own, from `number` on.

    Raises:
        EngineEnded, NoEnd: as `compare` does; Hypothesis would repeat the case.

    """
    faults: list[EngineEnded | NoEnd] = []

    def run(size: int, own_seed: int) -> None:
        @seed(own_seed)
        @settings(
            max_examples=size,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases())
        def check(case: Case) -> None:
            if faults:
                return
            try:
                report(compare(case))
            except (EngineEnded, NoEnd) as error:
                faults.append(error)

        check()
        if faults:
            raise faults[0]

    for start in range(0, count, BATCH):
        run(min(BATCH, count - start), number + start)
