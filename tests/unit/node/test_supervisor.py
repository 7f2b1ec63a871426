"""The supervisor's mind: order, patience and persistence, without a process or a clock."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesaform.node.model import Service
from mesaform.node.supervisor import (
    Begin,
    Effect,
    Event,
    Exited,
    Finished,
    Hold,
    Kill,
    Policy,
    Ready,
    Release,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    StopAll,
    Supervisor,
    Terminate,
    Tick,
    UnknownTransition,
)
from tests.support.profiles import examples

POLICY = Policy(first_delay_s=1.0, factor=2.0, cap_s=8.0, healthy_after_s=60.0)


class Machine:
    """A supervisor and its shell, played by the test; processes start when told and end when the test says so."""

    def __init__(self, *names: str, ready: bool = True) -> None:
        address = ("127.0.0.1", 1) if ready else None
        self.supervisor = Supervisor(
            [Service(name, (name,), ready=address, ready_within_s=3.0) for name in names], POLICY
        )
        self.now = 1000.0
        self.next_pid = 100
        self.effects: list[Effect] = []
        self.unstartable: set[str] = set()

    def tell(self, event: Event) -> None:
        pending = [event]
        while pending:
            for effect in self.supervisor.handle(pending.pop(0), self.now):
                self.effects.append(effect)
                if isinstance(effect, Spawn):
                    pending.append(self.start(effect.name))

    def start(self, name: str) -> Event:
        if name in self.unstartable:
            return SpawnFailed(name, "no such program")
        self.next_pid += 1
        return Spawned(name, self.next_pid)

    def ready(self, name: str) -> None:
        self.tell(Ready(name, self.pid(name)))

    def end(self, name: str, how: str = "exit code 1") -> None:
        self.tell(Exited(name, self.pid(name), how))

    def wait(self, seconds: float) -> None:
        """Let time pass, with a tick at every deadline on the way."""
        until = self.now + seconds
        while (deadline := self.supervisor.deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.tell(Tick())
        self.now = until

    def pid(self, name: str) -> int:
        pid = self.supervisor.entries[name].pid
        assert pid is not None
        return pid

    def state(self, name: str) -> State:
        return self.supervisor.entries[name].state

    def started(self) -> list[str]:
        return [effect.name for effect in self.effects if isinstance(effect, Spawn)]


def test_a_service_starts_when_the_one_before_it_is_ready() -> None:
    machine = Machine("a", "b")
    machine.tell(Begin())
    assert machine.started() == ["a"]
    machine.ready("a")
    assert machine.started() == ["a", "b"]


def test_a_service_that_is_slow_to_be_ready_holds_up_the_next_one_only_for_its_time() -> None:
    machine = Machine("a", "b")
    machine.tell(Begin())
    machine.wait(2.9)
    assert machine.started() == ["a"]
    machine.wait(0.2)
    assert machine.started() == ["a", "b"]


def test_a_service_that_cannot_start_does_not_keep_the_others_down() -> None:
    machine = Machine("a", "b")
    machine.unstartable.add("a")
    machine.tell(Begin())
    assert machine.state("a") is State.BACKOFF
    assert machine.state("b") is State.STARTING


def test_services_that_need_no_readiness_start_one_after_the_other_at_once() -> None:
    machine = Machine("a", "b", "c", ready=False)
    machine.tell(Begin())
    machine.wait(0)
    assert machine.started() == ["a", "b", "c"]


def test_a_service_that_keeps_failing_is_tried_ever_more_rarely_up_to_a_cap() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    pauses = []
    for _ in range(6):
        machine.end("a")
        ended_at = machine.now
        machine.wait(machine.supervisor.deadline() - machine.now)  # type: ignore[operator]
        pauses.append(machine.now - ended_at)
    assert pauses == [1, 2, 4, 8, 8, 8]
    assert machine.supervisor.entries["a"].restarts == 6


def test_a_service_that_ran_well_is_forgiven_its_earlier_failures() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    for _ in range(3):
        machine.end("a")
        machine.wait(10)
    machine.wait(60)
    machine.end("a", "signal SIGKILL")
    assert machine.supervisor.deadline() == machine.now + 1
    assert machine.supervisor.entries["a"].last_end == "signal SIGKILL"


def test_a_restart_leaves_the_other_services_alone() -> None:
    machine = Machine("a", "b")
    machine.tell(Begin())
    machine.ready("a")
    machine.ready("b")
    before = machine.pid("b")
    machine.end("a")
    machine.wait(10)
    assert machine.started() == ["a", "b", "a"]
    assert machine.pid("b") == before
    assert not [effect for effect in machine.effects if isinstance(effect, Terminate)]


def test_services_stop_in_reverse_order_each_when_the_one_after_it_is_gone() -> None:
    machine = Machine("a", "b", "c")
    machine.tell(Begin())
    for name in ("a", "b", "c"):
        machine.ready(name)
    machine.effects.clear()
    machine.tell(StopAll())
    assert machine.effects == [Terminate("c", machine.pid("c"))]
    machine.end("c", "exit code 0")
    machine.end("b", "exit code 0")
    machine.end("a", "exit code 0")
    assert [type(effect) for effect in machine.effects] == [
        Terminate,
        Terminate,
        Terminate,
        Finished,
    ]
    assert [effect.name for effect in machine.effects if isinstance(effect, Terminate)] == [
        "c",
        "b",
        "a",
    ]


def test_a_service_that_does_not_stop_in_time_is_killed_and_killed_again() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    machine.tell(StopAll())
    machine.wait(5.0)
    machine.wait(POLICY.kill_again_after_s)
    assert [type(effect) for effect in machine.effects] == [Spawn, Terminate, Kill, Kill]
    machine.end("a", "signal SIGKILL")
    assert machine.supervisor.finished


def test_a_probe_that_answers_during_the_stop_does_not_extend_the_deadline() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    machine.tell(StopAll())
    machine.ready("a")
    machine.wait(5.0)
    assert machine.state("a") is State.KILLING


def test_a_service_in_its_pause_is_not_tried_again_once_the_machine_stops() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    machine.end("a")
    machine.tell(StopAll())
    assert machine.supervisor.finished
    assert machine.supervisor.deadline() is None


def test_a_service_that_ends_while_others_stop_is_not_started_again() -> None:
    machine = Machine("a", "b")
    machine.tell(Begin())
    machine.ready("a")
    machine.tell(StopAll())
    machine.end("a")
    machine.wait(4.0)
    assert machine.started() == ["a", "b"]
    machine.end("b")
    assert machine.supervisor.finished


def test_a_stop_before_the_begin_ends_at_once() -> None:
    machine = Machine("a", "b")
    machine.tell(StopAll())
    assert machine.effects == [Finished()]


def test_news_of_a_process_that_was_replaced_is_ignored() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    old = machine.pid("a")
    machine.end("a")
    machine.wait(10)
    machine.tell(Exited("a", old, "exit code 1"))
    machine.tell(Ready("a", old))
    assert machine.pid("a") != old
    assert machine.supervisor.entries["a"].restarts == 1


def test_an_event_without_an_edge_is_reported_with_what_went_before() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    with pytest.raises(
        UnknownTransition,
        match=r"a: spawned while starting; before that: waiting\+turn, spawning\+spawned",
    ):
        machine.supervisor.handle(Spawned("a", 7), machine.now)


def test_what_is_held_stops_and_stays_stopped_until_it_is_released() -> None:
    machine = Machine("a", "b", ready=False)
    machine.tell(Begin())
    machine.wait(0)
    machine.tell(Hold(frozenset({"a"})))
    assert (machine.state("a"), machine.state("b")) == (State.STOPPING, State.RUNNING)
    assert not machine.supervisor.holds
    machine.end("a", "exit code 0")
    assert machine.supervisor.holds
    machine.wait(600)
    assert machine.state("a") is State.STOPPED
    machine.tell(Release())
    assert machine.state("a") is State.STARTING
    assert not machine.supervisor.holds


def test_a_service_that_does_not_stop_to_be_held_is_killed() -> None:
    machine = Machine("a")
    machine.tell(Begin())
    machine.tell(Hold(frozenset({"a"})))
    machine.wait(6)
    assert machine.state("a") is State.KILLING


def test_a_service_between_two_tries_is_held_too_and_one_released_while_it_stops_starts_again() -> (
    None
):
    machine = Machine("a", "b", ready=False)
    machine.tell(Begin())
    machine.wait(0)
    machine.end("a")
    machine.tell(Hold(frozenset({"a", "b"})))
    assert machine.state("a") is State.STOPPED
    machine.tell(Release())
    assert machine.state("a") is State.STARTING
    machine.end("b", "exit code 0")
    assert machine.state("b") is State.STARTING


def test_a_machine_that_stops_does_not_start_what_was_held() -> None:
    machine = Machine("a", "b", ready=False)
    machine.tell(Begin())
    machine.wait(0)
    machine.tell(Hold(frozenset({"a"})))
    machine.end("a", "exit code 0")
    machine.tell(StopAll())
    machine.tell(Release())
    machine.end("b", "exit code 0")
    assert machine.supervisor.finished
    assert machine.started() == ["a", "b"]


class AnyMachine(RuleBasedStateMachine):
    """Whatever happens to processes, in whatever order, the promises hold."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine("a", "b", "c")
        self.alive: dict[str, int] = {}
        self.seen = 0
        self.held_once = False

    def _follow(self) -> None:
        for effect in self.machine.effects[self.seen :]:
            if isinstance(effect, Spawn) and effect.name not in self.machine.unstartable:
                assert effect.name not in self.alive, (
                    "a second process of a service that still has one"
                )
                assert not self.machine.supervisor.stopping, "started during a stop"
                self.alive[effect.name] = -1
        self.seen = len(self.machine.effects)
        for name in self.alive:
            self.alive[name] = self.machine.pid(name)

    @precondition(
        lambda self: not self.machine.supervisor.begun and not self.machine.supervisor.stopping
    )
    @rule()
    def begin(self) -> None:
        self.machine.tell(Begin())
        self._follow()

    @rule(seconds=st.floats(min_value=0, max_value=120))
    def time_passes(self, seconds: float) -> None:
        self.machine.wait(seconds)
        self._follow()

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_process_ends(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.alive)))
        pid = self.alive.pop(name)
        self.machine.tell(Exited(name, pid, "exit code 1"))
        self._follow()

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_service_answers(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.alive)))
        self.machine.tell(Ready(name, self.alive[name]))
        self._follow()

    @rule(name=st.sampled_from("abc"))
    def a_program_goes_missing_or_comes_back(self, name: str) -> None:
        self.machine.unstartable ^= {name}

    @rule()
    def stop(self) -> None:
        self.machine.tell(StopAll())
        self._follow()

    @rule(names=st.frozensets(st.sampled_from("abc")))
    def hold(self, names: frozenset[str]) -> None:
        self.held_once = True
        self.machine.tell(Hold(names))
        self._follow()

    @rule()
    def release(self) -> None:
        self.machine.tell(Release())
        self._follow()

    @invariant()
    def what_is_held_does_not_begin(self) -> None:
        supervisor = self.machine.supervisor
        down = (State.STOPPING, State.KILLING, State.STOPPED)
        if not supervisor.stopping:
            assert all(supervisor.entries[name].state in down for name in supervisor.held)

    @invariant()
    def what_is_not_held_is_not_stopped_before_the_end(self) -> None:
        supervisor = self.machine.supervisor
        if not supervisor.stopping:
            assert all(
                entry.state is not State.STOPPED or name in supervisor.held
                for name, entry in supervisor.entries.items()
            )

    @invariant()
    def the_supervisor_knows_exactly_the_living(self) -> None:
        entries = self.machine.supervisor.entries.values()
        assert {
            entry.service.name: entry.pid for entry in entries if entry.pid is not None
        } == self.alive

    @invariant()
    def nothing_waits_without_a_deadline(self) -> None:
        for entry in self.machine.supervisor.entries.values():
            if entry.state in (State.BACKOFF, State.STARTING, State.STOPPING, State.KILLING):
                assert entry.due is not None

    @invariant()
    def a_service_is_asked_to_stop_only_when_those_after_it_are_gone(self) -> None:
        if self.held_once:  # what is held ends at once, in no order
            return
        states = [entry.state for entry in self.machine.supervisor.entries.values()]
        for index, state in enumerate(states):
            if state in (State.STOPPING, State.KILLING):
                assert set(states[index + 1 :]) <= {State.STOPPED}

    @invariant()
    def finished_means_gone(self) -> None:
        assert not (self.machine.supervisor.finished and self.alive)

    def teardown(self) -> None:
        self.stop()
        for _ in range(3):
            for name in reversed("abc"):
                if name in self.alive:
                    self.machine.tell(Exited(name, self.alive.pop(name), "exit code 0"))
                    self._follow()
        assert self.machine.supervisor.finished


TestAnyMachine = AnyMachine.TestCase
TestAnyMachine.settings = settings(
    max_examples=examples(150), stateful_step_count=40, deadline=None
)
