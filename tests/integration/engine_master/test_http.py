"""The HTTP API of a master with real ZooKeeper and gRPC.

Expected answers were recorded from Apache Mesos.
"""

from __future__ import annotations

import base64
import json
import uuid

import aiohttp
import grpc
import pytest

from harness.master_process import (
    Events,
    HttpScheduler,
    agent_on,
    eventually,
    running,
)
from mesaform.engine import link
from mesaform.engine.master.streams import MAX_QUEUED_BYTES

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]


@pytest.fixture
async def master(zookeeper_url):
    async with running(zookeeper_url) as process:
        await process.leading()
        yield process


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(auto_decompress=False) as client:
        yield client


async def exchange(session, method, url, **kw):
    async with session.request(method, url, allow_redirects=False, **kw) as response:
        return response.status, await response.text(), response.headers


J = {"Content-Type": "application/json"}
UUID = base64.b64encode(uuid.UUID(int=0, version=4).bytes).decode()  # RFC 4122, version 4
FID = "{fid}"

SCHEDULER_ERRORS = [
    (
        "GET",
        None,
        {},
        405,
        "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.",
    ),
    (
        "PUT",
        "{}",
        J,
        405,
        "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'PUT'.",
    ),
    (
        "POST",
        "x",
        {"Content-Type": "text/plain"},
        415,
        "Expecting 'Content-Type' of application/json or application/x-protobuf",
    ),
    ("POST", "{", J, 400, "Failed to parse body into JSON: syntax error at line 1 near: "),
    ("POST", "[]", J, 400, "Failed to convert JSON into Call protobuf: Expecting a JSON object"),
    ("POST", "{}", J, 400, "Failed to validate scheduler::Call: Expecting 'type' to be present"),
    (
        "POST",
        '{"type": "NOPE"}',
        J,
        400,
        "Failed to validate scheduler::Call: Expecting 'type' to be present",
    ),
    (
        "POST",
        '{"type": "SUBSCRIBE"}',
        J,
        400,
        "Failed to validate scheduler::Call: Expecting 'subscribe' to be present",
    ),
    (
        "POST",
        '{"type": "REVIVE"}',
        J,
        400,
        "Failed to validate scheduler::Call: Expecting 'framework_id' to be present",
    ),
    (
        "POST",
        '{"type": "ACCEPT", "framework_id": {"value": "{fid}"}}',
        J,
        400,
        "Failed to validate scheduler::Call: Expecting 'accept' to be present",
    ),
    (
        "POST",
        (
            '{"type": "ACKNOWLEDGE", "framework_id": {"value": "{fid}"}, "acknowledge": '
            '{"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": "c2hvcnQ="}}'
        ),
        J,
        400,
        "Failed to validate scheduler::Call: Not a valid UUID",
    ),
    (
        "POST",
        '{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "x"}}}',
        {**J, "Accept": "text/html"},
        406,
        "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
    ),
    (
        "POST",
        '{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "x"}}}',
        {**J, "Mesos-Stream-Id": "abc"},
        400,
        "Subscribe calls should not include the 'Mesos-Stream-Id' header",
    ),
    (
        "POST",
        '{"type": "REVIVE", "framework_id": {"value": "nobody"}}',
        J,
        400,
        "Framework cannot be found",
    ),
    (
        "POST",
        '{"type": "REVIVE", "framework_id": {"value": "{fid}"}}',
        J,
        400,
        "All non-subscribe calls should include the 'Mesos-Stream-Id' header",
    ),
    (
        "POST",
        '{"type": "REVIVE", "framework_id": {"value": "{fid}"}}',
        {**J, "Mesos-Stream-Id": "wrong"},
        400,
        (
            "The stream ID 'wrong' included in this request didn't match the stream ID currently "
            "associated with framework ID {fid}"
        ),
    ),
    (
        "POST",
        (
            '{"type": "UPDATE_FRAMEWORK", "framework_id": {"value": "{fid}"}, "update_framework": '
            '{"framework_info": {"user": "u", "name": "n", "id": {"value": "other"}}}}'
        ),
        J,
        400,
        (
            "Failed to validate scheduler::Call: "
            "'framework_id' differs from 'update_framework.framework_info.id'"
        ),
    ),
]


async def test_the_scheduler_api_checks_in_mesos_order_with_mesos_texts(master, session):
    scheduler = await HttpScheduler.subscribe(session, master.base)
    for method, body, headers, status, message in SCHEDULER_ERRORS:
        data = body.replace("{fid}", scheduler.id).encode() if body else None
        got = await exchange(
            session, method, f"{master.base}/api/v1/scheduler", data=data, headers=headers
        )
        assert got[:2] == (status, message.replace("{fid}", scheduler.id)), (method, body)
        assert got[2]["Content-Type"] == "text/plain; charset=utf-8"


async def test_a_body_without_a_content_type_is_refused(master, session):
    status, message, _ = await exchange(
        session, "POST", f"{master.base}/api/v1", data=b"x", skip_auto_headers=["Content-Type"]
    )
    assert (status, message) == (400, "Expecting 'Content-Type' to be present")


async def test_valid_calls_get_202_and_no_body(master, session):
    scheduler = await HttpScheduler.subscribe(session, master.base)
    unknown = {"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": UUID}
    assert await scheduler.call("ACKNOWLEDGE", acknowledge=unknown) == (202, "")
    assert await scheduler.call(
        "DECLINE", decline={"offer_ids": [{"value": "x"}], "filters": {"refuse_seconds": "12.5"}}
    ) == (202, "")
    assert await scheduler.call(
        "DECLINE", decline={"offer_ids": [], "nonsense": None, "more": {"a": 1}}
    ) == (202, "")
    assert await scheduler.call("REQUEST", request={"requests": []}) == (202, "")
    info = {"user": "root", "name": "renamed", "id": {"value": scheduler.id}}
    assert await scheduler.call("UPDATE_FRAMEWORK", update_framework={"framework_info": info}) == (
        200,
        "",
    )
    status, text = await scheduler.call(
        "UPDATE_FRAMEWORK", update_framework={"framework_info": {**info, "user": "other"}}
    )
    assert (status, text) == (
        400,
        (
            "FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported; "
            "attempted to update from 'root' to 'other'"
        ),
    )


async def test_a_task_from_offer_to_acknowledgement(master, session):
    async with agent_on(master) as agent:
        scheduler = await HttpScheduler.subscribe(session, master.base)
        offer = (await scheduler.events.next("OFFERS"))["offers"]["offers"][0]
        assert [event["type"] for event in scheduler.events.seen] == [
            "SUBSCRIBED",
            "HEARTBEAT",
            "OFFERS",
        ]
        assert offer["agent_id"]["value"] == agent.id
        await scheduler.launch(offer, "t")
        launched = await agent.receive(link.Launch)
        assert launched.task.command is not None
        assert launched.task.command.value == "true"
        for state in ("TASK_RUNNING", "TASK_FINISHED"):
            sent = await agent.update(scheduler.id, "t", state)
            status = (await scheduler.events.next("UPDATE"))["update"]["status"]
            assert (status["state"], base64.b64decode(status["uuid"])) == (state, sent)
            await scheduler.acknowledge(status)
            assert (await agent.receive(link.Acknowledge)).uuid == sent
        tasks = await operator(session, master, "GET_TASKS")
        assert [task["state"] for task in tasks["completed_tasks"]] == ["TASK_FINISHED"]
        assert tasks["tasks"] == []


async def operator(session, master, type_, **body):
    status, text, _ = await exchange(
        session, "POST", f"{master.base}/api/v1", json={"type": type_, **body}
    )
    assert status == 200, text
    return json.loads(text).get(type_.lower(), {}) if text else {}


async def test_draining_over_the_wire(master, session):
    async with agent_on(master) as agent:
        target = {"agent_id": {"value": agent.id}}
        url = f"{master.base}/api/v1"
        assert (
            await exchange(
                session,
                "POST",
                url,
                json={
                    "type": "DRAIN_AGENT",
                    "drain_agent": {**target, "max_grace_period": {"seconds": 3}},
                },
            )
        )[:2] == (200, "")
        assert (await agent.receive(link.Drain)).max_grace_s == 3.0
        [document] = (await operator(session, master, "GET_AGENTS"))["agents"]
        assert document["drain_info"] == {
            "state": "DRAINED",
            "config": {"max_grace_period": {"nanoseconds": 3_000_000_000}, "mark_gone": False},
        }
        assert (document["active"], document["deactivated"]) == (False, True)
        bad = {"type": "DRAIN_AGENT", "drain_agent": {**target, "max_grace_period": "10mins"}}
        assert (await exchange(session, "POST", url, json=bad))[:2] == (
            400,
            (
                "Failed to convert JSON into Call protobuf: "
                "Not expecting a JSON string for field 'max_grace_period'"
            ),
        )
        assert (
            await exchange(
                session, "POST", url, json={"type": "REACTIVATE_AGENT", "reactivate_agent": target}
            )
        )[:2] == (200, "")
        await agent.receive(link.Undrain)
        gone = {"type": "MARK_AGENT_GONE", "mark_agent_gone": target}
        assert (await exchange(session, "POST", url, json=gone))[0] == 200
        assert "gone" in (await agent.receive(link.Refused)).why


async def test_a_stream_that_breaks_disconnects_the_framework(master, session):
    scheduler = await HttpScheduler.subscribe(session, master.base, failover_timeout=600.0)
    scheduler.events.response.close()
    framework = master.process.term.core.state.frameworks[scheduler.id]
    await eventually(lambda: not framework.is_connected)
    assert await scheduler.call("REVIVE") == (403, "Framework is not subscribed")


async def test_a_torn_down_framework_gets_an_error_on_a_200_stream(master, session):
    scheduler = await HttpScheduler.subscribe(session, master.base)
    assert (await scheduler.call("TEARDOWN"))[0] == 202
    assert await scheduler.events.ended()
    assert await scheduler.call("REVIVE") == (400, "Framework cannot be found")
    again = await HttpScheduler.subscribe(session, master.base, framework_id=scheduler.id)
    assert again.events.seen == [
        {"type": "ERROR", "error": {"message": "Framework has been removed"}}
    ]
    assert await again.events.ended()


VERSION_FIELDS = {
    "version",
    "git_sha",
    "git_branch",
    "build_date",
    "build_time",
    "build_user",
}
READS = {
    "/health": (200, None),
    "/version": (200, VERSION_FIELDS),
    "/slaves": (200, {"slaves", "recovered_slaves"}),
    "/slaves/": (200, {"slaves", "recovered_slaves"}),
    "/frameworks": (200, {"frameworks", "completed_frameworks", "unregistered_frameworks"}),
    "/tasks?limit=1&order=asc": (200, {"tasks"}),
    "/roles": (200, {"roles"}),
    "/master/state-summary": (200, {"hostname", "slaves", "frameworks"}),
    "/flags": (200, {"flags"}),
    "/maintenance/schedule": (200, set()),
    "/quota": (200, set()),
    "/nope": (404, None),
    "/tasks?limit=-1": (400, None),
}


async def test_the_old_endpoints(master, session):
    for path, (status, keys) in READS.items():
        got, text, _ = await exchange(session, "GET", master.base + path)
        assert got == status, path
        if keys is not None:
            assert set(json.loads(text)) == keys, path
    state = json.loads((await exchange(session, "GET", master.base + "/master/state"))[1])
    assert {
        "leader",
        "leader_info",
        "flags",
        "slaves",
        "frameworks",
        "completed_frameworks",
        "orphan_tasks",
        "activated_slaves",
        "pid",
        "id",
    } <= set(state)
    assert state["leader"] == f"master@{master.address}:{master.port}"


async def test_mesos_dns_finds_ports_as_text(master, session):
    async with agent_on(master):
        [agent] = json.loads((await exchange(session, "GET", master.base + "/state"))[1])["slaves"]
        assert agent["resources"] == {
            "cpus": 4.0,
            "mem": 4096.0,
            "disk": 8192.0,
            "gpus": 0.0,
            "ports": "[31000-32000]",
        }


async def test_jsonp_is_off_unless_configured(master, session):
    for path in ("slaves", "state", "tasks", "frameworks", "metrics/snapshot", "version"):
        url = f"{master.base}/{path}?jsonp=angular.callbacks._0"
        assert (await exchange(session, "GET", url))[0] == 403


async def test_configured_jsonp_calls_the_function_and_only_a_function(zookeeper_url, session):
    async with running(zookeeper_url, MESAFORM_HTTP_JSONP="1") as master:
        await master.leading()
        status, text, headers = await exchange(
            session, "GET", f"{master.base}/slaves?jsonp=angular.callbacks._0"
        )
        assert (status, headers["Content-Type"]) == (200, "text/javascript")
        assert text.startswith("angular.callbacks._0({")
        assert text.endswith("})")
        assert (await exchange(session, "GET", f"{master.base}/slaves?jsonp=alert(1)//"))[0] == 400


OPERATOR_READS = {
    "GET_HEALTH": {"healthy"},
    "GET_VERSION": {"version_info"},
    "GET_FLAGS": {"flags"},
    "GET_LOGGING_LEVEL": {"level"},
    "GET_STATE": {"get_tasks", "get_executors", "get_frameworks", "get_agents"},
    "GET_AGENTS": {"agents", "recovered_agents"},
    "GET_FRAMEWORKS": {"frameworks", "completed_frameworks"},
    "GET_EXECUTORS": {"executors"},
    "GET_OPERATIONS": set(),
    "GET_TASKS": {"tasks", "unreachable_tasks", "completed_tasks"},
    "GET_ROLES": set(),
    "GET_WEIGHTS": set(),
    "GET_MASTER": {"master_info", "start_time", "elected_time"},
    "GET_MAINTENANCE_STATUS": {"status"},
    "GET_MAINTENANCE_SCHEDULE": {"schedule"},
    "GET_QUOTA": {"status"},
}


async def test_every_operator_read(master, session):
    for call, keys in OPERATOR_READS.items():
        assert set(await operator(session, master, call)) == keys, call
    url = f"{master.base}/api/v1"
    assert (await exchange(session, "POST", url, json={"type": "NO_SUCH_CALL"}))[:2] == (
        400,
        "Failed to validate master::Call: Expecting 'type' to be present",
    )
    assert (
        await exchange(
            session, "POST", url, json={"type": "GET_AGENTS"}, headers={"Accept": "text/html"}
        )
    )[0] == 406
    assert (await exchange(session, "POST", url + "/operator", json={"type": "GET_HEALTH"}))[
        0
    ] == 200
    assert (
        await exchange(session, "POST", url, json={"type": "UPDATE_WEIGHTS", "update_weights": {}})
    )[0] == 501


METRICS = {
    "master/elected",
    "master/uptime_secs",
    "master/outstanding_offers",
    "master/cpus_total",
    "master/cpus_used",
    "master/mem_percent",
    "master/slaves_active",
    "master/slaves_inactive",
    "master/slaves_connected",
    "master/slaves_disconnected",
    "master/slaves_unreachable",
    "master/tasks_staging",
    "master/tasks_starting",
    "master/tasks_running",
    "master/tasks_killing",
    "master/tasks_unreachable",
    "master/messages_decline_offers",
    "master/messages_revive_offers",
    "master/messages_suppress_offers",
    "master/messages_resource_request",
    "allocator/mesos/resources/cpus/total",
    "allocator/mesos/resources/mem/offered_or_allocated",
    "allocator/mesos/allocation_runs",
    "allocator/mesos/allocation_run_ms",
    "allocator/mesos/offer_filters/roles/*/active",
    "allocator/mesos/roles/*/shares/dominant",
}


async def test_the_metrics_an_autoscaler_needs(master, session):
    async with agent_on(master):
        scheduler = await HttpScheduler.subscribe(session, master.base, name="a/b c")
        offer = (await scheduler.events.next("OFFERS"))["offers"]["offers"][0]
        await scheduler.call(
            "DECLINE", decline={"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 100}}
        )
        await scheduler.call("SUPPRESS")
        metrics = json.loads((await exchange(session, "GET", f"{master.base}/metrics/snapshot"))[1])
        assert set(metrics) >= METRICS
        prefix = f"master/frameworks/a%2Fb%20c/{scheduler.id}/"
        wanted = {
            "offers/sent": 1,
            "offers/declined": 1,
            "offers/accepted": 0,
            "roles/*/suppressed": 1,
            "subscribed": 1,
            "calls/decline": 1,
            "events/offers": 1,
        }
        assert {name: metrics[prefix + name] for name in wanted} == wanted
        assert metrics["allocator/mesos/offer_filters/roles/*/active"] == 1
        listed = await operator(
            session, master, "GET_METRICS", get_metrics={"timeout": {"nanoseconds": 5_000_000_000}}
        )
        assert set(metrics) == {metric["name"] for metric in listed["metrics"]}


async def test_operators_see_events_as_they_come(master, session):
    events = Events(await session.post(f"{master.base}/api/v1", json={"type": "SUBSCRIBE"}))
    assert set((await events.next())["subscribed"]) == {"get_state", "heartbeat_interval_seconds"}
    assert (await events.next())["type"] == "HEARTBEAT"
    async with agent_on(master) as agent:
        assert (await events.next())["agent_added"]["agent"]["agent_info"]["id"] == {
            "value": agent.id
        }
        await HttpScheduler.subscribe(session, master.base, name="seen")
        assert (await events.next("FRAMEWORK_ADDED"))["framework_added"]["framework"][
            "framework_info"
        ]["name"] == "seen"


async def test_a_standby_redirects_to_the_leader(master, session, zookeeper_url):
    async with running(zookeeper_url) as standby:
        leader = f"//{master.address}:{master.port}"
        cases = {
            ("POST", "/api/v1/scheduler"): f"{leader}/master/api/v1/scheduler",
            ("GET", "/state"): f"{leader}/master/state",
            ("GET", "/master/state"): f"{leader}/master/state",
            ("POST", "/api/v1"): f"{leader}/master/api/v1",
            ("GET", "/redirect"): leader,
            ("GET", "/"): f"{leader}/",
            ("GET", "/tasks?limit=1"): f"{leader}/master/tasks?limit=1",
        }
        for (method, path), location in cases.items():
            status, text, headers = await exchange(
                session, method, standby.base + path, data=b"{}" if method == "POST" else None
            )
            assert (status, text, headers["Location"]) == (307, "", location), path
        assert (await exchange(session, "GET", f"{standby.base}/health"))[0] == 200
        assert (
            json.loads((await exchange(session, "GET", f"{standby.base}/metrics/snapshot"))[1])[
                "master/elected"
            ]
            == 0
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with agent_on(standby):
                pass
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_the_leader_redirects_to_itself(master, session):
    status, _, headers = await exchange(session, "GET", f"{master.base}/master/redirect")
    assert (status, headers["Location"]) == (307, f"//{master.address}:{master.port}")


async def test_the_next_leader_knows_agents_and_gets_their_tasks_from_them(session, zookeeper_url):
    from tests.unit.engine_master.world import FrameworkIdentity, known

    async with running(zookeeper_url) as first:
        await first.leading()
        async with running(zookeeper_url) as second:
            async with agent_on(first) as agent:
                scheduler = await HttpScheduler.subscribe(
                    session, first.base, failover_timeout=600.0
                )
                await scheduler.launch(
                    (await scheduler.events.next("OFFERS"))["offers"]["offers"][0], "t"
                )
                await agent.receive(link.Launch)
            await first.stop()
            await second.leading()
            assert second.process.term is not None
            state = second.process.term.core.state
            assert state.recovered == {agent.id}
            framework = FrameworkIdentity(first_info(scheduler), scheduler.id)
            async with agent_on(
                second, agent_id=agent.id, tasks=[known(framework, "t", agent.id)]
            ) as back:
                assert back.id == agent.id
                again = await HttpScheduler.subscribe(
                    session, second.base, framework_id=scheduler.id, failover_timeout=600.0
                )
                assert (await again.events.next("OFFERS"))["offers"]["offers"][0]["agent_id"] == {
                    "value": agent.id
                }
                await again.call("RECONCILE", reconcile={"tasks": []})
                assert (await again.events.next("UPDATE"))["update"]["status"][
                    "state"
                ] == "TASK_RUNNING"


def first_info(scheduler):
    from mesaform.mesos.messages import Capability, FrameworkInfo, ident

    capabilities = [Capability(type="MULTI_ROLE"), Capability(type="PARTITION_AWARE")]
    return FrameworkInfo(
        user="root",
        name="f",
        roles=["*"],
        failover_timeout=600.0,
        id=ident(scheduler.id),
        capabilities=capabilities,
    )


async def test_a_subscriber_that_does_not_read_is_disconnected(master, session):
    scheduler = await HttpScheduler.subscribe(session, master.base, failover_timeout=600.0)
    term = master.process.term
    [stream] = term.streams.values()
    data = b"x" * 10_000
    for _ in range(1 + MAX_QUEUED_BYTES // len(data)):
        stream.push(data)
    framework = term.core.state.frameworks[scheduler.id]
    await eventually(lambda: not framework.is_connected)


async def test_the_page_is_served_and_loads_nothing_from_other_origins(master, session):
    status, page, headers = await exchange(session, "GET", f"{master.base}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "http" not in page
    for asset, kind in (
        ("static/master.js", "text/javascript"),
        ("static/common/page.css", "text/css"),
    ):
        status, text, headers = await exchange(session, "GET", f"{master.base}/{asset}")
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert "innerHTML" not in text
