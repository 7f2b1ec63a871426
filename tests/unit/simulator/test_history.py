"""A cluster's recorded history of work becomes a trace that the simulator runs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.autoscaler.accounting.resource_usage import Task
from mesaform.autoscaler.accounting.task_history import MOST_GROUPS, Past
from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.autoscaler.model.shape import make
from mesaform.aws import ledger_rows
from mesaform.common.errors import BadInput
from mesaform.placement.constraints import Constraint
from mesaform.simulator.comparison import catalogue_of, simulate
from mesaform.simulator.history import tasks, trace
from mesaform.simulator.market import Market, Settings
from mesaform.simulator.policy import Policy
from mesaform.simulator.trace import Task as Work
from mesaform.simulator.trace import Trace
from mesaform.simulator.world import Behaviour, World
from tests.support.profiles import examples

NOW = 1_800_000_000.0
SHAPE = make(1, 512, ports=1)


def a_task(name: str, since: float, app: str = "/web", shape=SHAPE, ended: float = 0.0) -> Task:
    return Task(name, "S-1", app, "*", shape, since, ended)


def waiting(
    count: int, app: str = "/web", since: float = 0.0, constraints: tuple[Constraint, ...] = ()
) -> QueueEntry:
    return QueueEntry(app, SHAPE, count, True, constraints, since=since)


class Recording:
    """A recorder fed every ten seconds, and its rows as they come back from the ledger."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.past = Past()

    def at(
        self,
        seconds: float,
        *running: Task,
        ended: tuple[Task, ...] = (),
        queue: tuple[QueueEntry, ...] = (),
    ) -> None:
        self._keep(
            self.past.absorb({task.task_id: task for task in running}, ended, queue, NOW + seconds)
        )

    def close(self, seconds: float) -> None:
        self._keep(self.past.close(NOW + seconds))

    def next_term(self) -> None:
        self.past = Past()

    def _keep(self, rows: list[dict]) -> None:
        created = [
            ledger_rows.stamped(row, "t", len(self.rows) + number)
            for number, row in enumerate(rows)
        ]
        self.rows += ledger_rows.unpack(ledger_rows.pack(created)) if created else []


def test_a_task_is_recorded_with_arrival_start_end_and_shape():
    seen = Recording()
    seen.at(0)
    seen.at(10, queue=(waiting(1),))
    seen.at(40, a_task("web.1", NOW + 38))
    seen.at(300, ended=(a_task("web.1", NOW + 38, ended=NOW + 295),))
    (item,) = tasks(seen.rows)
    assert (item.app, item.shape, item.arrived - NOW, item.started - NOW, item.ended - NOW) == (
        "/web",
        SHAPE,
        10,
        38,
        295,
    )


def test_the_first_that_waited_is_the_first_that_ran_and_what_was_called_off_never_came():
    seen = Recording()
    seen.at(0)
    seen.at(10, queue=(waiting(1),))
    seen.at(20, queue=(waiting(3),))
    seen.at(30, queue=(waiting(2),))
    seen.at(40, a_task("web.1", NOW + 40), queue=(waiting(1),))
    seen.at(50, a_task("web.1", NOW + 40), a_task("web.2", NOW + 50))
    seen.close(60)
    assert [(item.arrived - NOW, item.started - NOW) for item in tasks(seen.rows)] == [
        (10, 40),
        (20, 50),
    ]


def test_a_task_that_came_and_went_between_two_passes_is_recorded():
    seen = Recording()
    seen.at(0)
    seen.at(10, ended=(a_task("cron.1", NOW + 3, "nightly", ended=NOW + 8),))
    seen.close(20)
    (item,) = tasks(seen.rows)
    assert (item.started - NOW, item.ended - NOW) == (3, 8)


def test_a_change_of_leader_records_nothing_twice_and_ends_what_ended_meanwhile():
    seen = Recording()
    seen.at(0, a_task("web.1", NOW - 50), a_task("web.2", NOW - 50))
    seen.next_term()
    seen.at(100, a_task("web.1", NOW - 50))
    first, second = sorted(tasks(seen.rows), key=lambda item: item.ended is None, reverse=True)
    assert first.ended is None
    assert second.ended == NOW + 100
    assert first.started == second.started == NOW - 50


def test_a_stretch_has_what_ran_before_it_from_its_first_moment_and_what_goes_on_until_its_end():
    seen = Recording()
    seen.at(0, a_task("old.1", NOW - 500, "/old"))
    seen.at(100, a_task("old.1", NOW - 500, "/old"), a_task("new.1", NOW + 95, "spark"))
    seen.close(110)
    created, began = trace(seen.rows, NOW + 50, NOW + 150, "toy")
    assert began == NOW + 50
    assert [
        (task.app.split()[0], task.at, task.runs_s, task.keeps_work) for task in created.tasks
    ] == [
        ("/old", 0, 100, True),
        ("spark", 45, 55, False),
    ]


def test_constraints_come_along_and_the_simulated_cluster_obeys_them():
    unique = (Constraint("hostname", "UNIQUE"),)
    seen = Recording()
    seen.at(0)
    seen.at(10, queue=(waiting(3, constraints=unique),))
    seen.at(20, *(a_task(f"web.{number}", NOW + 20) for number in range(3)))
    seen.at(3600)
    seen.close(3601)
    created, _ = trace(seen.rows, NOW, NOW + 3600, "toy")
    assert set(created.constraints.values()) == {unique}
    outcome = simulate(created, Policy(name="mine"), Settings(reclaims_per_hour=0.0))
    assert outcome.figures.machines_most == 3
    assert outcome.figures.never_placed == 0


class Idle:
    """A policy that leaves everything as it is."""

    name = "idle"
    behaviour = Behaviour()

    def on_event(self, happening, now) -> None: ...
    def reconcile(self, world, now) -> None: ...
    def next_wakeup(self, world, now) -> float:
        return float("inf")


def test_two_instances_of_an_app_that_wants_hosts_of_its_own_never_share_one():
    work = tuple(Work(f"t{number}", "/web", SHAPE, 0.0, 10.0) for number in range(3))
    policy = Policy(name="mine")
    catalogue = catalogue_of(policy)
    for constraints, waits in (
        ({}, [0, 0, 0]),
        ({"/web": (Constraint("hostname", "UNIQUE"),)}, [0, 0, 10]),
    ):
        world = World(Trace("mine", work, constraints=constraints), catalogue, Market(Settings()))
        world.add(
            "default",
            next(item for item in catalogue["default"] if item.instance_type == "m5.2xlarge"),
            2,
        )
        assert world.run(Idle()).waits == waits


def test_without_any_task_the_error_says_what_to_do():
    with pytest.raises(BadInput, match="no task in this period"):
        trace([], NOW, NOW + 60, "toy")


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 30), st.sampled_from(["/web", "spark"])),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 60),
)
def test_whatever_ran_is_recorded_once_with_its_times_whichever_leader_saw_it(
    lives: list[tuple[int, int, str]], changes_at: int
):
    seen = Recording()
    all_ = [
        a_task(f"t.{n}", NOW + 10 * start + 1, app, ended=NOW + 10 * (start + length))
        for n, (start, length, app) in enumerate(lives)
    ]
    for tick in range(75):
        at = 10.0 * tick
        if tick == changes_at:
            seen.close(at)
            seen.next_term()
        running = [task for task in all_ if task.since <= NOW + at < task.ended]
        looked_s = 900 if tick == changes_at else 10
        over = tuple(task for task in all_ if NOW + at - looked_s < task.ended <= NOW + at)
        seen.at(at, *running, ended=over)
    seen.close(750)
    result = sorted(
        (round(item.started - NOW), round((item.ended or 0) - NOW), item.app)
        for item in tasks(seen.rows)
    )
    first_of_term = 10 * changes_at
    expected = sorted((round(t.since - NOW), round(t.ended - NOW), t.app) for t in all_)
    assert [(start, app) for start, _, app in result] == [
        (start, app) for start, _, app in expected
    ]
    assert all(
        abs(mine[1] - theirs[1]) <= 10 or theirs[1] == first_of_term
        for mine, theirs in zip(result, expected, strict=True)
    )


def test_a_task_made_by_hand_needs_no_constraints():
    assert Trace("mine", (Work("a", "a", SHAPE, 0.0, 10.0),)).constraints == {}


def test_the_numbers_of_groups_begin_anew_before_they_become_many():
    seen = Recording()
    seen.at(0)
    for step in range(3):
        apps = [f"/app-{step}-{number}" for number in range(MOST_GROUPS // 2 + 1)]
        seen.at(10 + step, *(a_task(f"{app}.1", NOW + 10 + step, app) for app in apps))
    assert sum(bool(row.get("full")) for row in seen.rows) == 2
    assert len(seen.past._groups) <= MOST_GROUPS + 2


def test_constraints_are_forgotten_with_the_app_that_had_them():
    seen = Recording()
    for step in range(20):
        seen.at(10.0 * step, queue=(waiting(1, f"/app-{step}"),))
    assert len(seen.past._constraints) == 1
