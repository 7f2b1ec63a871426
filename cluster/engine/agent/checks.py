"""Runs a task's health checks: a command in its container, an HTTP request, or a TCP connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec

from mesaform.engine.agent.containerizer import Containerizer
from mesaform.engine.agent.events import HealthChecked
from mesaform.engine.agent.health import HealthPolicy, HealthTracker
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.mesos.messages import CommandInfo

log = logging.getLogger(__name__)

Probe = Callable[[], Awaitable[bool]]


async def watch_health(
    record: TaskRecord,
    containerizer: Containerizer,
    address: str,
    report: Callable[[HealthChecked], None],
) -> None:
    """Check until cancelled, or until the check says that the task must die.

    Args:
        record: a running task with a health check.
        containerizer: runs commands in its container.
        address: the machine's own, where the task listens; the loopback is tried after it.
        report: takes news.

    """
    try:
        await _watch(record, containerizer, address, report)
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        log.warning("the health check of task %s cannot be used: %s", record.task_id, error)


async def _watch(
    record: TaskRecord,
    containerizer: Containerizer,
    address: str,
    report: Callable[[HealthChecked], None],
) -> None:
    check = record.task.health_check or {}
    policy = HealthPolicy.of(check)
    tracker = HealthTracker(record.container_id, policy, record.running_since or time.time())
    probe = _probe(check, record.container_id, containerizer, policy.timeout_s, address)
    if probe is None:
        log.warning(
            "task %s has a health check that is neither COMMAND, HTTP nor TCP: %s",
            record.task_id,
            check,
        )
        return
    await asyncio.sleep(policy.delay_s)
    while True:
        news = tracker.result(time.time(), healthy=await _passes(probe, policy.timeout_s))
        if news is not None:
            report(news)
            if news.kill:
                return
        await asyncio.sleep(policy.interval_s)


async def _passes(probe: Probe, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s or None):
            return await probe()
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
        return False


def _probe(
    check: Mapping[str, Any],
    container_id: str,
    containerizer: Containerizer,
    timeout_s: float,
    address: str,
) -> Probe | None:
    kind = (
        check.get("type")
        or next((name for name in ("command", "http", "tcp") if name in check), "").upper()
    )
    details = check.get(kind.lower()) or {}
    if kind == "COMMAND":
        command = msgspec.convert(details, CommandInfo)
        return lambda: containerizer.run_inside(container_id, command, timeout_s)
    port = int(details.get("port", 0))
    hosts = list(dict.fromkeys((address, "127.0.0.1")))
    if kind == "HTTP":
        url = f"{details.get('scheme', 'http')}://{{host}}:{port}{details.get('path', '/')}"
        return lambda: _any(hosts, lambda host: _http_answers(url.format(host=host)))
    if kind == "TCP":
        return lambda: _any(hosts, lambda host: _tcp_opens(host, port))
    return None


async def _any(hosts: list[str], ask: Callable[[str], Awaitable[bool]]) -> bool:
    """The answer of the first host that takes the connection."""
    refused: OSError | None = None
    for host in hosts:
        try:
            return await ask(host)
        except (ConnectionRefusedError, aiohttp.ClientConnectorError) as error:
            refused = error
    raise refused or OSError("no host to ask")


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
