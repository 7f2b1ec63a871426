"""Runs a task's health checks: a command in its container, an HTTP request, or a TCP connection.

`health` decides what a result means. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import msgspec
import structlog

from mesaform.common.json_types import as_object
from mesaform.engine.agent.containerizer import Containerizer
from mesaform.engine.agent.events import HealthChecked
from mesaform.engine.agent.health import HealthPolicy, HealthTracker
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.mesos.messages import CommandInfo

log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[bool]]


async def watch_health(
    record: TaskRecord,
    containerizer: Containerizer,
    address: str,
    report: Callable[[HealthChecked], None],
) -> None:
    """Check until cancelled, or until the task must be killed.

    Args:
        record: a running task with a health check.
        containerizer: runs commands in its container.
        address: the machine's own address, at which the task listens. The loopback address is
            tried after it.
        report: receives the events.

    """
    try:
        await _watch(record, containerizer, address, report)
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        log.warning("health_check_invalid", task=record.task_id, error=str(error))


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
        log.warning("health_check_type_unknown", task=record.task_id, check=check)
        return
    await asyncio.sleep(policy.delay_s)
    while True:
        event = tracker.result(time.time(), healthy=await _passes(probe, policy.timeout_s))
        if event is not None:
            report(event)
            if event.kill:
                return
        await asyncio.sleep(policy.interval_s)


async def _passes(probe: Probe, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s or None):
            return await probe()
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
        return False


def _probe(
    check: Mapping[str, object],
    container_id: str,
    containerizer: Containerizer,
    timeout_s: float,
    address: str,
) -> Probe | None:
    kind = _kind(check)
    details = as_object(check.get(kind.lower()))
    if kind == "COMMAND":
        command = msgspec.convert(details, CommandInfo)
        return lambda: containerizer.run_inside(container_id, command, timeout_s)
    port = _port(details)
    hosts = list(dict.fromkeys((address, "127.0.0.1")))
    if kind == "HTTP":
        url = f"{details.get('scheme', 'http')}://{{host}}:{port}{details.get('path', '/')}"
        return lambda: _any(hosts, lambda host: _http_answers(url.format(host=host)))
    if kind == "TCP":
        return lambda: _any(hosts, lambda host: _tcp_opens(host, port))
    return None


def _kind(check: Mapping[str, object]) -> str:
    """The check's type, or the name of the field that is set, as older clients send it."""
    if check.get("type"):
        return str(check["type"])
    return next((name.upper() for name in ("command", "http", "tcp") if name in check), "")


def _port(details: Mapping[str, object]) -> int:
    port = details.get("port", 0)
    return int(port) if isinstance(port, int | float | str) else 0


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
