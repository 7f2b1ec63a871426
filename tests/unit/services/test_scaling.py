from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesaform.services.definitions import InvalidApp, parse
from mesaform.services.model import App, HealthCheck, Instance, UpgradeStrategy
from mesaform.services.queue import LaunchDelay, QueueEntry
from mesaform.services.scaling import choose_kills, is_settled, plan, simple_step


def an_app(instances: int, **fields: Any) -> App:
    values: dict[str, Any] = {"id": "/web", "cmd": "x", "instances": instances}
    return App(**{**values, "config_version": "v2", **fields})


def instance(
    name: str,
    *,
    version: str = "v2",
    state: str = "TASK_RUNNING",
    staged_at: float = 0,
    rack: str = "r",
) -> Instance:
    return Instance(
        task_id=name,
        app_id="/web",
        version=version,
        config_version=version,
        agent_id="a",
        host="h",
        agent_fields={"rack": rack},
        state=state,
        staged_at=staged_at,
    )


def test_the_youngest_instances_are_killed_first_unless_configured_otherwise() -> None:
    three = [instance(name, staged_at=index) for index, name in enumerate("abc")]
    assert [item.task_id for item in plan(an_app(1), three).kills] == ["c", "b"]
    assert [
        item.task_id for item in plan(an_app(1, kill_selection="OLDEST_FIRST"), three).kills
    ] == ["a", "b"]


def test_instances_that_do_not_run_are_killed_first() -> None:
    mixed = [
        instance("old", staged_at=1),
        instance("new", staged_at=2),
        instance("staging", staged_at=0, state="TASK_STAGING"),
    ]
    assert [item.task_id for item in plan(an_app(2), mixed).kills] == ["staging"]


def test_scaling_down_keeps_groups_balanced() -> None:
    spread = [
        instance("a", rack="r1", staged_at=9),
        instance("b", rack="r2", staged_at=1),
        instance("c", rack="r2", staged_at=2),
    ]
    app = an_app(2, constraints=[["rack", "GROUP_BY"]])
    assert [item.task_id for item in choose_kills(app, spread, 1)] == ["c"]


@given(st.integers(0, 12), st.floats(0, 1), st.floats(0, 1), st.data())
def test_a_replacement_ends_and_stays_within_its_limits(
    wanted: int, health: float, over: float, data: st.DataObject
) -> None:
    app = an_app(
        wanted,
        upgrade_strategy=UpgradeStrategy(
            minimum_health_capacity=health, maximum_over_capacity=over
        ),
    )
    running_now = {f"old{index}": instance(f"old{index}", version="v1") for index in range(wanted)}
    started = 0
    for _ in range(200):
        if is_settled(app, Counter(instance.condition for instance in running_now.values())):
            break
        step = plan(app, running_now.values())
        for instance_to_kill in step.kills:
            del running_now[instance_to_kill.task_id]
        assert sum(item.is_running for item in running_now.values()) >= min(
            int(wanted * health), wanted
        )
        for _ in range(step.launches):
            started += 1
            running_now[f"new{started}"] = instance(f"new{started}", state="TASK_STAGING")
        assert len(running_now) <= wanted + max(1, int(wanted * over))
        staging = sorted(name for name, item in running_now.items() if not item.is_running)
        for name in staging[: data.draw(st.integers(1, 4))]:
            running_now[name] = instance(name)
    assert is_settled(app, Counter(instance.condition for instance in running_now.values()))
    assert started == wanted


def test_the_launch_delay_of_a_failing_app_grows_up_to_its_limit() -> None:
    app, delay = (
        an_app(1, backoff_seconds=10, backoff_factor=2, max_launch_delay_seconds=35),
        LaunchDelay(),
    )
    delays = []
    for _ in range(4):
        delay.add_failure(app, ran_s=1, now=100)
        delays.append(delay.remaining_s(100))
    assert delays == [10, 20, 35, 35]
    assert delay.remaining_s(200) == 0
    delay.add_failure(app, ran_s=500, now=100)
    assert delay.remaining_s(100) == 10, "a stable run resets the delay"


def test_a_reject_summary_counts_offers_by_first_reason() -> None:
    entry = QueueEntry(0)
    entry.add_rejected("s1", "UnfulfilledConstraint", 1)
    entry.add_rejected("s1", "InsufficientCpus", 2)
    entry.add_rejected("s2", "InsufficientCpus", 2)
    entry.add_used("s3", 3)
    attempt = {
        row["reason"]: (row["declined"], row["processed"])
        for row in entry.reject_summary_launch_attempt()
    }
    assert attempt["UnfulfilledRole"] == (0, 4)
    assert attempt["UnfulfilledConstraint"] == (1, 4)
    assert attempt["InsufficientCpus"] == (2, 3)
    assert attempt["InsufficientMemory"] == (0, 1)
    last = {row["reason"]: row["declined"] for row in entry.reject_summary_last_offers()}
    assert (last["UnfulfilledConstraint"], last["InsufficientCpus"]) == (0, 2)


def test_a_client_can_send_back_an_answer() -> None:
    app = parse({"id": "/web", "cmd": "x", "ports": [0, 8080]})
    assert [part.port for part in app.port_definitions] == [10000, 8080]
    again = parse(
        {
            "id": "web",
            "cmd": "x",
            "tasksRunning": 3,
            "version": "v",
            "healthChecks": [],
            "container": None,
        },
        base=app,
        app_id="/web",
    )
    assert again == app
    assert parse({"args": ["y"]}, base=app, app_id="/web").cmd is None


@pytest.mark.parametrize(
    "body",
    [
        {"id": "x", "cmd": "a", "healthChecks": [{"protocol": "TCP", "portIndex": 1}]},
        {"id": "x", "cmd": "a", "healthChecks": [{"protocol": "TCP"}, {"protocol": "HTTP"}]},
        {"id": "x", "cmd": "a", "healthChecks": [{"protocol": "TCP", "intervalSeconds": -1}]},
        {"id": "x", "cmd": "a", "container": {"type": "DOCKER"}},
        {"id": "x", "cmd": "a", "networks": [{"mode": "container/bridge"}]},
        {"id": "x", "cmd": "a", "uris": [1]},
        {"id": "x", "cmd": "a", "dependencies": ["/db"]},
        {"id": "x", "cmd": "a", "residency": {"taskLostBehavior": "WAIT_FOREVER"}},
    ],
)
def test_unsupported_fields_and_invalid_health_checks_are_rejected(body: dict[str, object]) -> None:
    with pytest.raises(InvalidApp):
        parse(body)


def test_an_app_has_either_a_command_or_arguments() -> None:
    for body in ({"cmd": "a", "args": ["b"]}, {}):
        with pytest.raises(InvalidApp) as refused:
            parse({"id": "x", **body})
        assert list(refused.value.problems) == ["/"]


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"id": "/" + "a" * 5000}, "/id"),
        ({"id": "/" + "a/" * 150 + "a"}, "/id"),
        ({"nonsense": 1}, "/nonsense"),
        ({"executorResources": {"cpus": 1}}, "/executorResources"),
        (
            {"healthChecks": [{"protocol": "TCP", "ipProtocol": "IPv6"}]},
            "/healthChecks(0)/ipProtocol",
        ),
        ({"portDefinitions": [{"prot": 1}]}, "/portDefinitions(0)/prot"),
        ({"upgradeStrategy": {"fast": True}}, "/upgradeStrategy/fast"),
        ({"cpus": 1e308}, "/cpus"),
        ({"mem": -1}, "/mem"),
        ({"taskKillGracePeriodSeconds": 1e30}, "/taskKillGracePeriodSeconds"),
        ({"backoffFactor": 0.5}, "/backoffFactor"),
        ({"instances": 10**20}, "/instances"),
        ({"cmd": "a\0b"}, "/cmd"),
        ({"cmd": "a" * 200_000}, "/cmd"),
        ({"env": {"A": "\0"}}, "/env/A"),
        ({"env": {f"A{n}": "x" * 1000 for n in range(300)}}, "/"),
        ({"user": " "}, "/user"),
        ({"portDefinitions": [{}] * 300}, "/portDefinitions"),
        ({"constraints": [["a", "LIKE", "b" * 2000]]}, "/constraints"),
    ],
)
def test_definitions_beyond_the_limits_are_refused(more: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidApp) as caught:
        parse({"id": "x", "cmd": "a", **more})
    assert list(caught.value.problems) == [path]


def test_fields_that_ask_for_nothing_are_ignored() -> None:
    plain = parse({"id": "x", "cmd": "a"})
    more = {
        "nonsense": None,
        "healthChecks": [],
        "secrets": {},
        "networks": [{"mode": "host"}],
        "container": {"type": "MESOS", "volumes": []},
        "dependencies": [],
        "executor": "",
    }
    assert parse({"id": "x", "cmd": "a", **more}) == plain


def test_the_legacy_field_uris_is_converted_to_fetch() -> None:
    assert [
        item.uri
        for item in parse({"id": "x", "cmd": "a", "uris": ["file:///a", "http://b/c.tgz"]}).fetch
    ] == [
        "file:///a",
        "http://b/c.tgz",
    ]
    assert [
        item.uri
        for item in parse({"id": "x", "cmd": "a", "uris": ["old"], "fetch": [{"uri": "new"}]}).fetch
    ] == ["new"]


@pytest.mark.parametrize("is_healthy", [None, False])
def test_an_app_whose_health_is_checked_is_settled_only_when_it_is_healthy(
    is_healthy: bool | None,
) -> None:
    app = an_app(1, health_checks=[HealthCheck(protocol="TCP")])
    assert not is_settled(app, {replace(instance("a"), is_healthy=is_healthy).condition: 1})
    assert is_settled(app, {replace(instance("a"), is_healthy=True).condition: 1})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["v1", "v2"]),
            st.sampled_from(["TASK_RUNNING", "TASK_STAGING", "TASK_FAILED"]),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.integers(0, 6),
)
def test_a_step_from_counts_equals_the_step_from_instances(
    running_now: list[tuple[str, str, bool]], wanted: int
) -> None:
    instances = [
        replace(
            instance(str(index), version=version, state=state),
            killing_since=1.0 if killing else None,
        )
        for index, (version, state, killing) in enumerate(running_now)
    ]
    quick = simple_step(an_app(wanted), Counter(item.condition for item in instances))
    assert quick in (None, plan(an_app(wanted), instances))


def test_an_instance_stored_by_an_earlier_version_is_readable() -> None:
    stored = (
        b'{"task_id":"t","app_id":"/web","version":"v","config_version":"v","agent_id":"a",'
        b'"host":"h","places":{"rack":"r"},"staged_at":1.0,"healthy":true,"inactive":true}'
    )
    decoded = msgspec.json.decode(stored, type=Instance)
    assert (decoded.agent_fields, decoded.is_healthy, decoded.is_inactive) == (
        {"rack": "r"},
        True,
        True,
    )
    assert msgspec.json.decode(msgspec.json.encode(decoded)) == msgspec.json.decode(stored)
