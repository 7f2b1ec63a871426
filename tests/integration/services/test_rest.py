from __future__ import annotations

import pytest

from tests.support.scripted_engine import ScriptedEngine
from tests.unit.services.support import Server

pytestmark = pytest.mark.zookeeper


async def test_an_app_is_created_runs_and_is_read_back_with_marathon_s_defaults(
    server: Server, engine: ScriptedEngine
) -> None:
    status, created, headers = await server.request_with_headers(
        "POST", "/v2/apps", {"id": "web/api", "cmd": "serve"}
    )
    assert status == 201
    assert headers["Location"] == "/v2/apps/web/api"
    assert created["deployments"] == [{"id": headers["Marathon-Deployment-Id"]}]
    app = await server.running("/web/api", 1)
    assert (app["cpus"], app["mem"], app["disk"], app["instances"]) == (1, 128, 0, 1)
    assert (app["backoffSeconds"], app["backoffFactor"], app["maxLaunchDelaySeconds"]) == (
        1,
        1.15,
        300,
    )
    assert app["upgradeStrategy"] == {"minimumHealthCapacity": 1, "maximumOverCapacity": 1}
    assert app["unreachableStrategy"] == {"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600}
    assert app["killSelection"] == "YOUNGEST_FIRST"
    assert app["portDefinitions"][0]["port"] == app["ports"][0] >= 10000
    task = app["tasks"][0]
    assert task["appId"] == "/web/api"
    assert task["state"] == "TASK_RUNNING"
    assert 31000 <= task["ports"][0] <= 32000
    assert engine.tasks[task["id"]].info["name"] == "api.web"


async def test_forty_instances_run_when_the_agents_have_the_resources(
    server: Server, engine: ScriptedEngine
) -> None:
    for _ in range(8):
        engine.add_agent()
    await server.post({"id": "/many", "cmd": "sleep 1000", "cpus": 1, "mem": 32, "instances": 40})
    await server.running("/many", 40)
    assert len(engine.of_type("ACCEPT")) <= 20
    assert await server.get("/v2/queue") == {"queue": []}
    await engine.until(lambda: engine.calls[-1]["type"] == "SUPPRESS" or engine.of_type("SUPPRESS"))


async def test_the_queue_shows_reject_reasons_until_an_agent_joins(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/big", "cmd": "sleep 1000", "cpus": 3, "mem": 32, "instances": 3})
    entry = await server.queued("/big", 1)

    async def reasons_are_known() -> bool:
        entry = await server.queued("/big", 1)
        rows = {
            row["reason"]: row for row in entry["processedOffersSummary"]["rejectSummaryLastOffers"]
        }
        return rows["InsufficientCpus"]["declined"] == 2

    await server.until(reasons_are_known)
    assert entry["delay"] == {"timeLeftSeconds": 0, "overdue": True}
    assert entry["role"] == "*"
    assert entry["app"]["cpus"] == 3
    engine.add_agent("host-c")
    await server.running("/big", 3)
    assert await server.get("/v2/queue") == {"queue": []}


async def test_an_app_is_scaled_down_and_deleted(server: Server, engine: ScriptedEngine) -> None:
    await server.post({"id": "/web", "cmd": "serve", "instances": 4, "mem": 32})
    first = await server.running("/web", 4)
    status, answer = await server.request("PATCH", "/v2/apps/web", {"instances": 1})
    assert status == 200
    assert set(answer) == {"version", "deploymentId"}
    app = await server.running("/web", 1)
    assert (
        app["versionInfo"]["lastConfigChangeAt"]
        == first["versionInfo"]["lastConfigChangeAt"]
        < app["version"]
    )
    status, answer = await server.request("DELETE", "/v2/apps/web")
    assert status == 200
    await engine.until(lambda: not engine.live())
    assert (await server.request("GET", "/v2/apps/web"))[0] == 404
    assert (await server.request("DELETE", "/v2/apps/web")) == (
        404,
        {"message": "App '/web' does not exist"},
    )


async def test_a_changed_definition_replaces_every_instance_at_full_capacity(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/web", "cmd": "one", "instances": 3, "cpus": 1, "mem": 32})
    await server.running("/web", 3)
    engine.hold_tasks = True
    assert (await server.request("PUT", "/v2/apps/web", {"cmd": "two"}))[0] == 200
    await engine.until(lambda: len(engine.live()) == 6)
    assert sum(task.state == "TASK_RUNNING" for task in engine.tasks.values()) == 3
    for task_id in [
        key for key in engine.live() if engine.tasks[key].info["command"]["value"] == "two"
    ]:
        engine.update(task_id, "TASK_RUNNING")
    app = await server.running("/web", 3)
    assert {engine.tasks[task["id"]].info["command"]["value"] for task in app["tasks"]} == {"two"}


async def test_a_locked_app_is_refused_unless_forced(
    server: Server, engine: ScriptedEngine
) -> None:
    engine.hold_tasks = True
    created = await server.post({"id": "/web", "cmd": "serve"})
    lock = created["deployments"][0]["id"]
    status, answer = await server.request("PUT", "/v2/apps/web", {"instances": 2})
    assert (status, answer["deployments"]) == (409, [{"id": lock}])
    assert [item["id"] for item in await server.get("/v2/deployments")] == [lock]
    assert (await server.request("PUT", "/v2/apps/web?force=true", {"instances": 2}))[0] == 200
    assert lock not in [item["id"] for item in await server.get("/v2/deployments")]
    assert (await server.request("POST", "/v2/apps", {"id": "/web", "cmd": "serve"}))[0] == 409


async def test_a_deployment_is_rolled_back_or_cancelled(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/web", "cmd": "serve", "mem": 32})
    await server.running("/web", 1)
    engine.hold_tasks = True
    _, answer = await server.request("PUT", "/v2/apps/web", {"instances": 3})
    status, undone = await server.request("DELETE", f"/v2/deployments/{answer['deploymentId']}")
    assert status == 200
    assert undone["deploymentId"] != answer["deploymentId"]
    await server.running("/web", 1)
    _, answer = await server.request("PUT", "/v2/apps/web", {"instances": 3})
    assert (await server.request("DELETE", f"/v2/deployments/{answer['deploymentId']}?force=true"))[
        0
    ] == 202
    assert (await server.get("/v2/apps/web"))["app"]["instances"] == 3
    assert (await server.request("DELETE", "/v2/deployments/none"))[0] == 404


async def test_a_killed_task_is_replaced_and_with_scale_it_is_not(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
    app = await server.running("/web", 2)
    task_id = app["tasks"][0]["id"]
    status, answer = await server.request("DELETE", f"/v2/apps/web/tasks/{task_id}")
    assert (status, answer["task"]["id"]) == (200, task_id)
    await engine.until(lambda: engine.tasks[task_id].has_ended)
    app = await server.running("/web", 2)
    assert task_id not in [task["id"] for task in app["tasks"]]
    assert (
        await server.request("DELETE", f"/v2/apps/web/tasks/{app['tasks'][0]['id']}?scale=true")
    )[0] == 200
    assert (await server.running("/web", 1))["instances"] == 1
    assert (await server.request("DELETE", "/v2/apps/web/tasks/none"))[0] == 404
    assert len((await server.get("/v2/tasks?status=running"))["tasks"]) == 1


async def test_restart_replaces_the_tasks_of_an_unchanged_app(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/web", "cmd": "serve", "instances": 2, "mem": 32})
    before = {task["id"] for task in (await server.running("/web", 2))["tasks"]}
    assert (await server.request("POST", "/v2/apps/web/restart"))[0] == 200
    await engine.until(lambda: all(engine.tasks[task_id].has_ended for task_id in before))
    await server.running("/web", 2)


async def test_a_failing_task_is_delayed_and_the_delay_can_be_reset(
    server: Server, engine: ScriptedEngine
) -> None:
    await server.post({"id": "/bad", "cmd": "exit 1", "mem": 32, "backoffSeconds": 300})
    app = await server.running("/bad", 1)
    engine.finish(app["tasks"][0]["id"], "TASK_FAILED", "Command exited with status 1")
    entry = await server.queued("/bad", 1)
    assert entry["delay"]["overdue"] is False
    assert 200 <= entry["delay"]["timeLeftSeconds"] <= 300
    failure = (await server.get("/v2/apps/bad"))["app"]["lastTaskFailure"]
    assert (failure["state"], failure["message"]) == ("TASK_FAILED", "Command exited with status 1")
    assert (await server.request("DELETE", "/v2/queue/bad/delay"))[0] == 204
    await server.running("/bad", 1)
    assert (await server.request("DELETE", "/v2/queue/bad/delay"))[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        (b"{", 400, "/"),
        (b"[]", 422, "/"),
        (b'{"id": "x"}', 422, "/"),
        (b'{"id": "x", "cmd": "a", "cpus": "many"}', 422, "/cpus"),
        (b'{"id": "X_y", "cmd": "a"}', 422, "/id"),
        (b'{"id": "x", "cmd": "a", "instances": -1}', 422, "/instances"),
        (b'{"id": "x", "cmd": "a", "constraints": [["hostname", "NEAR"]]}', 422, "/constraints(0)"),
        (
            b'{"id": "x", "cmd": "a", "container": {"type": "DOCKER"}}',
            422,
            "/container",
        ),
        (
            b'{"id": "x", "cmd": "a", "healthChecks": [{"protocol": "COMMAND"}]}',
            422,
            "/healthChecks(0)/command",
        ),
    ],
)
async def test_a_bad_definition_is_refused_with_the_field_s_path(
    server: Server, body: bytes, status: int, path: str
) -> None:
    actual_status, answer = await server.request("POST", "/v2/apps", body)
    assert actual_status == status
    assert path in [detail["path"] for detail in answer["details"]]
    assert await server.get("/v2/apps") == {"apps": []}


async def test_apps_are_listed_by_command_id_and_label(server: Server) -> None:
    apps = [
        {"id": "/a/one", "cmd": "sleep 1", "instances": 0, "labels": {"team": "x"}},
        {
            "id": "/b/two",
            "args": ["sleep", "2"],
            "instances": 0,
            "labels": {"team": "y", "tier": "1"},
        },
    ]
    assert (await server.request("PUT", "/v2/apps", apps))[0] == 200

    async def ids(query: str) -> list[str]:
        return [app["id"] for app in (await server.get(f"/v2/apps{query}"))["apps"]]

    assert await ids("") == ["/a/one", "/b/two"]
    assert await ids("?cmd=sleep") == ["/a/one"]
    assert await ids("?id=two") == ["/b/two"]
    assert await ids("?label=team") == ["/a/one", "/b/two"]
    assert await ids("?label=team==y,tier") == ["/b/two"]
    assert await ids("?label=team!=y") == ["/a/one"]


async def test_the_server_describes_itself(server: Server, engine: ScriptedEngine) -> None:
    async def subscribed() -> object:
        info = await server.get("/v2/info")
        return info if info["frameworkId"] in engine.frameworks else None

    info = await server.until(subscribed)
    assert info["name"] == "marathon"
    assert (await server.get("/v2/leader"))["leader"] == f"127.61.1.1:{server.settings.http_port}"
    assert "mesaform_services_leading 1" in await server.get("/metrics")
    assert "<title>Services" in await server.get("/")
    assert "textContent" in await server.get("/static/services.js")
    assert (await server.request("GET", "/v2/nothing"))[0] == 404


async def test_only_sandboxes_and_state_of_an_agent_are_proxied(
    server: Server, engine: ScriptedEngine
) -> None:
    agent = next(iter(engine.agents))
    engine.files["/sandbox/x/stdout"] = b"hello"
    answer = await server.get(f"/agents/{agent}/files/read?path=/sandbox/x/stdout&offset=1")
    assert answer == {"data": "ello", "offset": 1}
    assert "frameworks" in await server.get(f"/agents/{agent}/state")
    status, answer = await server.request("GET", f"/agents/{agent}/files/read?path=/nothing")
    assert (status, set(answer)) == (404, {"message"})
    assert (await server.request("GET", "/agents/nobody/state"))[0] == 404
    for path in ("/slaves", "/files/..%2Fslaves", "/api/v1", "/files/debug"):
        assert (await server.request("GET", f"/agents/{agent}{path}"))[0] in (404, 405)


async def test_a_browser_may_change_apps_from_this_server_s_own_page_only(server: Server) -> None:
    app = {"id": "/web", "cmd": "serve", "mem": 32}
    for origin in ("http://elsewhere.example", "http://127.61.1.1:1", "null"):
        status, answer = await server.request("POST", "/v2/apps", app, headers={"Origin": origin})
        assert (status, origin in answer["message"]) == (403, True)
    status, _ = await server.request(
        "POST", "/v2/apps", app, headers={"Origin": server.settings.url}
    )
    assert status == 201
    assert (
        await server.request("GET", "/v2/apps", headers={"Origin": "http://elsewhere.example"})
    )[0] == 200
