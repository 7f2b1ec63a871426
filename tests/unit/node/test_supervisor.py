"""The process supervisor's state machine: order, delays and restarts, without processes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesaform.common.backoff import Backoff
from mesaform.common.transitions import UnknownTransition
from mesaform.node.model import Service
from mesaform.node.supervisor import (
    Begin,
    Effect,
    Event,
    Exited,
    Finished,
    Hold,
    Kill,
    Ready,
    Release,
    RestartPolicy,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    StopAll,
    Supervisor,
    Terminate,
    Tick,
)
from tests.support.profiles import examples

POLICY = RestartPolicy(Backoff(first_s=1.0, cap_s=8.0), healthy_after_s=60.0)


class Machine:
    """A supervisor with a simulated shell: processes start when asked for and end on command."""

    def __init__(self, *names: str, ready: bool = True) -> None:
        address = ("127.0.0.1", 1) if ready else None
        self.supervisor = Supervisor(
            [Service(name, (name,), ready=address, ready_within_s=3.0) for name in names], POLICY
        )
        self.now = 1000.0
        self.next_pid = 100
        self.effects: list[Effect] = []
        self.unstartable: set[str] = set()

    def handle(self, event: Event) -> None:
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
        self.handle(Ready(name, self.pid(name)))

    def end(self, name: str, ending: str = "exit code 1") -> None:
        self.handle(Exited(name, self.pid(name), ending))

    def wait(self, seconds: float) -> None:
        """Let time pass, with a tick at every deadline on the way."""
        until = self.now + seconds
        while (deadline := self.supervisor.deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.handle(Tick())
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
    machine.handle(Begin())
    assert machine.started() == ["a"]
    machine.ready("a")
    assert machine.started() == ["a", "b"]


def test_a_slow_service_delays_the_next_one_only_for_its_start_time() -> None:
    machine = Machine("a", "b")
    machine.handle(Begin())
    machine.wait(2.9)
    assert machine.started() == ["a"]
    machine.wait(0.2)
    assert machine.started() == ["a", "b"]


def test_the_others_start_when_a_service_cannot_start() -> None:
    machine = Machine("a", "b")
    machine.unstartable.add("a")
    machine.handle(Begin())
    assert machine.state("a") is State.BACKOFF
    assert machine.state("b") is State.STARTING


def test_services_without_a_port_start_at_once_in_order() -> None:
    machine = Machine("a", "b", "c", ready=False)
    machine.handle(Begin())
    machine.wait(0)
    assert machine.started() == ["a", "b", "c"]


def test_the_restart_delay_of_a_failing_service_doubles_up_to_a_cap() -> None:
    machine = Machine("a")
    machine.handle(Begin())
    pauses = []
    for _ in range(6):
        machine.end("a")
        ended_at = machine.now
        machine.wait(machine.supervisor.deadline() - machine.now)  # type: ignore[operator]
        pauses.append(machine.now - ended_at)
    assert pauses == [1, 2, 4, 8, 8, 8]
    assert machine.supervisor.entries["a"].restarts == 6


def test_a_service_that_must_be_back_soon_never_waits_longer() -> None:
    entry = Service("zookeeper", ("zookeeper",), restart_within_s=1.5)
    supervisor = Supervisor([entry], POLICY)
    now, pauses = 1000.0, []
    supervisor.handle(Begin(), now)
    for pid in range(5):
        supervisor.handle(Spawned("zookeeper", pid), now)
        supervisor.handle(Exited("zookeeper", pid, "signal SIGKILL"), now)
        ended_at = now
        while not supervisor.handle(Tick(), now):
            now += 0.5
        pauses.append(now - ended_at)
    assert pauses == [1.0, 1.5, 1.5, 1.5, 1.5]


def test_a_long_run_resets_the_restart_delay() -> None:
    machine = Machine("a")
    machine.handle(Begin())
    for _ in range(3):
        machine.end("a")
        machine.wait(10)
    machine.wait(60)
    machine.end("a", "signal SIGKILL")
    assert machine.supervisor.deadline() == machine.now + 1
    assert machine.supervisor.entries["a"].last_end == "signal SIGKILL"


def test_a_restart_does_not_affect_other_services() -> None:
    machine = Machine("a", "b")
    machine.handle(Begin())
    machine.ready("a")
    machine.ready("b")
    before = machine.pid("b")
    machine.end("a")
    machine.wait(10)
    assert machine.started() == ["a", "b", "a"]
    assert machine.pid("b") == before
    assert not [effect for effect in machine.effects if isinstance(effect, Terminate)]


def test_services_stop_in_reverse_order_one_at_a_time() -> None:
    machine = Machine("a", "b", "c")
    machine.handle(Begin())
    for name in ("a", "b", "c"):
        machine.ready(name)
    machine.effects.clear()
    machine.handle(StopAll())
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
    machine.handle(Begin())
    machine.handle(StopAll())
    machine.wait(5.0)
    machine.wait(POLICY.kill_again_after_s)
    assert [type(effect) for effect in machine.effects] == [Spawn, Terminate, Kill, Kill]
    machine.end("a", "signal SIGKILL")
    assert machine.supervisor.is_finished


def test_a_probe_that_answers_during_the_stop_does_not_extend_the_deadline() -> None:
    machine = Machine("a")
    machine.handle(Begin())
    machine.handle(StopAll())
    machine.ready("a")
    machine.wait(5.0)
    assert machine.state("a") is State.KILLING


def test_a_service_in_backoff_is_not_restarted_once_the_machine_stops() -> None:
    machine = Machine("a")
    machine.handle(Begin())
    machine.end("a")
    machine.handle(StopAll())
    assert machine.supervisor.is_finished
    assert machine.supervisor.deadline() is None


def test_a_service_that_ends_while_others_stop_is_not_started_again() -> None:
    machine = Machine("a", "b")
    machine.handle(Begin())
    machine.ready("a")
    machine.handle(StopAll())
    machine.end("a")
    machine.wait(4.0)
    assert machine.started() == ["a", "b"]
    machine.end("b")
    assert machine.supervisor.is_finished


def test_a_stop_before_the_begin_ends_at_once() -> None:
    machine = Machine("a", "b")
    machine.handle(StopAll())
    assert machine.effects == [Finished()]


def test_events_of_an_earlier_process_are_ignored() -> None:
    machine = Machine("a")
    machine.handle(Begin())
    old = machine.pid("a")
    machine.end("a")
    machine.wait(10)
    machine.handle(Exited("a", old, "exit code 1"))
    machine.handle(Ready("a", old))
    assert machine.pid("a") != old
    assert machine.supervisor.entries["a"].restarts == 1


def test_an_unknown_transition_is_reported_with_the_history() -> None:
    machine = Machine("a")
    machine.handle(Begin())
    with pytest.raises(
        UnknownTransition,
        match=r"waiting\+start > spawning\+spawned: service a: spawned in state starting",
    ):
        machine.supervisor.handle(Spawned("a", 7), machine.now)


def test_a_held_service_stays_stopped_until_the_release() -> None:
    machine = Machine("a", "b", ready=False)
    machine.handle(Begin())
    machine.wait(0)
    machine.handle(Hold(frozenset({"a"})))
    assert (machine.state("a"), machine.state("b")) == (State.STOPPING, State.RUNNING)
    assert not machine.supervisor.is_holding
    machine.end("a", "exit code 0")
    assert machine.supervisor.is_holding
    machine.wait(600)
    assert machine.state("a") is State.STOPPED
    machine.handle(Release())
    assert machine.state("a") is State.STARTING
    assert not machine.supervisor.is_holding


def test_a_service_that_does_not_stop_to_be_held_is_killed() -> None:
    machine = Machine("a")
    machine.handle(Begin())
    machine.handle(Hold(frozenset({"a"})))
    machine.wait(6)
    assert machine.state("a") is State.KILLING


def test_a_service_in_backoff_is_held_and_a_stopping_service_restarts_after_the_release() -> None:
    machine = Machine("a", "b", ready=False)
    machine.handle(Begin())
    machine.wait(0)
    machine.end("a")
    machine.handle(Hold(frozenset({"a", "b"})))
    assert machine.state("a") is State.STOPPED
    machine.handle(Release())
    assert machine.state("a") is State.STARTING
    machine.end("b", "exit code 0")
    assert machine.state("b") is State.STARTING


def test_a_stopping_machine_does_not_start_held_services() -> None:
    machine = Machine("a", "b", ready=False)
    machine.handle(Begin())
    machine.wait(0)
    machine.handle(Hold(frozenset({"a"})))
    machine.end("a", "exit code 0")
    machine.handle(StopAll())
    machine.handle(Release())
    machine.end("b", "exit code 0")
    assert machine.supervisor.is_finished
    assert machine.started() == ["a", "b"]


class AnyMachine(RuleBasedStateMachine):
    """The invariants hold for any order of process events."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine("a", "b", "c")
        self.live_pids: dict[str, int] = {}
        self.checked_effects = 0
        self.was_held = False

    def _follow(self) -> None:
        for effect in self.machine.effects[self.checked_effects :]:
            if isinstance(effect, Spawn) and effect.name not in self.machine.unstartable:
                assert effect.name not in self.live_pids, (
                    "a second process of a service that still has one"
                )
                assert not self.machine.supervisor.is_stopping, "started during a stop"
                self.live_pids[effect.name] = -1
        self.checked_effects = len(self.machine.effects)
        for name in self.live_pids:
            self.live_pids[name] = self.machine.pid(name)

    @precondition(
        lambda self: (
            not self.machine.supervisor.has_begun and not self.machine.supervisor.is_stopping
        )
    )
    @rule()
    def begin(self) -> None:
        self.machine.handle(Begin())
        self._follow()

    @rule(seconds=st.floats(min_value=0, max_value=120))
    def time_passes(self, seconds: float) -> None:
        self.machine.wait(seconds)
        self._follow()

    @precondition(lambda self: self.live_pids)
    @rule(data=st.data())
    def a_process_ends(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.live_pids)))
        pid = self.live_pids.pop(name)
        self.machine.handle(Exited(name, pid, "exit code 1"))
        self._follow()

    @precondition(lambda self: self.live_pids)
    @rule(data=st.data())
    def a_service_answers(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.live_pids)))
        self.machine.handle(Ready(name, self.live_pids[name]))
        self._follow()

    @rule(name=st.sampled_from("abc"))
    def a_program_is_removed_or_installed(self, name: str) -> None:
        self.machine.unstartable ^= {name}

    @rule()
    def stop(self) -> None:
        self.machine.handle(StopAll())
        self._follow()

    @rule(names=st.frozensets(st.sampled_from("abc")))
    def hold(self, names: frozenset[str]) -> None:
        self.was_held = True
        self.machine.handle(Hold(names))
        self._follow()

    @rule()
    def release(self) -> None:
        self.machine.handle(Release())
        self._follow()

    @invariant()
    def held_services_do_not_start(self) -> None:
        supervisor = self.machine.supervisor
        down = (State.STOPPING, State.KILLING, State.STOPPED)
        if not supervisor.is_stopping:
            assert all(supervisor.entries[name].state in down for name in supervisor.held_names)

    @invariant()
    def only_held_services_stop_before_the_machine_stops(self) -> None:
        supervisor = self.machine.supervisor
        if not supervisor.is_stopping:
            assert all(
                entry.state is not State.STOPPED or name in supervisor.held_names
                for name, entry in supervisor.entries.items()
            )

    @invariant()
    def the_supervisor_knows_every_live_process(self) -> None:
        entries = self.machine.supervisor.entries.values()
        assert {
            entry.service.name: entry.pid for entry in entries if entry.pid is not None
        } == self.live_pids

    @invariant()
    def a_state_that_waits_has_a_deadline(self) -> None:
        for entry in self.machine.supervisor.entries.values():
            if entry.state in (State.BACKOFF, State.STARTING, State.STOPPING, State.KILLING):
                assert entry.due_at is not None

    @invariant()
    def a_service_stops_only_after_later_services(self) -> None:
        if self.was_held:  # held services stop at the same time
            return
        states = [entry.state for entry in self.machine.supervisor.entries.values()]
        for index, state in enumerate(states):
            if state in (State.STOPPING, State.KILLING):
                assert set(states[index + 1 :]) <= {State.STOPPED}

    @invariant()
    def a_finished_supervisor_has_no_process(self) -> None:
        assert not (self.machine.supervisor.is_finished and self.live_pids)

    def teardown(self) -> None:
        self.stop()
        for _ in range(3):
            for name in reversed("abc"):
                if name in self.live_pids:
                    self.machine.handle(Exited(name, self.live_pids.pop(name), "exit code 0"))
                    self._follow()
        assert self.machine.supervisor.is_finished


TestAnyMachine = pytest.mark.slow(AnyMachine.TestCase)
TestAnyMachine.settings = settings(
    max_examples=examples(150), stateful_step_count=40, deadline=None
)
