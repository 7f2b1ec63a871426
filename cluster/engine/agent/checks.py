"""Runs a task's health checks: a command in its container, an HTTP request, or a TCP connection.

`health` decides what a result means. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp
import structlog

from mesaform.engine.agent.containerizer import Containerizer
from mesaform.engine.agent.events import CheckFailed, HealthChecked
from mesaform.engine.agent.health import HealthPolicy, HealthTracker
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.engine.validation.checks import check_type
from mesaform.mesos.messages import CommandInfo, HealthCheck

log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[bool]]

MIN_INTERVAL_S = 0.1
"""Shortest pause between two checks of a task. Mesos and Marathon accept an interval of 0."""

MAX_CHECKS_PER_S = 100.0
"""Checks of all tasks that an agent starts in a second; further ones wait for their turn."""


class CheckPace:
    """Spaces the starts of all checks of an agent, in the order in which they are due.

    So tasks with short intervals cannot keep the agent busy. A time-out begins at the start.

    Args:
        clock: monotonic seconds.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at = 0.0

    def delay_s(self) -> float:
        """Take the next turn; returns the seconds until it."""
        now = self._clock()
        at = max(now, self._next_at)
        self._next_at = at + 1 / MAX_CHECKS_PER_S
        return at - now


async def watch_health(
    record: TaskRecord,
    containerizer: Containerizer,
    address: str,
    report: Callable[[HealthChecked | CheckFailed], None],
    pace: CheckPace,
) -> None:
    """Check until cancelled, or until the task must be killed.

    A check that cannot be carried out is reported, whatever the reason is.

    Args:
        record: a running task with a health check.
        containerizer: runs commands in its container.
        address: the machine's own address, at which the task listens. The loopback address is
            tried after it.
        report: receives the events.
        pace: that of all checks of the agent.

    """
    try:
        await _watch(record, containerizer, address, report, pace)
    except Exception as error:  # the fault of one check must not end the agent
        log.warning("health_check_failed", task=record.task_id, error=str(error))
        report(CheckFailed(record.container_id, str(error) or type(error).__name__))


async def _watch(
    record: TaskRecord,
    containerizer: Containerizer,
    address: str,
    report: Callable[[HealthChecked], None],
    pace: CheckPace,
) -> None:
    check = record.task.health_check
    if check is None:
        return
    policy = HealthPolicy.of(check)
    tracker = HealthTracker(record.container_id, policy, record.running_since or time.time())
    probe = _probe(check, record.container_id, containerizer, policy.timeout_s, address)
    await asyncio.sleep(policy.delay_s)
    while True:
        await asyncio.sleep(pace.delay_s())
        event = tracker.result(time.time(), healthy=await _passes(probe, policy.timeout_s))
        if event is not None:
            report(event)
            if event.kill:
                return
        await asyncio.sleep(max(policy.interval_s, MIN_INTERVAL_S))


async def _passes(probe: Probe, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s or None):
            return await probe()
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
        return False


def _probe(
    check: HealthCheck,
    container_id: str,
    containerizer: Containerizer,
    timeout_s: float,
    address: str,
) -> Probe:
    """What runs the check. The master admits only checks whose field is set (`validation`)."""
    hosts = list(dict.fromkeys((address, "127.0.0.1")))
    http, tcp, command = check.http, check.tcp, check.command or CommandInfo()
    match check_type(check):
        case "HTTP" if http is not None:
            scheme, rest = http.scheme or "http", f"{http.port}{http.path or '/'}"
            return lambda: _any(hosts, lambda host: _http_answers(f"{scheme}://{host}:{rest}"))
        case "TCP" if tcp is not None:
            return lambda: _any(hosts, lambda host: _tcp_opens(host, tcp.port))
        case "COMMAND" if check.command is not None:
            return lambda: containerizer.run_inside(container_id, command, timeout_s)
        case kind:
            raise ValueError(f"a check of type {kind} has no field of this name")


async def _any(hosts: list[str], ask: Callable[[str], Awaitable[bool]]) -> bool:
    """The answer of the first host that accepts the connection."""
    refusal: OSError | None = None
    for host in hosts:
        try:
            return await ask(host)
        except (ConnectionRefusedError, aiohttp.ClientConnectorError) as error:
            refusal = error
    raise refusal or OSError("no host to ask")


async def _http_answers(url: str) -> bool:
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, allow_redirects=False, ssl=False) as response,
    ):
        return 200 <= response.status < 400


async def _tcp_opens(host: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True
