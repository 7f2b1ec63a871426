"""Unexpected exceptions in the core: the call fails, and the accounts are as if it had ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.allocator import Allocation, Allocator
from mesaform.engine.master import events as ev
from mesaform.engine.master.core import EventFailed
from mesaform.engine.registry import Admit
from mesaform.mesos.messages import AgentInfo, CommandInfo, Resource, Scalar, TaskInfo, ident
from mesaform.mesos.scheduler_api import launch
from tests.support.profiles import examples
from tests.unit.engine_master.world import SIZE, SMALL, FakeAgent, Scheduler, World, known


class Fault(Exception):
    """Injected by `FaultyAllocator`."""


class FaultyAllocator(Allocator):
    """An allocator that raises at the n-th change after `fail_after(n)`, before or after it."""

    def __init__(self) -> None:
        super().__init__()
        self._remaining: int | None = None
        self._is_after = False

    def fail_after(self, changes: int, *, is_after: bool = False) -> None:
        self._remaining, self._is_after = changes, is_after

    def heal(self) -> None:
        self._remaining = None

    @contextmanager
    def _change(self) -> Iterator[None]:
        fails = False
        if self._remaining is not None:
            self._remaining -= 1
            fails = self._remaining < 0
        if fails:
            self._remaining = None
            if not self._is_after:
                raise Fault
        yield
        if fails:
            raise Fault

    def recover(self, *args: object, **kwargs: object) -> None:
        with self._change():
            super().recover(*args, **kwargs)  # type: ignore[arg-type]

    def claim(self, framework_id: str, role: str, agent_id: str, resources: Resources) -> None:
        with self._change():
            super().claim(framework_id, role, agent_id, resources)

    def allocate(self, now: float) -> list[Allocation]:
        with self._change():
            return super().allocate(now)

    def set_agent_active(self, agent_id: str, *, active: bool) -> None:
        with self._change():
            super().set_agent_active(agent_id, active=active)

    def add_framework(self, *args: object, **kwargs: object) -> None:
        with self._change():
            super().add_framework(*args, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


def odd_task(agent_id: str) -> TaskInfo:
    """A task of wrong types, which no boundary lets pass: it stands for a defect of a handler."""
    cpus = Resource(name="cpus", type="SCALAR", scalar=Scalar(value=1.0))
    info = TaskInfo(task_id=ident("odd"), agent_id=ident(agent_id), resources=[cpus])
    return msgspec.structs.replace(info, command="true")


def test_a_call_that_fails_returns_its_offers_and_the_next_ones_come(world):
    agent, scheduler = world.agent(), world.framework()
    offer = scheduler.offers[0]
    good = scheduler.task(offer, "good")
    call = launch([offer.id], [odd_task(agent.id)])
    with pytest.raises(EventFailed) as failure:
        world.feed(ev.SchedulerCall(scheduler.id, call))
    assert not failure.value.is_handled
    world.perform(failure.value.effects)
    world.check()
    world.tick()
    (again,) = scheduler.offers
    assert again.resources == SIZE
    scheduler.launch(again, good)
    assert agent.got(link.Launch)[0].task.task_id == ident("good")


def test_a_task_that_was_launched_before_the_fault_stays_launched(world):
    agent, scheduler = world.agent(), world.framework()
    offer = scheduler.offers[0]
    good = TaskInfo(
        task_id=ident("good"),
        agent_id=ident(agent.id),
        resources=[Resource(name="cpus", type="SCALAR", scalar=Scalar(value=1.0))],
        command=CommandInfo(value="true"),
    )
    call = launch([offer.id], [good, odd_task(agent.id)])
    with pytest.raises(EventFailed) as failure:
        world.feed(ev.SchedulerCall(scheduler.id, call))
    world.perform(failure.value.effects)
    world.check()
    assert [message.task.task_id.value for message in agent.got(link.Launch)] == ["good"]
    assert world.state.agents[agent.id].used() == Resources.of(cpus=1)


def test_a_registration_that_fails_ends_its_link_and_the_agent_may_come_again():
    allocator = FaultyAllocator()
    world = World(allocator=allocator)
    scheduler = world.framework(id_="f", failover_s=1e6)
    allocator.fail_after(0)
    link_id = "l1"
    info = AgentInfo(hostname="h", resources=[])
    register = link.Register(info, "a", "h:1", "1", [known(scheduler, "t", "a")])
    world.contain_faults = True
    world.feed(ev.AgentRegistering(link_id, register))
    assert link_id in world.cut
    assert world.faults
    allocator.heal()
    agent = world.agent(agent_id="a", tasks=[known(scheduler, "t", "a")])
    assert agent.got(link.Registered)
    assert set(world.state.frameworks["f"].tasks) == {"t"}


def test_a_change_that_the_registry_cannot_take_ends_that_link_with_the_reason():
    world = World()
    world.hold_stores = True
    register = link.Register(AgentInfo(hostname="h"))
    world.feed(ev.AgentRegistering("l1", register))
    (write,) = world.held
    world.held.clear()
    assert isinstance(write.change, Admit)
    world.feed(ev.NotStored(write.change, write.origin, "it is full"))
    assert world.reasons["l1"] == "it is full"
    assert not world.state.registering
    assert not world.state.agents


def test_an_operators_call_that_the_registry_cannot_take_is_answered():
    world = World()
    agent = world.agent()
    world.hold_stores = True
    world.operate("DEACTIVATE_AGENT", agent.id)
    (write,) = world.held
    world.held.clear()
    world.feed(ev.NotStored(write.change, write.origin, "it is full"))
    assert isinstance(write.origin, ev.Operator)
    assert world.replies[write.origin.token] == (507, "it is full")
    assert not world.state.in_flight


def test_a_fault_in_the_offers_is_not_the_fault_of_the_call_before_them():
    allocator = FaultyAllocator()
    world = World(allocator=allocator)
    agent, scheduler = world.agent(), world.framework()
    scheduler.decline(*scheduler.offers, refuse_s=0.0)
    allocator.fail_after(0)
    call = ev.Tick()
    with pytest.raises(EventFailed) as failure:
        world.feed(call)
    assert failure.value.is_handled
    world.perform(failure.value.effects)
    world.tick()
    assert scheduler.offers
    assert agent.id in world.state.agents


class FaultyCluster(RuleBasedStateMachine):
    """Any step may fail at any change of the accounts. The world checks its invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = FaultyAllocator()
        self.world = World(allocator=self.allocator)
        self.world.contain_faults = True
        self.agents: list[FakeAgent] = []
        self.schedulers: list[Scheduler] = []

    @rule(changes=st.integers(0, 6), is_after=st.booleans())
    def a_later_change_fails(self, changes: int, is_after: bool) -> None:
        self.allocator.fail_after(changes, is_after=is_after)

    @precondition(lambda self: len(self.agents) < 3)
    @rule()
    def an_agent_registers(self) -> None:
        self.agents.append(self.world.agent())

    @precondition(lambda self: len(self.schedulers) < 3)
    @rule()
    def a_framework_subscribes(self) -> None:
        self.schedulers.append(self.world.framework(failover_s=1e6))

    @rule(data=st.data(), size=st.sampled_from([SMALL, Resources.of(cpus=2)]), odd=st.booleans())
    def a_task_is_launched(self, data, size: Resources, odd: bool) -> None:
        offers = [(one, offer) for one in self.schedulers for offer in one.offers]
        if not offers:
            return
        scheduler, offer = data.draw(st.sampled_from(offers))
        if odd:
            call = launch([offer.id], [odd_task(offer.agent_id)])
            self.world.feed(ev.SchedulerCall(scheduler.id, call))
        else:
            scheduler.launch(offer, scheduler.task(offer, f"t{self.world.number()}", size))

    @precondition(lambda self: self.agents)
    @rule(data=st.data(), state=st.sampled_from(["TASK_RUNNING", "TASK_FINISHED"]))
    def a_task_changes(self, data, state: str) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        record = self.world.state.agents.get(agent.id)
        if record is None or record.link_id != agent.link_id or not record.tasks:
            return
        framework_id, task_id = data.draw(st.sampled_from(sorted(record.tasks)))
        scheduler = next(one for one in self.schedulers if one.id == framework_id)
        agent.update(scheduler, task_id, state)

    @precondition(lambda self: self.agents)
    @rule(data=st.data(), back=st.booleans())
    def an_agents_link_breaks(self, data, back: bool) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        agent.disconnect()
        if back:
            tasks = self.world.state.agents[agent.id].tasks if agent.id in self._known() else {}
            agent.connect(
                [
                    known(next(s for s in self.schedulers if s.id == key[0]), key[1], agent.id)
                    for key in tasks
                ]
            )

    def _known(self) -> set[str]:
        return set(self.world.state.agents)

    @precondition(lambda self: self.schedulers)
    @rule(data=st.data(), call=st.sampled_from(["REVIVE", "DECLINE", "TEARDOWN", "DROP"]))
    def a_scheduler_acts(self, data, call: str) -> None:
        scheduler = data.draw(st.sampled_from(self.schedulers))
        if call == "DROP":
            scheduler.drop()
        elif call == "DECLINE":
            scheduler.decline(*scheduler.offers, refuse_s=0.0)
        elif scheduler.id in self.world.state.frameworks:
            scheduler.call(call)
        if scheduler.id not in self.world.state.frameworks:
            self.schedulers.remove(scheduler)

    @precondition(lambda self: self.agents)
    @rule(data=st.data(), call=st.sampled_from(["DEACTIVATE_AGENT", "DRAIN_AGENT"]))
    def an_operator_acts(self, data, call: str) -> None:
        self.world.operate(call, data.draw(st.sampled_from(self.agents)).id)

    @rule(seconds=st.sampled_from([1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    def teardown(self) -> None:
        """A fresh framework gets the offers of a fresh agent afterwards."""
        self.allocator.heal()
        agent, scheduler = self.world.agent(), self.world.framework(name="fresh")
        self.world.tick()
        for other in self.schedulers:
            if other.id in self.world.state.frameworks:
                other.call("SUPPRESS")
                other.decline(*other.offers, refuse_s=0.0)
        self.world.tick()
        assert agent.id in {offer.agent_id for offer in scheduler.offers}


FaultyCluster.TestCase.settings = settings(
    max_examples=examples(60),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestFaultyCluster = pytest.mark.slow(FaultyCluster.TestCase)
