"""A services server in this process, on its own address, with real HTTP and a real ZooKeeper."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

import aiohttp

from harness.ports import free_port
from mesaform.services.server import serve
from mesaform.services.settings import Settings
from mesaform.zookeeper.session import ZooKeeper, split_zk_url
from tests.support.scripted_engine import ScriptedEngine


async def announce(zookeeper_url: str, engine: ScriptedEngine) -> None:
    """Announce the engine as the leading master in ZooKeeper."""
    hosts, root = split_zk_url(zookeeper_url)
    zk = ZooKeeper(hosts)
    await zk.start()
    address = {"hostname": engine.host, "ip": engine.host, "port": engine.port}
    await zk.put(
        f"{root}/mesos/json.info_0000000001", json.dumps({"id": "m1", "address": address}).encode()
    )
    await zk.stop()


class Server:
    def __init__(self, host: str, zookeeper_url: str, http: aiohttp.ClientSession) -> None:
        self.settings = Settings(
            f"{zookeeper_url}/mesos", f"{zookeeper_url}/marathon", host, free_port(host), host
        )
        self.http = http

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(serve(self.settings))
        await self.until(self._answers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def request(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> tuple[int, Any]:
        status, answer, _ = await self.request_with_headers(method, path, body, **options)
        return status, answer

    async def request_with_headers(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        async with self.http.request(
            method, self.settings.url + path, data=data, allow_redirects=False, **options
        ) as response:
            raw = await response.read()
            is_json = response.content_type == "application/json" and raw
            return response.status, json.loads(raw) if is_json else raw.decode(), response.headers

    async def get(self, path: str) -> Any:
        status, answer = await self.request("GET", path)
        assert status == 200, (status, answer)
        return answer

    async def post(self, app: dict[str, Any]) -> Any:
        status, answer = await self.request("POST", "/v2/apps", app)
        assert status == 201, (status, answer)
        return answer

    async def until(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        async with asyncio.timeout(timeout_s):
            while not (value := await condition()):
                assert not self._serving.done(), self._serving.exception()
                await asyncio.sleep(0.02)
        return value

    async def wait_until_leading(self) -> None:
        async def ready() -> bool:
            return (await self.request("GET", "/v2/info"))[0] == 200

        await self.until(ready)

    async def running(self, app_id: str, count: int) -> dict[str, Any]:
        """The app, once exactly `count` of its tasks run and it has no deployment."""

        async def current() -> Any:
            app = (await self.get(f"/v2/apps{app_id}"))["app"]
            return (
                app
                if app["tasksRunning"] == count == len(app["tasks"]) and not app["deployments"]
                else None
            )

        return await self.until(current)

    async def queued(self, app_id: str, count: int | None = None) -> Any:
        async def current() -> Any:
            for entry in (await self.get("/v2/queue"))["queue"]:
                if entry["app"]["id"] == app_id and count in (None, entry["count"]):
                    return entry
            return None

        return await self.until(current)

    async def _answers(self) -> bool:
        try:
            return (await self.request("GET", "/ping")) == (200, "pong")
        except aiohttp.ClientError:
            return False
