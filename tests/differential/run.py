"""Both engines for the duration of a run, and generated cases one after another."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
from hypothesis import HealthCheck, Phase, given, seed, settings

from harness.zookeeper import ZooKeeperServer
from tests.differential.cases import Case, cases
from tests.differential.comparison import Answers, Pair
from tests.differential.engines import apache_mesos, embedded_engine

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
            apache_mesos(prefix, folder / "mesos") as mesos,
            embedded_engine(folder / "embedded", f"zk://{zookeeper.hosts}/mesos") as embedded,
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        ):
            both = Pair(mesos, embedded, session)
            await both.start()
            yield both
            await both.stop()
    finally:
        zookeeper.kill()


@contextlib.contextmanager
def comparer(prefix: Path, folder: Path) -> Iterator[Callable[[Case], Answers]]:
    """A function that compares one case. The engines live in an event loop of another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="differential")
    thread.start()
    stack = contextlib.AsyncExitStack()

    def wait_for(coroutine: object, timeout_s: float) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout_s)  # type: ignore[arg-type]

    try:
        both = wait_for(stack.enter_async_context(pair(prefix, folder)), CASE_S)
        assert isinstance(both, Pair)

        def compare(case: Case) -> Answers:
            answers = wait_for(both.compare(case), CASE_S)
            assert isinstance(answers, Answers)
            return answers

        yield compare
    finally:
        wait_for(stack.aclose(), CASE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run_generated(
    compare: Callable[[Case], Answers], count: int, number: int, report: Callable[[Answers], None]
) -> None:
    """Compare `count` generated cases. Each hundred has a seed of its own, from `number` on."""

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
            report(compare(case))

        check()

    for start in range(0, count, BATCH):
        run(min(BATCH, count - start), number + start)
