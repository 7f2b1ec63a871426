"""Usage minute by minute: dollars are shared by dominant share, and none is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import (
    NOW,
    ZONES,
    a_framework,
    a_machine,
    a_snapshot,
    a_spec,
    a_total,
    an_agent,
    offerings,
    queued,
)
from mesaform.autoscaler.accounting.cost_report import UNKNOWN, UNUSED, add_up
from mesaform.autoscaler.accounting.resource_usage import Task, Tasks, ended, parts
from mesaform.autoscaler.accounting.usage_recorder import (
    EVERY_S,
    STATED_EVERY_S,
    Recorder,
    cluster_totals,
    machine_row,
)
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.mesos_task_parser import TaskReader
from mesaform.autoscaler.planner.planner import plan
from tests.support.profiles import examples

HOUR = 3600.0


def scalars(role: str = "", **amounts: float) -> list[dict]:
    shown = {"allocation_info": {"role": role}} if role else {}
    return [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}, **shown}
        for name, value in amounts.items()
    ]


def a_wire_task(
    name: str, state: str = "TASK_RUNNING", role: str = "", at: float = NOW, **amounts: float
) -> dict:
    over = [{"state": state, "timestamp": at + 50}] if state != "TASK_RUNNING" else []
    return {
        "task_id": {"value": name},
        "agent_id": {"value": "S-1"},
        "framework_id": {"value": "F-1"},
        "state": state,
        "resources": scalars(role, **(amounts or {"cpus": 1, "mem": 512})),
        "statuses": [{"state": "TASK_RUNNING", "timestamp": at}, *over],
    }


FRAMEWORKS = {
    "frameworks": [{"framework_info": {"id": {"value": "F-1"}, "name": "spark", "roles": ["dev"]}}]
}


def read(**lists: list[dict]):
    """GET_TASKS as the engine sends it, read."""
    return TaskReader().read(
        json.dumps({"type": "GET_TASKS", "get_tasks": lists}, separators=(",", ":")).encode()
    )


def test_tasks_have_an_app_or_a_framework_and_the_role_of_their_resources():
    mine = "web_api.instance-1._app.1"
    tasks = read(
        tasks=[
            a_wire_task(mine, role="prod"),
            a_wire_task("job-1"),
            a_wire_task("job-2", "TASK_FINISHED"),
        ]
    )
    result = Tasks().running(tasks, FRAMEWORKS)
    assert {name: item.holder for name, item in result.items()} == {
        mine: ("/web/api", "prod"),
        "job-1": ("spark", "dev"),
    }
    assert result["job-1"].shape == make(1, 512)
    assert result["job-1"].since == NOW


def test_tasks_that_ended_since_the_last_pass_have_their_times():
    tasks = read(
        tasks=[],
        completed_tasks=[
            a_wire_task("a", "TASK_FINISHED"),
            a_wire_task("b", "TASK_FAILED", at=NOW - 100),
        ],
    )
    (item,) = ended(tasks, FRAMEWORKS, NOW)
    assert (item.task_id, item.since, item.ended) == ("a", NOW, NOW + 50)


def test_an_agent_is_paid_for_by_dominant_share_and_what_is_free_by_nobody():
    total = make(4, 8192)
    used, free = parts({("/cpu", "*"): make(2, 1024), ("/mem", "*"): make(0.5, 2048)}, total)
    assert free == pytest.approx(1 - 2.5 / 4)
    assert used["/cpu", "*"] == pytest.approx(0.625 * 0.5 / 0.75)
    assert sum(used.values()) + free == pytest.approx(1.0)
    assert parts({}, total) == ({}, 1.0)


@given(
    held=st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, 8000), st.integers(0, 9000), st.integers(0, 2)
        ),
        max_size=5,
    ),
    gpus=st.integers(0, 2),
)
def test_whatever_is_held_the_parts_of_an_agent_make_one(held, gpus):
    holdings: dict[tuple[str, str], tuple] = {}
    for app, cpus, mem, own in held:
        before = holdings.get((app, "*"), make())
        holdings[app, "*"] = (
            before[0] + cpus,
            before[1] + mem * 1000,
            0,
            before[3] + own * 1000,
            0,
        )
    used, free = parts(holdings, make(4, 8192, gpus=gpus))
    assert sum(used.values()) + free == pytest.approx(1.0)
    assert all(part >= 0 for part in (*used.values(), free))


class Cluster:
    """Machines and tasks that come and go, a recorder every two seconds, and the rows of both."""

    def __init__(self) -> None:
        self.now = NOW
        self.machines = {
            "i-m": a_machine(
                "i-m",
                by="terraform",
                role="master",
                pool="",
                instance_type="t3.medium",
                launched_at=NOW,
            )
        }
        self.tasks: dict[str, Task] = {}
        self.queue: list = []
        self.recorder = Recorder()
        self.rows: list[dict] = []
        self.memory: Any = None
        self.offerings = offerings(a_spec())

    def starts(self, name: str, **fields) -> None:
        self.machines[name] = a_machine(name, launched_at=self.now, **fields)

    def stops(self, name: str) -> None:
        del self.machines[name]
        self.tasks = {key: task for key, task in self.tasks.items() if task.agent_id != f"S-{name}"}

    def runs(
        self,
        name: str,
        on: str,
        app: str = "/web",
        role: str = "*",
        cpus: float = 1,
        mem_mib: float = 512,
    ) -> None:
        self.tasks[name] = Task(name, f"S-{on}", app, role, make(cpus, mem_mib), self.now)

    def passes(self, seconds: float, every_s: float = 2.0) -> None:
        for _ in range(round(seconds / every_s)):
            self.look()
            self.now += every_s

    def look(self) -> None:
        agents = []
        for machine in self.machines.values():
            mine = [
                task for task in self.tasks.values() if task.agent_id == f"S-{machine.instance_id}"
            ]
            if machine.tags["mesaform:role"] == "agent":
                allocated = tuple(sum(task.shape[place] for task in mine) for place in range(5))
                agents.append(
                    an_agent(
                        machine,
                        allocated=allocated,
                        tasks=len(mine),
                        total=a_total(machine.instance_type),
                    )
                )
        memory: dict[str, Any] = {} if self.memory is None else {"state": self.memory}
        snapshot = a_snapshot(
            a_spec(idle_after_s=1e9),
            machines=list(self.machines.values()),
            agents=agents,
            queue=self.queue,
            offerings=self.offerings,
            **memory,
        )
        planned = plan(snapshot, self.now)
        before: dict[str, Any] = {} if self.memory is None else self.memory.billed_machines
        after = planned.state.billed_machines
        self.rows += [
            {"kind": "machine_started", "at": m.launched_at, **machine_row(n, m)}
            for n, m in after.items()
            if n not in before
        ]
        self.rows += [
            {"kind": "machine_stopped", "at": self.now, **machine_row(n, m)}
            for n, m in before.items()
            if n not in after
        ]
        self.memory = planned.state
        self.rows += self.recorder.absorb(snapshot, planned, self.tasks, self.now)

    def close(self) -> None:
        self.rows += self.recorder.close(self.now)

    def bill(self, by: Any):
        return add_up(self.rows, NOW, self.now, by)


@pytest.mark.slow
def test_a_bill_by_app_and_role_is_what_they_held_of_the_machines():
    cluster = Cluster()
    cluster.starts("i-1")
    cluster.runs("a", "i-1", "/web", "prod", cpus=1)
    cluster.passes(HOUR)
    cluster.close()
    by_app = {share.name: share.usd for share in cluster.bill("app").shares if share.usd > 1e-3}
    assert by_app == pytest.approx({"/web": 0.048, UNUSED: 0.048, "(masters)": 0.0416}, abs=2e-4)
    by_role = {share.name: share.usd for share in cluster.bill("role").shares}
    assert by_role["prod"] == pytest.approx(0.048, abs=2e-4)
    assert cluster.bill("app").unused_usd == pytest.approx(0.048, abs=2e-4)


@pytest.mark.slow
def test_idle_time_is_that_of_registered_machines_without_a_task():
    cluster = Cluster()
    cluster.starts("i-1")
    cluster.passes(HOUR / 2)
    cluster.runs("a", "i-1")
    cluster.passes(HOUR / 2)
    cluster.close()
    assert cluster.bill("pool").idle_usd == pytest.approx(0.048, abs=2e-4)
    assert cluster.bill("type").idle_usd == pytest.approx(0.048, abs=2e-4)


@pytest.mark.slow
def test_waiting_work_is_worth_its_part_of_the_cheapest_machine_that_holds_it():
    cluster = Cluster()
    cluster.queue = [queued(count=3, cpus=1, mem_mib=512)]
    cluster.passes(120)
    cluster.close()
    bill = cluster.bill("pool")
    assert bill.waited_task_s == pytest.approx(3 * 118)
    assert bill.waited_usd == pytest.approx(3 * 118 / HOUR * 0.0384 / 2, abs=1e-4)


@pytest.mark.slow
def test_rows_with_few_entries_are_written_each_minute_and_long_ones_seldom_but_levels_always():
    small, large = Cluster(), Cluster()
    for cluster, apps in ((small, 2), (large, 40)):
        cluster.starts("i-1", instance_type="m5.4xlarge")
        for number in range(apps):
            cluster.runs(f"t-{number}", "i-1", f"/app/{number}", cpus=0.1, mem_mib=32)
        cluster.passes(602)
    kinds = [[row["kind"] for row in cluster.rows] for cluster in (small, large)]
    assert [shown.count("resource_usage") for shown in kinds] == [10, 2]
    assert [shown.count("cluster_totals") for shown in kinds] == [10, 10]


def test_headroom_and_hints_are_nobodys_waiting_work():
    snapshot = a_snapshot(a_spec(headroom_percent=50), queue=[])
    recorder = Recorder()
    recorder.absorb(snapshot, plan(snapshot, NOW), {}, NOW)
    (row,) = [
        item
        for item in recorder.absorb(snapshot, plan(snapshot, NOW + EVERY_S), {}, NOW + EVERY_S)
        if item["kind"] == "resource_usage"
    ]
    assert row["waited"] == []


@pytest.mark.slow
def test_a_spot_price_that_changes_is_written_down_once_and_paid_from_then_on():
    cluster = Cluster()
    cluster.starts("i-1", capacity="spot")
    cluster.passes(HOUR / 2)
    dearer = tuple(
        type(item)(
            item.instance_type,
            item.zone,
            item.capacity,
            0.2 if item.capacity == "spot" else item.usd_per_hour,
            item.resources,
        )
        for item in cluster.offerings["default"]
    )
    cluster.offerings = {"default": dearer}
    cluster.passes(HOUR / 2)
    cluster.close()
    assert [row["usd_per_hour"] for row in cluster.rows if row["kind"] == "price"] == [0.2]
    spent = next(share.usd for share in cluster.bill("capacity").shares if share.name == "spot")
    assert spent == pytest.approx(0.0384 / 2 + 0.2 / 2, abs=2e-4)
    assert {share.name: share.usd for share in cluster.bill("app").shares}.get(UNKNOWN, 0.0) < 1e-3


def test_all_machines_are_stated_at_the_beginning_of_a_term_and_a_few_times_a_day():
    cluster = Cluster()
    cluster.starts("i-1")
    cluster.passes(2 * STATED_EVERY_S + 1200, every_s=600)
    stated = [row for row in cluster.rows if row["kind"] == "machines"]
    assert len(stated) == 3
    assert {item["instance_id"] for item in stated[0]["machines"]} == {"i-1", "i-m"}
    late = [row for row in cluster.rows if row["at"] >= NOW + STATED_EVERY_S]
    assert add_up(late, cluster.now - HOUR, cluster.now).usd == pytest.approx(
        0.096 + 0.0416, abs=1e-3
    )


def test_a_pause_of_the_autoscaler_is_nobodys_and_shows_as_not_known():
    cluster = Cluster()
    cluster.starts("i-1")
    cluster.passes(60)
    cluster.now += HOUR
    cluster.passes(60)
    cluster.close()
    unknown = next(share.usd for share in cluster.bill("app").shares if share.name == UNKNOWN)
    assert unknown == pytest.approx(0.096 * (1 - 60 / HOUR), abs=2e-3)


def test_totals_have_machines_by_state_and_idle_dollars():
    machines = [
        a_machine("i-1"),
        a_machine("i-2"),
        a_machine("i-3"),
        a_machine("i-m", role="master", pool=""),
    ]
    agents = [an_agent(machines[0]), an_agent(machines[1], tasks=1, allocated=make(1))]
    snapshot = a_snapshot(
        machines=machines, agents=agents, queue=[queued(count=50)], frameworks=[a_framework()]
    )
    result = cluster_totals(snapshot, plan(snapshot, NOW))
    assert result["states"] == {"busy": 1, "idle": 1, "master": 1, "starting": 1}
    assert result["idle_usd"] == 0.096
    assert result["pools"] == {"default": 3}
    assert sum(result["demand"].values()) == 50


@pytest.mark.slow
@settings(max_examples=examples(25), deadline=None)
@given(
    lives=st.lists(
        st.tuples(
            st.integers(0, 8),
            st.integers(1, 9),
            st.sampled_from(["m5.large", "m5.xlarge"]),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=5,
    ),
    work=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 4), st.sampled_from(["/web", "/api", "spark"])),
        max_size=6,
    ),
)
def test_whatever_comes_and_goes_held_and_free_dollars_are_those_of_the_machines(lives, work):
    cluster = Cluster()
    for tick in range(18):
        for number, (start, length, kind, zone) in enumerate(lives):
            if tick == start:
                cluster.starts(f"i-{number}", instance_type=kind, zone=ZONES[zone])
            if tick == start + length:
                cluster.stops(f"i-{number}")
        for number, (at, on, app) in enumerate(work):
            if tick == at and f"i-{on}" in cluster.machines:
                cluster.runs(f"t-{number}", f"i-{on}", app, cpus=0.5)
        cluster.passes(60, every_s=6)
    cluster.close()
    for row in [row for row in cluster.rows if row["kind"] == "resource_usage"]:
        machines = sum(entry[6] for entry in row["machines"] if entry[0] != "(masters)")
        assert sum(entry[2] for entry in row["used"]) + sum(
            entry[7] for entry in row["machines"]
        ) == pytest.approx(machines, abs=1e-7)
    bill = cluster.bill("app")
    assert round(sum(share.usd for share in bill.shares) * 10_000) == round(bill.usd * 10_000)
    late = sum(0.192 * 12 / HOUR for _ in lives) * 2 + 0.192 * len(lives) / 60
    assert {share.name: share.usd for share in bill.shares}.get(UNKNOWN, 0.0) <= late + 1e-4
