"""Passes of the daemon that fail at any call: nothing is bought twice, and no machine is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import a_spec, queued
from mesaform.autoscaler.daemon.daemon import Term, _run_term
from mesaform.autoscaler.daemon.executor import PlanExecutor
from mesaform.autoscaler.daemon.journal import Journal
from mesaform.autoscaler.daemon.lease import Leases, ShutdownReports
from mesaform.autoscaler.daemon.orders import Orders
from mesaform.autoscaler.daemon.record_requests import RecordRequests
from mesaform.autoscaler.daemon.weekly_profile_store import Learner
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.observation.notice_endpoint import NoticeEndpoint
from mesaform.autoscaler.observation.notice_queue import Inbox
from mesaform.autoscaler.observation.probe_client import ProbeFramework
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.aws.clock import CloudClock
from mesaform.aws.ports import LaunchRequest, LaunchResult, Machine
from mesaform.common.conditions import Condition, Resigned
from mesaform.common.errors import LeadershipLost, Retryable
from mesaform.common.faults import Fault
from mesaform.testing.fake_cloud import FakeControl, FakeLedger, FakeNotices
from mesaform.zookeeper.session import ZooKeeperUnavailable
from tests.support.memory_zookeeper import MemoryZooKeeper
from tests.unit.autoscaler.world import LOOP, Engine, UnluckyFleet, World

ERRORS = (
    ZeroDivisionError("a defect"),
    ZooKeeperUnavailable("no ZooKeeper server answers", after_s=1.0),
    Retryable("RequestLimitExceeded", after_s=5.0),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks of planned failures are not printed."""
    with structlog.testing.capture_logs():
        yield


class Steps:
    """Counts the calls that a pass makes; those in `failing` raise an error."""

    def __init__(self) -> None:
        self.count = 0
        self.failing: dict[int, Exception] = {}

    def take(self) -> None:
        self.count += 1
        if self.count in self.failing:
            raise self.failing[self.count]


class FailingFleet(UnluckyFleet):
    steps = Steps()

    def machines(self, cluster: str) -> list[Machine]:
        self.steps.take()
        return super().machines(cluster)

    def launch(self, request: LaunchRequest) -> LaunchResult:
        self.steps.take()
        result = super().launch(request)
        self.steps.take()
        return result

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        self.steps.take()
        super().terminate(cluster, instance_ids)
        self.steps.take()


class FailingEngine(Engine):
    def __init__(self, world: World, steps: Steps) -> None:
        super().__init__(world)
        self._steps = steps

    async def deactivate(self, agent_id: str) -> None:
        self._steps.take()
        await super().deactivate(agent_id)
        self._steps.take()

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None:
        self._steps.take()
        await super().drain(agent_id, grace_s, mark_gone=mark_gone)
        self._steps.take()


class FailingControl(FakeControl):
    steps = Steps()

    def frozen_reason(self) -> str | None:
        self.steps.take()
        return super().frozen_reason()


@dataclass
class WorldObserver:
    """Reads a world."""

    world: World
    steps: Steps
    faults: list[Fault]
    raw: None = None
    readings: None = None
    events: None = None

    async def snapshot(
        self, _spec: Any, memory: Any, intents: Any, freeze: Any, overrides: Any, *, noticed: bool
    ) -> Snapshot:
        assert not noticed
        self.steps.take()
        return replace(
            self.world.snapshot(),
            state=memory,
            intents=tuple(intents),
            freeze_reason=freeze,
            overrides=tuple(overrides),
        )

    def machines_changed(self) -> None:
        """The world is read at every pass."""

    def take_faults(self) -> list[Fault]:
        faults, self.faults = self.faults, []
        return faults


@dataclass
class Spec:
    world: World

    async def get(self) -> Any:
        return self.world.spec


class Daemon:
    """A term of the daemon in a world, whose calls may fail."""

    def __init__(self, lag_s: float = 20.0) -> None:
        spec = a_spec(pools=[{"count": 0, "types": ["m5.large"]}], idle_after_s=30)
        self.world = World(spec, boot_s=30.0, lag_s=lag_s)
        self.steps = Steps()
        fleet = FailingFleet(self.world, lag_s)
        fleet.steps = self.steps
        for machine in self.world.fleet.all_machines():
            fleet.add(machine)
        self.world.fleet = fleet
        self.zk = MemoryZooKeeper(self.steps.take)
        self.telemetry = Telemetry()
        self.control = FailingControl()
        self.control.steps = self.steps
        self.term = self._term()

    def _term(self) -> Term:
        clock = CloudClock(lambda: self.world.now)
        zk: Any = self.zk
        health = self.telemetry.health
        observer: Any = WorldObserver(self.world, self.steps, [])
        specs: Any = Spec(self.world)
        session: Any = None
        journal = Journal(zk, "/a", 1, "toy", health.records, clock.now)
        return Term(
            observer=observer,
            actor=PlanExecutor(
                "toy",
                self.world.fleet,
                FailingEngine(self.world, self.steps),
                journal,
                self.world.decisions.append,
                clock.now,
            ),
            journal=journal,
            leases=Leases(zk, "/a", 1, "127.0.0.1:9550", clock.now, clock.now),
            orders=Orders(self.control, health.conditions, "a", lambda _: None, clock.now),
            specs=specs,
            telemetry=self.telemetry,
            probe=ProbeFramework((), session, clock.now),
            learner=Learner(self.control),
            address="127.0.0.1:9550",
            clock=clock,
            inbox=Inbox(FakeNotices(clock.now), clock.now),
            health=health,
            requests=RecordRequests(zk, "/a", self.control, clock.now),
            reports=ShutdownReports(zk, "/a", health.records),
        )

    async def open(self) -> None:
        self.term.planner_state, self.term.intents = await self.term.journal.open()

    async def passes(self, count: int, step_s: float = 2.0) -> None:
        world = self.world
        for _ in range(count):
            world.now += step_s
            world._boot()
            world._schedule()
            await self.term.run_pass()
            world.journal.memory = self.term.planner_state
            world._drain()
            world.check()

    async def passes_until(self, is_done: Callable[[], bool], most: int = 16) -> None:
        """Run passes 20 s apart until something holds."""
        for _ in range(most):
            if is_done():
                return
            await self.passes(1, 20.0)

    @property
    def bought(self) -> int:
        return len(self.world.fleet.launches)


async def buys_and_removes(daemon: Daemon, failing: dict[int, Exception]) -> int:
    """Want two machines, then none; return the calls of the passes that bought."""
    await daemon.open()
    daemon.world.want(queued("/web", 2, cpus=2))
    daemon.steps.count, daemon.steps.failing = 0, failing
    await daemon.passes(3)
    calls = daemon.steps.count
    await daemon.passes_until(lambda: daemon.world.running("/web") == 2 and not daemon.term.intents)
    assert [machine.state for machine in daemon.world.ours] == ["running", "running"]
    assert daemon.world.running("/web") == 2
    assert daemon.term.intents == [], "every launch is resolved"
    assert daemon.term.planner_state.billed_machines.keys() >= {
        machine.instance_id for machine in daemon.world.ours
    }
    daemon.world.want(queued("/web", 0))
    await daemon.passes_until(lambda: not daemon.world.ours)
    assert daemon.world.ours == [], "no machine is forgotten"
    assert len(daemon.world._machines()) == 3 + 2, "three masters and two machines, each once"
    return calls


@pytest.mark.slow
def test_a_failure_of_any_call_of_a_pass_buys_nothing_twice_and_forgets_no_machine() -> None:
    calls = LOOP.run_until_complete(buys_and_removes(Daemon(), {}))
    assert calls > 40
    for number in range(1, calls + 1):
        error = ERRORS[number % len(ERRORS)]
        LOOP.run_until_complete(buys_and_removes(Daemon(), {number: error}))


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example({1: ERRORS[1], 2: ERRORS[0]})
@given(st.dictionaries(st.integers(1, 400), st.sampled_from(ERRORS), min_size=1, max_size=6))
def test_several_failures_buy_nothing_twice_and_forget_no_machine(
    failing: dict[int, Exception],
) -> None:
    LOOP.run_until_complete(buys_and_removes(Daemon(), failing))


def test_a_pass_after_a_failed_one_begins_with_what_the_journal_holds() -> None:
    async def story() -> None:
        daemon = Daemon()
        await daemon.open()
        daemon.world.want(queued("/web", 1, cpus=2))
        real, term = daemon.term.journal, daemon.term
        bought = real.bought

        async def lost(*_: object) -> None:
            raise ZeroDivisionError

        real.bought = lost  # type: ignore[assignment,method-assign]
        term.leases.renew = lost  # type: ignore[assignment,method-assign]
        await daemon.passes(1)
        assert (daemon.bought, term.intents) == (1, [])
        real.bought = bought  # type: ignore[method-assign]
        del term.leases.renew  # type: ignore[attr-defined]
        await daemon.passes(2)
        assert daemon.bought == 1

    LOOP.run_until_complete(story())


def test_faults_are_reported_after_a_pass_that_fails() -> None:
    async def story() -> None:
        daemon = Daemon()
        await daemon.open()
        observer: Any = daemon.term.observer
        observer.faults = [Fault("agent", "S1", ValueError("odd"))]
        daemon.term.actor.faults.append(Fault("launch", "ms-1", ValueError("odd")))
        before = daemon.telemetry.measures.failures._value.get()
        number = daemon.steps.count
        daemon.steps.failing = {number + 8: ZeroDivisionError()}
        await daemon.passes(1)
        assert daemon.telemetry.measures.failures._value.get() == before + 1
        assert daemon.telemetry.health.faults.counts == {"agent": 1, "launch": 1}
        assert daemon.term.actor.faults == []
        assert [row["decision"] for row in daemon.telemetry.recent] == ["anomaly"]

    LOOP.run_until_complete(story())


@pytest.mark.parametrize(
    ("error", "condition"),
    [(ERRORS[0], Condition.PASSES), (ERRORS[1], Condition.ZOOKEEPER)],
)
def test_a_leader_whose_journal_cannot_be_opened_resigns(
    error: Exception, condition: Condition
) -> None:
    async def story() -> None:
        daemon = Daemon()
        daemon.steps.failing = {daemon.steps.count + 1: error}
        cloud: Any = SimpleNamespace(ledger=FakeLedger(), market=None)
        with pytest.raises(Resigned) as resigned:
            await _run_term(daemon.term, cloud, NoticeEndpoint(None))
        assert resigned.value.condition is condition
        assert daemon.bought == 0

    LOOP.run_until_complete(story())


def test_the_write_after_one_without_an_answer_is_no_loss_of_leadership() -> None:
    async def story() -> None:
        daemon = Daemon()
        await daemon.open()
        journal = daemon.term.journal
        daemon.steps.failing = {daemon.steps.count + 2: ERRORS[0]}
        with pytest.raises(ZeroDivisionError):
            await journal.save(PlannerState(lifetimes_until=1.0))
        await journal.save(PlannerState(lifetimes_until=2.0))
        assert (await journal.reread())[0] == PlannerState(lifetimes_until=2.0)
        daemon.zk.nodes["/a/state"] = (b"another leader's", 99)
        with pytest.raises(LeadershipLost):
            await journal.save(PlannerState(lifetimes_until=3.0))

    LOOP.run_until_complete(story())
