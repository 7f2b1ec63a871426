"""Benchmarks of the HTTP boundary: its cost on a launch and on `/state`, and a refusal.

One master serves its application on two ports, with and without the boundary. Calls alternate
between them, and each is first as often as the other, so that the load of the machine meets both.
The ratio of the first deciles is the cost.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks.table import Result, show
from harness.agent_process import AgentProcess
from harness.master_process import HttpScheduler, JsonDict, running
from harness.zookeeper import ZooKeeperServer
from mesaform.engine.master import http_common
from mesaform.engine.master.http_routes import HttpApi
from mesaform.http.body import PORT, read_json

LAUNCHES = 80
READS = 300
MAX_PERCENT = 3.0


async def read_directly(
    request: web.Request, *, max_bytes: int | None = None, large_integers: bool = False
) -> bytes:
    """Read a body without the boundary where the request did not pass it."""
    if PORT in request:
        return await read_json(request, max_bytes=max_bytes, large_integers=large_integers)
    return await request.read()


async def launch_s(
    scheduler: HttpScheduler, base: str, task_id: str, offers: list[JsonDict]
) -> float:
    """Seconds from ACCEPT to TASK_RUNNING, with the call sent to `base`.

    `offers` are those in hand. The resources of a task that has ended may be offered before its
    last update arrives, and once only.
    """
    while not offers:
        offers += (await scheduler.events.next("OFFERS"))["offers"]["offers"]
    offer = offers.pop()
    scheduler.base = base
    started = time.perf_counter()
    await scheduler.launch(offer, task_id)
    running_s = 0.0
    while True:
        event = await scheduler.events.next()
        if event["type"] == "OFFERS":
            offers += event["offers"]["offers"]
        if event["type"] != "UPDATE":
            continue
        status = event["update"]["status"]
        await scheduler.acknowledge(status)
        if status["state"] == "TASK_RUNNING":
            running_s = time.perf_counter() - started
        if status["state"] == "TASK_FINISHED":
            return running_s


async def read_s(session: aiohttp.ClientSession, base: str) -> float:
    """Seconds for `/state`."""
    started = time.perf_counter()
    async with session.get(f"{base}/state") as response:
        await response.read()
    return time.perf_counter() - started


async def refusal_s(address: str, port: int, *, is_chunked: bool) -> float:
    """Seconds from the request to the refusal of a SUBSCRIBE of 45 MB, sent piece by piece."""
    start = b'{"type":"SUBSCRIBE","subscribe":{"framework_info":{"labels":{"labels":['
    piece = b'{"key":"a"},' * 5000
    body = [start, *[piece] * 750]
    size = sum(map(len, body))
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    head = (
        f"POST /api/v1/scheduler HTTP/1.1\r\nHost: {address}:{port}\r\n"
        f"Content-Type: application/json\r\n{framing}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(address, port)
    started = time.perf_counter()
    answer = asyncio.create_task(reader.readuntil(b"\r\n"))
    writer.write(head.encode())
    for part in body:
        writer.write(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
        await asyncio.wait(
            [answer, asyncio.create_task(writer.drain())], return_when="FIRST_COMPLETED"
        )
        if answer.done():
            break
    status = await answer
    elapsed_s = time.perf_counter() - started
    writer.close()
    if b" 413 " not in status:
        raise AssertionError(status)
    return elapsed_s


def turn(number: int) -> int:
    """Which of two takes a turn: 0, 1, 1, 0, and so on."""
    return number % 2 ^ number // 2 % 2


def cost(name: str, with_s: list[float], without_s: list[float]) -> Result:
    """The cost in percent of the time without the boundary."""
    bounded, plain = (statistics.quantiles(times, n=10)[0] for times in (with_s, without_s))
    note = f"deciles {bounded * 1e3:.2f} and {plain * 1e3:.2f} ms of {len(with_s)} calls"
    return Result(name, max(0.0, (bounded / plain - 1) * 100), MAX_PERCENT, "%", note)


async def measure(zookeeper: ZooKeeperServer, folder: Path) -> list[Result]:
    """Measure with one master and one agent."""
    vars(http_common)["read_json"] = read_directly
    async with running(
        f"zk://{zookeeper.hosts}/boundary", MESOS_ALLOCATION_INTERVAL="20ms"
    ) as master:
        await master.leading()
        runner = web.AppRunner(
            HttpApi(master.process).app(), access_log=None, handler_cancellation=True
        )
        await runner.setup()
        site = web.TCPSite(runner, master.address, 0)
        await site.start()
        bases = (master.base, f"http://{master.address}:{site.port}")
        (folder / "work").mkdir()
        address = f"{master.address}:{master.port}"
        agent = AgentProcess(
            folder / "work", master.address, master.link_port, MESOS_MASTER=address
        )
        agent.start()
        try:
            return await _measure(bases)
        finally:
            await agent.kill()
            await runner.cleanup()


async def _measure(bases: tuple[str, str]) -> list[Result]:
    launches: tuple[list[float], list[float]] = ([], [])
    reads: tuple[list[float], list[float]] = ([], [])
    async with aiohttp.ClientSession() as session:
        scheduler = await HttpScheduler.subscribe(session, bases[0])
        offers: list[JsonDict] = []
        for number in range(2 * LAUNCHES):
            which = turn(number)
            seconds = await launch_s(scheduler, bases[which], f"t{number}", offers)
            launches[which].append(seconds)
        for number in range(2 * READS):
            which = turn(number)
            reads[which].append(await read_s(session, bases[which]))
    host, _, port = bases[0].removeprefix("http://").partition(":")
    refusals = {
        form: min([await refusal_s(host, int(port), is_chunked=form == "in chunks") for _ in "123"])
        for form in ("with its length", "in chunks")
    }
    return [
        cost("boundary: ACCEPT to RUNNING", *launches),
        cost("boundary: /state", *reads),
        *(
            Result(f"refusal of a SUBSCRIBE of 45 MB {form}", s * 1e3, 50.0, "ms", "best of 3")
            for form, s in refusals.items()
        ),
    ]


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(prefix="mesaform-bench-") as name:
        zookeeper = ZooKeeperServer(Path(name))
        zookeeper.start()
        try:
            results = asyncio.run(measure(zookeeper, Path(name)))
        finally:
            zookeeper.kill()
    show(results)


if __name__ == "__main__":
    main()
