"""The view of `mesaform status`: joined from all sources, and without one of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesaform.aws.ports import Machine
from mesaform.common.records import Problem
from mesaform.common.set_aside import SetAside
from mesaform.config.schema import ClusterSpec
from mesaform.status.ready import describe_set_aside, describe_unattended, missing
from mesaform.status.view import Sources, Status, Unreachable, join

MASTERS = ("127.42.0.10", "127.42.32.10", "127.42.64.10")


def machine(
    identity: str,
    role: str,
    address: str,
    *,
    state: Any = "running",
    managed_by: str = "terraform",
    capacity: Any = "on-demand",
) -> Machine:
    tags = {"mesaform:cluster": "one", "mesaform:role": role, "mesaform:managed-by": managed_by}
    if role == "agent":
        tags["mesaform:pool"] = "default"
    kind = "m5.large" if role == "agent" else "t3.medium"
    return Machine(identity, kind, "us-east-1a", capacity, state, address, "", 100.0, tags)


def registered(identity: str, agent_id: str, **fields: Any) -> dict[str, Any]:
    """An agent as GET_AGENTS lists it."""
    attributes = [{"name": "instance_id", "type": "TEXT", "text": {"value": identity}}]
    total = [
        {"name": "cpus", "scalar": {"value": 2.0}},
        {"name": "mem", "scalar": {"value": 7680.0}},
        {"name": "ports", "ranges": {"range": []}},
    ]
    info = {"id": {"value": agent_id}, "hostname": "127.42.0.20", "attributes": attributes}
    return {
        "agent_info": info,
        "active": True,
        "deactivated": False,
        "total_resources": total,
    } | fields


def whole(**changes: Any) -> Sources:
    """A healthy cluster: three masters, two agents, one task, something waiting."""
    values: dict[str, Any] = {
        "at": 1000.0,
        "machines": [machine(f"i-m{n}", "master", address) for n, address in enumerate(MASTERS)]
        + [
            machine("i-a1", "agent", "127.42.0.20"),
            machine("i-a2", "agent", "127.42.0.21", managed_by="autoscaler", capacity="spot"),
        ],
        "leader": MASTERS[1],
        "masters_up": frozenset(MASTERS),
        "agents": {
            "agents": [
                registered(
                    "i-a1",
                    "S1",
                    allocated_resources=[
                        {"name": "cpus", "scalar": {"value": 0.1}},
                        {"name": "cpus", "scalar": {"value": 0.2}},
                    ],
                ),
                registered("i-a2", "S2"),
            ],
            "recovered_agents": [],
        },
        "tasks": {
            "tasks": [
                {"agent_id": {"value": "S1"}, "state": "TASK_RUNNING"},
                {"agent_id": {"value": "S1"}, "state": "TASK_STAGING"},
            ]
        },
        "frameworks": {
            "frameworks": [
                {"offers": [{"resources": [{"name": "cpus", "scalar": {"value": 1.5}}]}]}
            ]
        },
        "services_leader": MASTERS[0],
        "services_up": frozenset(MASTERS),
        "queue": {
            "queue": [
                {"app": {"id": "/burst", "cpus": 1, "mem": 64}, "count": 7},
                {"app": {"id": "/calm", "cpus": 1}, "count": 0},
            ]
        },
        "heartbeat": {"at": 998.0, "frozen": False, "address": "127.42.0.10:9550"},
    }
    return Sources(**(values | changes))


def picture(**changes: Any) -> Status:
    return join(spec(), whole(**changes))


def test_a_healthy_cluster_has_every_part() -> None:
    status = picture()
    assert status.leader == MASTERS[1]
    assert [(view.address, view.state) for view in status.masters] == [
        (MASTERS[0], "standby"), (MASTERS[1], "leading"), (MASTERS[2], "standby"),
    ]  # fmt: skip
    assert [view.leads_services for view in status.masters] == [True, False, False]
    first, second = status.agents
    assert (first.agent_id, first.state, first.tasks, first.managed_by) == (
        "S1",
        "active",
        2,
        "terraform",
    )
    assert first.resources["total"] == {"cpus": 2.0, "mem": 7680.0, "disk": 0.0}
    assert first.resources["used"]["cpus"] == pytest.approx(0.3)
    assert (second.managed_by, second.capacity) == ("autoscaler", "spot")
    assert status.tasks == {"total": 2, "running": 1, "staging": 1, "starting": 0, "unreachable": 0}
    assert status.offers == {"outstanding": 1, "cpus": 1.5, "mem_mib": 0.0}
    assert status.urls == {
        "engine": f"http://{MASTERS[1]}:5050",
        "services": f"http://{MASTERS[0]}:8080",
        "autoscaler": "http://127.42.0.10:9550",
    }
    assert status.autoscaler.state == "active"


def test_demand_counts_only_waiting_instances() -> None:
    demand = picture().demand
    assert demand is not None
    assert (demand.instances, demand.cpus, demand.mem_mib) == (7, 7.0, 448.0)
    assert [app["id"] for app in demand.apps] == ["/burst"]


def test_prices_add_up_and_spot_is_cheaper() -> None:
    status = picture()
    views = [*status.masters, *status.agents]
    machines = sum(view.usd_per_hour or 0 for view in views)
    standing = status.cost.standing_usd_per_hour
    assert status.usd_per_hour == pytest.approx(machines + standing, abs=1e-6)
    on_demand, spot = (agent.usd_per_hour for agent in status.agents)
    assert on_demand is not None
    assert spot is not None
    assert spot < on_demand


def test_a_machine_that_has_not_registered_is_booting() -> None:
    agents = {"agents": [registered("i-a1", "S1")], "recovered_agents": []}
    assert [view.state for view in picture(agents=agents).agents] == ["active", "booting"]


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"active": False, "deactivated": True}, "deactivated"),
        ({"active": False, "deactivated": True, "drain_info": {"state": "DRAINING"}}, "draining"),
        ({"active": False, "deactivated": True, "drain_info": {"state": "DRAINED"}}, "drained"),
        ({"active": False, "deactivated": False}, "disconnected"),
    ],
)
def test_an_agents_state_comes_from_the_engine(fields: dict[str, Any], state: str) -> None:
    status = picture(agents={"agents": [registered("i-a1", "S1", **fields)]})
    assert status.agents[0].state == state


def test_a_recovered_agent_is_recovering() -> None:
    recovered = [registered("i-a1", "S1")["agent_info"]]
    assert (
        picture(agents={"agents": [], "recovered_agents": recovered}).agents[0].state
        == "recovering"
    )


def test_terminated_machines_are_not_shown_even_while_the_engine_lists_them() -> None:
    machines = [machine("i-a1", "agent", "127.42.0.20", state="terminated")]
    assert picture(machines=machines).agents[0].instance_id == "i-a2"
    assert [view.instance_id for view in picture(machines=machines).agents] == ["i-a2"]


def test_an_agent_without_a_machine_is_shown_with_an_unknown_manager() -> None:
    unlisted = registered("i-elsewhere", "S9")
    shown = picture(agents={"agents": [unlisted]}).agents
    assert [(view.instance_id, view.managed_by) for view in shown if view.agent_id] == [
        ("i-elsewhere", "unknown")
    ]


def test_without_an_engine_machines_and_their_cost_are_shown() -> None:
    silent = (Unreachable("engine", "no leading master answers"),)
    status = picture(
        leader=None,
        masters_up=frozenset(),
        agents=None,
        tasks=None,
        frameworks=None,
        unreachable=silent,
    )
    assert {view.state for view in status.masters} == {"silent"}
    assert {view.state for view in status.agents} == {"unknown"}
    assert status.usd_per_hour == picture().usd_per_hour
    assert (status.tasks, status.offers) == (None, None)
    assert "engine" not in status.urls


def test_without_ec2_the_engines_agents_are_shown() -> None:
    status = picture(machines=None, unreachable=(Unreachable("EC2", "throttled"),))
    assert [view.agent_id for view in status.agents] == ["S1", "S2"]
    assert not status.is_nothing


@pytest.mark.parametrize(
    ("heartbeat", "state"),
    [
        (None, "off"),
        ({"at": 900.0, "frozen": False}, "silent"),
        ({"at": 999.0, "frozen": True}, "frozen"),
        ({"at": 999.0}, "active"),
    ],
)
def test_the_autoscalers_state_comes_from_its_last_heartbeat(
    heartbeat: dict[str, Any] | None, state: str
) -> None:
    assert picture(heartbeat=heartbeat).autoscaler.state == state


@pytest.mark.parametrize(
    ("heartbeat_at", "lease_s", "expected"),
    [
        (900.0, 1800.0, "idle ones power off in 1700 s (autoscaler.lease_s 1800)"),
        (900.0, 60.0, "idle ones power off now (autoscaler.lease_s 60)"),
        (900.0, 0.0, "they run until you terminate them, autoscaler.lease_s is 0"),
        (999.0, 60.0, ""),
    ],
)
def test_machines_of_a_silent_autoscaler_are_counted_with_the_effect_of_the_lease(
    heartbeat_at: float, lease_s: float, expected: str
) -> None:
    whole_spec = spec().model_copy(
        update={"autoscaler": spec().autoscaler.model_copy(update={"lease_s": lease_s})}
    )
    text = describe_unattended(picture(heartbeat={"at": heartbeat_at}), whole_spec)
    assert text.endswith(expected)
    assert text.startswith("1 machine of the silent autoscaler, $" if expected else "")


def test_a_machine_without_a_price_is_named() -> None:
    odd = Machine(
        "i-x",
        "z9.huge",
        "us-east-1a",
        "on-demand",
        "running",
        "127.42.0.30",
        "",
        0.0,
        {"mesaform:role": "agent"},
    )
    status = picture(machines=[odd])
    assert status.unpriced == ("z9.huge",)


def test_the_view_is_json() -> None:
    decoded = json.loads(json.dumps(picture().as_json()))
    assert {"leader", "masters", "agents", "tasks", "demand", "offers", "usd_per_hour"} <= set(
        decoded
    )
    wanted = {
        "instance_id",
        "agent_id",
        "address",
        "instance_type",
        "zone",
        "managed_by",
        "state",
        "resources",
        "usd_per_hour",
    }
    assert all(wanted <= set(agent) for agent in decoded["agents"])


def spec() -> ClusterSpec:
    return ClusterSpec.model_validate(
        {"name": "one", "agents": [{"name": "default", "count": 2, "types": ["m5.large"]}]}
    )


def lacks(**changes: Any) -> list[str]:
    sources = whole(**changes)
    status = join(spec(), sources)
    return [
        item.what
        for item in missing(status, spec(), sorted(sources.masters_up), sorted(sources.services_up))
    ]


def test_a_healthy_cluster_lacks_nothing() -> None:
    assert lacks() == []


def test_missing_parts_are_named_in_the_order_in_which_they_start() -> None:
    assert lacks(leader=None) == ["no master is elected leader"]
    assert lacks(masters_up=frozenset(MASTERS[:2])) == [
        f"master {MASTERS[2]} does not answer on 5050"
    ]
    assert (
        lacks(machines=[machine("i-m", "master", MASTERS[0])])[0]
        == "2 of 3 masters have no machine"
    )
    assert lacks(agents={"agents": [registered("i-a1", "S1")]}) == [
        "1 of 2 agents of pool default are active (127.42.0.21 is booting)"
    ]
    assert lacks(services_leader=None) == ["no master leads the services"]
    assert lacks(services_up=frozenset(MASTERS[1:])) == [
        f"master {MASTERS[0]} does not answer on 8080"
    ]
    assert lacks(heartbeat=None) == ["the autoscaler is off"]


def test_records_that_were_set_aside_are_shown_with_the_command() -> None:
    def entry(kind: str, name: str, tree: str = "/marathon") -> SetAside:
        return SetAside(
            kind=kind,
            name=name,
            place=f"{tree}/{kind}/{name}",
            problem=Problem.NEWER,
            detail="version 2 is newer than version 1",
            size_bytes=9,
            at=990.0,
            tree=tree,
        )

    apps = [entry("apps", "%2Fweb"), entry("apps", "%2Fapi")]
    heartbeat = {"at": 998.0, "frozen": False, "address": "a:1", "set_aside": apps}
    status = picture(heartbeat=heartbeat, objects_set_aside=(entry("overrides", "o", "s3"),))
    [line] = describe_set_aside(status)
    assert line.startswith("set aside: 3 records that could not be read (2 of apps, 1 of over")
    assert "`mesaform records list`" in line
    assert "`mesaform records show ID`" in line
    assert json.loads(json.dumps(status.as_json()))["set_aside"][0]["problem"] == "newer version"
    assert describe_set_aside(picture()) == []


def test_files_that_agents_set_aside_are_shown_with_the_command() -> None:
    listed = {"agents": [registered("i-a1", "S1", records_set_aside=2)], "recovered_agents": []}
    [line] = describe_set_aside(picture(agents=listed))
    assert line.startswith("set aside on agent 127.42.0.20: 2 of task-checkpoints and agent")
    assert f"`curl http://{MASTERS[0]}:8080/agents/S1/state`" in line


def test_a_program_that_cannot_work_is_named_with_its_reasons() -> None:
    heartbeat = {"at": 998.0, "frozen": False, "address": "a:1", "reasons": ["orders readable: x"]}
    assert picture(heartbeat=heartbeat).unable == ("autoscaler: orders readable: x",)
    unable = ("services of 127.42.0.10: ZooKeeper writable: y",)
    assert picture(heartbeat=heartbeat, unable=unable).unable == unable
