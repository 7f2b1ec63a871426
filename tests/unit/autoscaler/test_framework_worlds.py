"""Simulated worlds of frameworks without an adapter: what is bought for them, when, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from harness.autoscaler_builders import a_spec
from mesaform.autoscaler.demand import frameworks
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.verdict_text import render_verdict
from tests.unit.autoscaler.framework_world import (
    Flapper,
    FrameworkWorld,
    Hoarder,
    MesosExecute,
    Scheduler,
    SparkDynamic,
    SparkGrowing,
    SparkStatic,
)

BEGIN_S = 40.0
"""When frameworks join: nothing is inferred in the first 30 s of a master."""

IDLE_S = 60.0
ONE_LARGER = {"types": ["m5.large", "r5.large", "m5.xlarge"]}


def a_world(*schedulers: Scheduler, pool: dict[str, Any] | None = None, **fields: Any):
    """Two agents of 2 cpus; machines register after 20 s. Frameworks join at `BEGIN_S`."""
    for scheduler in schedulers:
        scheduler.joins_at = scheduler.joins_at or BEGIN_S
    spec = a_spec(pools=[pool or {}], idle_after_s=IDLE_S, **fields)
    return FrameworkWorld(spec, *schedulers, boot_s=20)


def state_of(world: FrameworkWorld, scheduler: Scheduler) -> str:
    return frameworks.assess(world.snapshot(), world.now)[scheduler.framework_id].state


# Spark


@pytest.mark.parametrize(("executors", "machines"), [(6, 4), (3, 1)])
def test_static_spark_gets_exactly_the_machines_that_its_executors_need(executors, machines):
    spark = SparkStatic("spark", wanted=executors)
    world = a_world(spark)
    world.run(BEGIN_S + machines * 40 + 40)
    assert world.first_purchase_s is not None
    assert world.first_purchase_s - BEGIN_S <= 10
    assert world.types == {"m5.large": machines}
    assert spark.running == executors
    assert state_of(world, spark) == "satisfied"


@pytest.mark.parametrize("executors", [0, 1, 2])
def test_static_spark_that_has_its_cores_gets_nothing(executors):
    spark = SparkStatic("spark", wanted=executors)
    world = a_world(spark)
    world.run(300)
    assert (world.bought, spark.running) == (0, executors)
    assert state_of(world, spark) == "satisfied"


def test_a_lost_executor_makes_spark_revive_and_no_machine_is_bought_beyond_its_need():
    spark = SparkStatic("spark", wanted=6)
    world = a_world(spark)
    world.run(60)
    world.end_tasks(spark, 1)
    world.revive(spark)
    world.run(200)
    assert (world.types, spark.running) == ({"m5.large": 4}, 6)


def test_an_executor_larger_than_any_agent_gets_one_larger_machine():
    spark = SparkStatic("spark", task=make(1, 13 * 1024), wanted=1)
    world = a_world(spark, pool=ONE_LARGER)
    world.run(110)
    assert world.first_purchase_s is not None
    assert world.first_purchase_s - BEGIN_S <= 10
    assert (world.bought, spark.running) == (1, 1)


@pytest.mark.slow
def test_an_executor_that_fits_no_type_is_explained_and_its_tests_end():
    spark = SparkStatic("spark", task=make(1, 300 * 1024), wanted=1)
    world = a_world(spark, pool=ONE_LARGER)
    world.run(400)
    assert world.bought == 1
    assert not world.ours, "surplus is given back"
    (verdict,) = plan(world.snapshot(), world.now).verdicts
    assert verdict.refusal is not None
    assert verdict.refusal.kind == "offer_declined"
    assert "no allowed type has more" in render_verdict(verdict)
    assert state_of(world, spark) == "refuses_offers"


def test_dynamic_spark_at_its_limit_costs_one_test_per_pause_and_gives_the_machine_back():
    spark = SparkDynamic("spark", wanted=4)
    world = a_world(spark)
    world.run(BEGIN_S + 100)
    assert spark.running == 4
    assert world.bought <= 3, "two are needed; one tests whether there is more need"
    spark.scale(world, 2)
    world.run(20 + 2 * IDLE_S)
    assert len(world.ours) <= 1
    assert world.bought <= 3


@pytest.mark.parametrize("executors", [4, 7])
def test_spark_that_wants_more_in_growing_steps_costs_one_test_more_than_it_needs(executors):
    spark = SparkGrowing("spark", most=executors)
    world = a_world(spark)
    world.run(BEGIN_S + executors * 40 + 60)
    assert spark.running == executors
    assert world.bought <= executors - 2 + 1
    world.run(2 * IDLE_S)
    assert len(world.ours) == executors - 2


def test_dynamic_spark_that_leaves_room_gets_nothing():
    spark = SparkDynamic("spark", wanted=1)
    world = a_world(spark)
    world.run(300)
    assert world.bought == 0
    assert state_of(world, spark) == "satisfied"


def test_two_sparks_in_roles_of_their_own_get_what_both_need():
    first = SparkStatic("first", wanted=4, role="a")
    second = SparkStatic("second", wanted=4, role="b")
    world = a_world(first, second)
    world.run(260)
    assert (first.running, second.running) == (4, 4)
    assert world.bought <= 1.25 * 6


# frameworks of other kinds


def test_mesos_execute_that_suppressed_itself_gets_nothing():
    command = MesosExecute("command", task=make(4, 512), wanted=1)
    world = a_world(command)
    world.run(120)
    assert world.bought == 0
    assert state_of(world, command) == "suppressed"


def test_a_framework_that_hoards_offers_gets_nothing_and_does_not_starve_others():
    hoarder = Hoarder("hoarder")
    spark = SparkStatic("spark", wanted=2, joins_at=BEGIN_S + 20)
    world = a_world(hoarder, spark)
    world.run(200)
    assert state_of(world, hoarder) == "satisfied"
    assert spark.running == 2
    assert world.bought <= 3, "the hoarder may take what was bought for the other"


@pytest.mark.slow
def test_a_framework_that_flaps_between_revive_and_suppress_gets_little():
    world = a_world(Flapper("flapper"))
    world.run(600)
    assert world.bought <= 1


@pytest.mark.slow
def test_a_framework_that_declines_everything_for_ever_costs_little():
    decliner = Scheduler("decliner")
    world = a_world(decliner)
    world.run(900)
    assert world.bought <= 2
    assert world.unused_usd < 0.10


def test_a_declared_smallest_offer_is_bought_for_and_a_booting_machine_is_not_refused():
    service = Scheduler("service", task=make(1.5, 2000), wanted=3, minimal=make(1.5, 2000))
    world = a_world(service)
    world.boot_s = 100
    world.run(BEGIN_S + 90)
    assert world.bought == 1
    assert world.first_purchase_s is not None
    assert world.first_purchase_s - BEGIN_S <= 10
    world.run(40)
    assert service.running == 3


def test_what_was_learned_survives_a_change_of_leader():
    spark = SparkStatic("spark", wanted=4)
    world = a_world(spark)
    world.run(BEGIN_S + 20)
    assert world.bought == 1
    known = world.journal.memory.experiments
    assert known["F-spark"].pending_pieces == 1
    world.crash_after = "record"
    world.run(160)
    assert (world.bought, spark.running) == (2, 4)


def test_thousands_of_frameworks_are_judged_without_a_purchase_for_the_satisfied():
    crowd = [SparkStatic(f"spark-{number}", wanted=0) for number in range(2000)]
    world = a_world(*crowd)
    for scheduler in crowd:
        scheduler.counters.update(sent=2, declined=2)
    world.now += BEGIN_S
    snapshot = world.snapshot()
    assert len(frameworks.assess(snapshot, world.now)) == 2000
    assert not [c for c in plan(snapshot, world.now).commands if c.decision.kind == "buy"]


# invariants

USD_PER_HOUR = 0.5


class InferenceMachine(RuleBasedStateMachine):
    """Frameworks that change what they want at random; what is bought for them stays bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.schedulers: list[Scheduler] = [
            SparkStatic("static", wanted=1, role="a"),
            SparkDynamic("dynamic", wanted=1, role="b"),
            Scheduler("decliner", role="c"),
        ]
        self.world = a_world(*self.schedulers, inference={"usd_per_hour": USD_PER_HOUR})
        self.world.boot_s = 10
        self.tests = 0
        self.seen: dict[str, float] = {}
        self.world.run(BEGIN_S)

    @rule(seconds=st.integers(5, 90))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds // 2):
            self.world.run(2)
            self._count_refusals()

    @rule(index=st.integers(0, 1), wanted=st.integers(0, 6))
    def wants(self, index: int, wanted: int) -> None:
        scheduler = self.schedulers[index]
        scheduler.scale(self.world, wanted)
        self.world.revive(scheduler)

    @rule(index=st.integers(0, 2))
    def revives(self, index: int) -> None:
        self.world.revive(self.schedulers[index])

    @rule(index=st.integers(0, 2))
    def suppresses(self, index: int) -> None:
        self.schedulers[index].suppressed = True
        self.world.allocator.suppress(self.schedulers[index].framework_id)

    def _count_refusals(self) -> None:
        """Count the tests that each framework refused."""
        for name, record in self.world.journal.memory.experiments.items():
            if record.refused_at != self.seen.get(name, 0):
                self.tests += 1
                self.seen[name] = record.refused_at

    @invariant()
    def spending_is_within_the_limit(self) -> None:
        for record in self.world.journal.memory.experiments.values():
            spent = sum(guess.usd_per_hour for guess in record.guesses)
            assert spent <= USD_PER_HOUR + 1e-6

    @invariant()
    def purchases_follow_what_was_accepted(self) -> None:
        records = self.world.journal.memory.experiments.values()
        untested = sum(launch.machines for record in records for launch in record.launches.values())
        worked = len(self.world.worked & set(self.world.usd_by_machine))
        assert self.world.bought <= 1.25 * worked + self.tests + untested + 1

    @invariant()
    def nothing_is_bought_for_the_satisfied(self) -> None:
        snapshot = self.world.snapshot()
        states = frameworks.assess(snapshot, self.world.now)
        for verdict in plan(snapshot, self.world.now).verdicts:
            if verdict.buying and verdict.unit.source == "framework":
                assert states[verdict.unit.framework_id].state == "wants_more"


InferenceMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestInference = pytest.mark.slow(InferenceMachine.TestCase)
