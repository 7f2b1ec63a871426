"""The agent's HTTP server: health, state, statistics, the files API and the v1 operator calls."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from mesaform.common.errors import Busy
from mesaform.engine.agent import views
from mesaform.engine.agent.config import Config
from mesaform.engine.agent.containerizer import Containerizer, Usage
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.sandbox_files import SandboxFiles
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.engine.agent.uplink import Uplink

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served(Protocol):
    """What the server needs of the agent."""

    config: Config
    layout: Layout
    containerizer: Containerizer
    uplink: Uplink
    counters: Counter[str]

    def scene(self) -> views.Scene: ...


@contextlib.asynccontextmanager
async def serve(agent: Served) -> AsyncIterator[int]:
    """Listen for the duration; gives the port, which the system chose if the configured one is 0.

    Raises:
        Busy: the port is taken, or the address is not this machine's.

    """
    runner = web.AppRunner(_application(Pages(agent)), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, agent.config.ip, agent.config.port, shutdown_timeout=1.0)
        try:
            await site.start()
        except OSError as error:
            raise Busy(
                f"cannot listen: {error.strerror or error}",
                where=f"{agent.config.ip}:{agent.config.port}",
                fix="stop what listens there, or set MESOS_IP and MESOS_PORT",
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _application(pages: Pages) -> web.Application:
    files = SandboxFiles(pages.agent.layout.sandboxes)
    routes: dict[str, Handler] = {
        "/health": pages.health,
        "/state": pages.state,
        "/version": pages.version,
        "/flags": pages.flags,
        "/containers": pages.containers,
        "/monitor/statistics": pages.statistics,
        "/metrics/snapshot": pages.metrics,
        "/files/browse": files.browse,
        "/files/read": files.read,
        "/files/download": files.download,
    }
    application = web.Application(client_max_size=2**20)
    for path, handler in routes.items():
        for prefix in ("", "/slave(1)"):
            application.router.add_get(f"{prefix}{path}", handler)
    for path in ("/api/v1", "/slave(1)/api/v1"):
        application.router.add_post(path, pages.call)
    return application


class Pages:
    """One method an endpoint."""

    def __init__(self, agent: Served) -> None:
        self.agent = agent

    async def health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def state(self, request: web.Request) -> web.Response:
        return _json(request, views.state_json(self.agent.scene()))

    async def version(self, request: web.Request) -> web.Response:
        return _json(request, views.VERSION_FACTS)

    async def flags(self, request: web.Request) -> web.Response:
        return _json(request, {"flags": dict(self.agent.config.flags)})

    async def containers(self, request: web.Request) -> web.Response:
        return _json(
            request,
            [views.container_json(record, usage, time.time()) for record, usage in self._usage()],
        )

    async def statistics(self, request: web.Request) -> web.Response:
        return _json(
            request,
            [views.statistics_json(record, usage, time.time()) for record, usage in self._usage()],
        )

    async def metrics(self, request: web.Request) -> web.Response:
        return _json(request, self._metrics())

    async def call(self, request: web.Request) -> web.Response:
        """POST /api/v1."""
        if not request.headers.get("Content-Type"):
            raise web.HTTPBadRequest(text="Expecting 'Content-Type' to be present")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Expecting 'Content-Type' of application/json")
        try:
            body = msgspec.json.decode(await request.read())
        except msgspec.DecodeError as error:
            raise web.HTTPBadRequest(text=f"Failed to parse body into JSON: {error}") from error
        kind = body.get("type") if isinstance(body, dict) else None
        if not isinstance(kind, str):
            raise web.HTTPBadRequest(
                text="Failed to validate agent::Call: Expecting 'type' to be present"
            )
        answer = self._answer(kind)
        if answer is None:
            raise web.HTTPNotImplemented(text=f"The embedded engine's agents do not support {kind}")
        return _json(request, {"type": kind, **answer})

    def _answer(self, kind: str) -> dict[str, Any] | None:
        scene = self.agent.scene()
        match kind:
            case "GET_HEALTH":
                return {"get_health": {"healthy": True}}
            case "GET_VERSION":
                return {"get_version": {"version_info": views.VERSION_FACTS}}
            case "GET_FLAGS":
                return {
                    "get_flags": {
                        "flags": [
                            {"name": name, "value": value}
                            for name, value in scene.config.flags.items()
                        ]
                    }
                }
            case "GET_STATE":
                return {"get_state": views.v1_state(scene)}
            case "GET_TASKS":
                return {"get_tasks": views.v1_tasks(scene)}
            case "GET_FRAMEWORKS":
                return {"get_frameworks": views.v1_state(scene)["get_frameworks"]}
            case "GET_AGENT":
                return {"get_agent": {"agent_info": views.v1_agent_info(scene)}}
            case "GET_METRICS":
                return {
                    "get_metrics": {
                        "metrics": [
                            {"name": name, "value": value}
                            for name, value in self._metrics().items()
                        ]
                    }
                }
            case "GET_CONTAINERS":
                return {
                    "get_containers": {
                        "containers": [
                            views.v1_container(record, usage, time.time())
                            for record, usage in self._usage()
                        ]
                    }
                }
        return None

    def _metrics(self) -> dict[str, float]:
        agent = self.agent
        return views.metrics_json(
            agent.scene(), agent.counters, registered=agent.uplink.registered, now=time.time()
        )

    def _usage(self) -> list[tuple[TaskRecord, Usage]]:
        usage = self.agent.containerizer.usage()
        return [
            (record, usage[record.container_id])
            for record in self.agent.scene().tasks
            if record.container_id in usage
        ]


def _json(request: web.Request, value: object) -> web.Response:
    """JSON, or JSONP where the old web page asks for it."""
    body = msgspec.json.encode(value)
    wrapper = request.query.get("jsonp")
    if wrapper and wrapper.replace(".", "").replace("_", "").isalnum():
        return web.Response(
            body=wrapper.encode() + b"(" + body + b");", content_type="text/javascript"
        )
    return web.Response(body=body, content_type="application/json")
