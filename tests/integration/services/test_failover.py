from __future__ import annotations

import aiohttp
import pytest

from tests.support.scripted_engine import ScriptedEngine
from tests.unit.services.support import Server, announce

pytestmark = pytest.mark.zookeeper


async def led_by(servers: list[Server]) -> tuple[Server, list[Server]]:
    """The leading server and the others, once all agree."""

    async def agreed() -> tuple[Server, list[Server]] | None:
        leading = [
            server for server in servers if (await server.request("GET", "/v2/info"))[0] == 200
        ]
        others = [server for server in servers if server not in leading]
        redirecting = [
            server for server in others if (await server.request("GET", "/v2/apps"))[0] == 307
        ]
        return (leading[0], others) if len(leading) == 1 and redirecting == others else None

    return await servers[0].until(agreed)


async def test_standbys_redirect_and_one_takes_over_without_touching_a_task(
    engine: ScriptedEngine, zookeeper_url: str, http: aiohttp.ClientSession
) -> None:
    await announce(zookeeper_url, engine)
    async with (
        Server("127.61.1.1", zookeeper_url, http) as first,
        Server("127.61.1.2", zookeeper_url, http) as second,
    ):
        leader, [standby] = await led_by([first, second])
        status, _, headers = await standby.request_with_headers("GET", "/v2/apps?embed=apps.tasks")
        assert (status, headers["Location"]) == (
            307,
            f"{leader.settings.url}/v2/apps?embed=apps.tasks",
        )
        assert (await standby.get("/v2/leader"))["leader"] == leader.settings.url.removeprefix(
            "http://"
        )
        assert await standby.get("/ping") == "pong"

        await leader.post({"id": "/web", "cmd": "serve", "instances": 3, "mem": 32})
        before = await leader.running("/web", 3)
        framework = (await leader.get("/v2/info"))["frameworkId"]
        await leader.stop()

        await standby.wait_until_leading()
        await engine.until(lambda: engine.subscribes == 2 and engine.of_type("RECONCILE"))
        assert (await standby.get("/v2/info"))["frameworkId"] == framework
        after = await standby.running("/web", 3)
        assert {task["id"] for task in after["tasks"]} == {task["id"] for task in before["tasks"]}
        assert set(engine.live()) == {task["id"] for task in before["tasks"]}
        assert (await standby.request("PATCH", "/v2/apps/web", {"instances": 4}))[0] == 200
        await standby.running("/web", 4)


async def test_a_task_that_ended_without_a_leader_is_replaced(
    engine: ScriptedEngine, zookeeper_url: str, http: aiohttp.ClientSession
) -> None:
    await announce(zookeeper_url, engine)
    async with Server("127.61.1.1", zookeeper_url, http) as first:
        await first.wait_until_leading()
        await first.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
        lost = (await first.running("/web", 2))["tasks"][0]["id"]
    engine.tasks[lost].state = "TASK_KILLED"  # its update is not delivered
    async with Server("127.61.1.2", zookeeper_url, http) as second:
        await second.wait_until_leading()

        async def replaced() -> bool:
            app = (await second.get("/v2/apps/web"))["app"]
            return app["tasksRunning"] == 2 and lost not in [task["id"] for task in app["tasks"]]

        await second.until(replaced)


async def test_an_app_deleted_without_a_leading_master_is_killed_when_a_master_leads(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
    await server.running("/web", 2)
    engine.redirect = engine.url  # no master leads
    engine.break_streams()
    assert (await server.request("DELETE", "/v2/apps/web"))[0] == 200
    assert len(engine.live()) == 2
    engine.redirect = None
    await engine.until(lambda: not engine.live())


async def test_a_removed_framework_starts_with_a_new_id(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
    before = (await server.running("/web", 2))["tasks"]
    old = (await server.get("/v2/info"))["frameworkId"]
    engine.remove_framework(old)

    async def is_started_anew() -> bool:
        app = (await server.get("/v2/apps/web"))["app"]
        return app["tasksRunning"] == 2 and not {task["id"] for task in app["tasks"]} & {
            task["id"] for task in before
        }

    await server.until(is_started_anew)
    assert (await server.get("/v2/info"))["frameworkId"] != old


async def test_an_app_keeps_running_when_the_leading_master_changes(
    server: Server, engine: ScriptedEngine, zookeeper_url: str
) -> None:
    await server.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
    await server.running("/web", 2)
    async with ScriptedEngine("127.61.0.3") as successor:
        successor.agents, successor.tasks, successor.frameworks = engine.agents, engine.tasks, {}
        await announce(zookeeper_url, successor)
        engine.redirect = f"//{successor.host}:{successor.port}"
        engine.break_streams()
        await successor.until(lambda: successor.subscribes == 1)
        assert (await server.request("PATCH", "/v2/apps/web", {"instances": 3}))[0] == 200
        await server.running("/web", 3)
        assert successor.faults == []
