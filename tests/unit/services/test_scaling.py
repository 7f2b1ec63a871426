from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesaform.services.definitions import InvalidApp, parse
from mesaform.services.model import App, HealthCheck, Instance, UpgradeStrategy
from mesaform.services.queue import Backoff, Waiting
from mesaform.services.scaling import choose, plan, settled, simple_step


def an_app(instances: int, **fields: object) -> App:
    return App(
        **{"id": "/web", "cmd": "x", "instances": instances, "config_version": "v2", **fields}
    )  # type: ignore[arg-type]


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
        places={"rack": rack},
        state=state,
        staged_at=staged_at,
    )


def test_the_youngest_go_first_unless_the_oldest_are_asked_for() -> None:
    three = [instance(name, staged_at=index) for index, name in enumerate("abc")]
    assert [item.task_id for item in plan(an_app(1), three).kills] == ["c", "b"]
    assert [
        item.task_id for item in plan(an_app(1, kill_selection="OLDEST_FIRST"), three).kills
    ] == ["a", "b"]


def test_what_does_not_run_yet_goes_before_what_runs() -> None:
    mixed = [
        instance("old", staged_at=1),
        instance("new", staged_at=2),
        instance("staging", staged_at=0, state="TASK_STAGING"),
    ]
    assert [item.task_id for item in plan(an_app(2), mixed).kills] == ["staging"]


def test_scaling_down_keeps_groups_level() -> None:
    spread = [
        instance("a", rack="r1", staged_at=9),
        instance("b", rack="r2", staged_at=1),
        instance("c", rack="r2", staged_at=2),
    ]
    app = an_app(2, constraints=[["rack", "GROUP_BY"]])
    assert [item.task_id for item in choose(app, spread, 1)] == ["c"]


@given(st.integers(0, 12), st.floats(0, 1), st.floats(0, 1), st.data())
def test_an_upgrade_ends_and_keeps_its_promises_on_the_way(
    wanted: int, health: float, over: float, data: st.DataObject
) -> None:
    app = an_app(
        wanted,
        upgrade_strategy=UpgradeStrategy(
            minimum_health_capacity=health, maximum_over_capacity=over
        ),
    )
    there = {f"old{index}": instance(f"old{index}", version="v1") for index in range(wanted)}
    started = 0
    for _ in range(200):
        if settled(app, Counter(instance.standing for instance in there.values())):
            break
        step = plan(app, there.values())
        for victim in step.kills:
            del there[victim.task_id]
        assert sum(item.running for item in there.values()) >= min(int(wanted * health), wanted)
        for _ in range(step.launches):
            started += 1
            there[f"new{started}"] = instance(f"new{started}", state="TASK_STAGING")
        assert len(there) <= wanted + max(1, int(wanted * over))
        staging = sorted(name for name, item in there.items() if not item.running)
        for name in staging[: data.draw(st.integers(1, 4))]:
            there[name] = instance(name)
    assert settled(app, Counter(instance.standing for instance in there.values()))
    assert started == wanted


def test_an_app_that_keeps_failing_waits_longer_each_time_up_to_its_limit() -> None:
    app, backoff = (
        an_app(1, backoff_seconds=10, backoff_factor=2, max_launch_delay_seconds=35),
        Backoff(),
    )
    delays = []
    for _ in range(4):
        backoff.failed(app, ran_s=1, now=100)
        delays.append(backoff.left_s(100))
    assert delays == [10, 20, 35, 35]
    assert backoff.left_s(200) == 0
    backoff.failed(app, ran_s=500, now=100)
    assert backoff.left_s(100) == 10, "it had run well for a while"


def test_a_summary_counts_offers_down_the_funnel() -> None:
    waiting = Waiting(0)
    waiting.rejected("s1", "UnfulfilledConstraint", 1)
    waiting.rejected("s1", "InsufficientCpus", 2)
    waiting.rejected("s2", "InsufficientCpus", 2)
    waiting.used("s3", 3)
    attempt = {
        row["reason"]: (row["declined"], row["processed"])
        for row in waiting.reject_summary_launch_attempt()
    }
    assert attempt["UnfulfilledRole"] == (0, 4)
    assert attempt["UnfulfilledConstraint"] == (1, 4)
    assert attempt["InsufficientCpus"] == (2, 3)
    assert attempt["InsufficientMemory"] == (0, 1)
    last = {row["reason"]: row["declined"] for row in waiting.reject_summary_last_offers()}
    assert (last["UnfulfilledConstraint"], last["InsufficientCpus"]) == (0, 2)


def test_what_a_client_reads_it_can_write_back() -> None:
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
    ],
)
def test_what_cannot_be_honoured_is_refused_rather_than_ignored(body: dict[str, object]) -> None:
    with pytest.raises(InvalidApp):
        parse(body)


def test_what_nobody_knows_or_says_nothing_is_left_out() -> None:
    plain = parse({"id": "x", "cmd": "a"})
    more = {
        "nonsense": 1,
        "networks": [{"mode": "host"}],
        "container": {"type": "MESOS", "volumes": []},
        "dependencies": [],
        "executor": "",
    }
    assert parse({"id": "x", "cmd": "a", **more}) == plain


def test_old_uris_are_files_to_fetch() -> None:
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


@pytest.mark.parametrize("healthy", [None, False])
def test_an_app_whose_health_is_checked_is_settled_only_when_it_is_healthy(
    healthy: bool | None,
) -> None:
    app = an_app(1, health_checks=[HealthCheck(protocol="TCP")])
    assert not settled(app, {replace(instance("a"), healthy=healthy).standing: 1})
    assert settled(app, {replace(instance("a"), healthy=True).standing: 1})


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
def test_counting_gives_the_same_step_as_looking_at_each_instance(
    there: list[tuple[str, str, bool]], wanted: int
) -> None:
    instances = [
        replace(
            instance(str(index), version=version, state=state),
            killing_since=1.0 if killing else None,
        )
        for index, (version, state, killing) in enumerate(there)
    ]
    quick = simple_step(an_app(wanted), Counter(one.standing for one in instances))
    assert quick in (None, plan(an_app(wanted), instances))
