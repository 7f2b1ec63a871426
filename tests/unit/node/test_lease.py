"""The state machine of the agent lease: examples, and properties over random histories."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.common.transitions import UnknownTransition
from mesaform.node.lease_monitor import (
    LONGEST_INTERVAL_S,
    TRANSITIONS,
    Activity,
    AgentObserved,
    AgentRestarted,
    AgentStopped,
    Effect,
    Event,
    Kind,
    LeaseMonitor,
    LeaseRead,
    LeaseUnreadable,
    MasterAnswered,
    PowerOff,
    RestartAgent,
    State,
    StopAgent,
    Terms,
    Verify,
)
from tests.support.profiles import examples

LEASE_S, EMPTY_S, PACE_S = 600.0, 100.0, 10.0


class Machine:
    """A lease monitor with simulated time, ZooKeeper, agent and master."""

    def __init__(self, lease_s: float = LEASE_S, empty_s: float = EMPTY_S) -> None:
        self.now = 5000.0
        self.monitor = LeaseMonitor(Terms(lease_s, empty_s), self.now)
        self.mark: str | None = "1"
        self.terms: Terms | None = None
        self.is_protected = False
        self.activity: Activity = "empty"
        self.remaining: tuple[str, ...] | None = ()
        self.mark_at_verification: str | None = (
            None  # the lease's mark then, when it is another one
        )
        self.has_work: bool | None = None
        self.effects: list[Effect] = []

    def lease(self) -> LeaseRead | LeaseUnreadable:
        return (
            LeaseUnreadable()
            if self.mark is None
            else LeaseRead(self.mark, self.terms, self.is_protected)
        )

    def handle(self, event: Event) -> None:
        for effect in self.monitor.handle(event, self.now):
            self.effects.append(effect)
            match effect:
                case StopAgent():
                    self.handle(AgentStopped(self.remaining))
                case Verify():
                    self.mark = self.mark_at_verification or self.mark
                    self.handle(self.lease())
                    if self.monitor.state is State.VERIFYING:
                        self.handle(MasterAnswered(self.has_work))
                case RestartAgent():
                    self.handle(AgentRestarted())

    def observe(self) -> None:
        self.handle(self.lease())
        if self.monitor.needs_observation:
            self.handle(AgentObserved(self.activity))

    def live(self, seconds: float, pace_s: float = PACE_S) -> Machine:
        """Let time pass, with an observation every `pace_s` seconds."""
        until = self.now + seconds
        while self.now < until and not self.has_powered_off:
            self.now += pace_s
            self.observe()
        return self

    @property
    def has_powered_off(self) -> bool:
        return self.monitor.state is State.POWERING_OFF

    @property
    def attempts(self) -> int:
        return sum(isinstance(effect, StopAgent) for effect in self.effects)


def test_an_empty_machine_powers_off_when_its_lease_expires():
    machine = Machine().live(LEASE_S - PACE_S)
    assert not machine.has_powered_off
    machine.live(2 * PACE_S)
    assert machine.has_powered_off
    assert machine.now - 5000 == LEASE_S
    (power_off,) = [effect for effect in machine.effects if isinstance(effect, PowerOff)]
    assert (power_off.lease_s, power_off.silent_s) == (LEASE_S, LEASE_S)
    assert power_off.empty_s >= EMPTY_S


def test_an_empty_machine_runs_while_its_lease_is_renewed():
    machine = Machine()
    for number in range(20):
        machine.mark = str(number)
        machine.live(LEASE_S - 2 * PACE_S)
    assert machine.monitor.state is State.RENEWED
    assert machine.attempts == 0


def test_a_lease_that_exists_at_boot_is_no_renewal():
    machine = Machine().live(PACE_S)
    assert machine.monitor.silent_s == PACE_S


def test_a_lease_that_appears_after_boot_is_a_renewal():
    machine = Machine()
    machine.mark = ""
    machine.live(LEASE_S / 2)
    machine.mark = "1"
    machine.live(PACE_S)
    assert machine.monitor.silent_s == 0


def test_a_lease_that_is_absent_for_a_while_and_unchanged_is_no_renewal():
    machine = Machine().live(100)
    machine.mark = ""
    machine.live(100)
    machine.mark = "1"
    machine.live(100)
    assert machine.monitor.silent_s == 300


def test_an_unreachable_zookeeper_renews_nothing():
    machine = Machine()
    machine.mark = None
    assert machine.live(LEASE_S + PACE_S).has_powered_off


def test_a_busy_machine_powers_off_once_it_was_empty_for_empty_s():
    machine = Machine()
    machine.activity = "busy"
    machine.live(5 * LEASE_S)
    assert machine.monitor.state is State.EXPIRED
    machine.activity = "empty"
    machine.live(EMPTY_S)
    assert not machine.has_powered_off
    assert machine.live(2 * PACE_S).has_powered_off


def test_a_busy_observation_restarts_the_empty_time():
    machine = Machine()
    machine.activity = "busy"
    machine.live(LEASE_S)
    for _ in range(20):
        machine.activity = "empty"
        machine.live(EMPTY_S - PACE_S)
        machine.activity = "busy"
        machine.live(PACE_S)
    assert machine.attempts == 0


def test_an_observation_without_answer_restarts_the_empty_time():
    machine = Machine()
    machine.activity = "busy"
    machine.live(LEASE_S)
    machine.activity = "empty"
    machine.live(EMPTY_S - PACE_S)
    machine.activity = "silent"
    machine.live(PACE_S)
    machine.activity = "empty"
    machine.live(EMPTY_S - PACE_S)
    assert machine.attempts == 0


def test_an_agent_without_answer_for_a_whole_lease_is_stopped():
    machine = Machine()
    machine.activity = "silent"
    machine.live(LEASE_S * 1.5 - PACE_S)
    assert machine.attempts == 0
    assert machine.live(3 * PACE_S).has_powered_off


@pytest.mark.parametrize("remaining", [("sleep",), None])
def test_the_agent_restarts_if_a_task_started_before_it_stopped(remaining):
    machine = Machine()
    machine.remaining = remaining
    machine.live(LEASE_S)
    assert machine.effects == [StopAgent(), RestartAgent()]
    assert machine.monitor.state is State.EXPIRED


def test_each_failed_attempt_doubles_the_required_empty_time():
    machine = Machine(empty_s=100)
    machine.remaining = ("lost-child",)
    machine.live(LEASE_S + 100 * (2 + 4) + 4 * PACE_S)
    assert machine.attempts == 3
    assert machine.monitor.required_empty_s == 800


def test_an_autoscaler_that_is_back_mark_at_verification_keeps_the_machine():
    machine = Machine()
    machine.mark_at_verification = "2"
    machine.live(LEASE_S)
    assert machine.effects == [StopAgent(), Verify(), RestartAgent()]
    machine.live(PACE_S)
    assert machine.monitor.state is State.RENEWED


def test_work_that_only_the_master_has_keeps_the_machine():
    machine = Machine()
    machine.has_work = True
    machine.live(LEASE_S)
    assert machine.effects == [StopAgent(), Verify(), RestartAgent()]


@pytest.mark.parametrize("how", ["off", "protected"])
def test_a_protected_machine_or_one_without_lease_never_powers_off(how):
    machine = Machine()
    machine.terms, machine.is_protected = (
        (Terms(0, EMPTY_S), False) if how == "off" else (None, True)
    )
    machine.live(50 * LEASE_S)
    machine.mark = None  # and the autoscaler dies for good
    machine.live(50 * LEASE_S)
    assert machine.attempts == 0


def test_new_terms_take_effect_at_once():
    machine = Machine()
    machine.terms = Terms(2 * LEASE_S, EMPTY_S)
    assert not machine.live(2 * LEASE_S - PACE_S).has_powered_off
    assert machine.live(PACE_S).has_powered_off


def test_time_in_suspension_does_not_count_as_silence():
    machine = Machine().live(PACE_S)
    machine.now += 100 * LEASE_S
    machine.observe()
    assert machine.monitor.silent_s == PACE_S + LONGEST_INTERVAL_S


def test_time_without_observations_does_not_count_as_empty():
    machine = Machine()
    machine.activity = "busy"
    machine.live(LEASE_S)
    machine.activity = "empty"
    machine.live(PACE_S)
    machine.now += 10 * EMPTY_S
    machine.observe()
    assert machine.monitor.agent.empty_s == 0


def test_a_single_empty_observation_is_not_enough():
    machine = Machine(empty_s=0)
    machine.activity = "busy"
    machine.live(LEASE_S)
    machine.activity = "empty"
    machine.live(PACE_S)
    assert machine.attempts == 0


def test_the_agent_is_not_asked_before_half_of_the_lease():
    machine = Machine().live(LEASE_S / 2 - PACE_S)
    assert not machine.monitor.needs_observation
    machine.live(PACE_S)
    assert machine.monitor.needs_observation


def test_every_state_but_the_last_has_an_edge_and_an_unknown_transition_shows_the_history():
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.POWERING_OFF}
    assert {kind for _, kind in TRANSITIONS} == set(Kind)
    machine = Machine()
    machine.activity = "busy"
    machine.live(LEASE_S)
    with pytest.raises(
        UnknownTransition, match=r"renewed\+expired: lease: stopped in state expired"
    ):
        machine.monitor.handle(AgentStopped(()), machine.now)


class Reference:
    """When the lease was renewed and since when the machine is empty, computed without the monitor.

    A renewal counts from the first observation that can see it.
    """

    def __init__(self) -> None:
        self.machine = Machine(lease_s=60, empty_s=20)
        self.renewed_at = self.machine.now
        self.unread_renewal_at: float | None = None
        self.machine.observe()
        self.busy_at = self.machine.now

    def apply(self, step: tuple[str, float]) -> None:
        what, seconds = step
        machine = self.machine
        match what:
            case "renew":
                machine.mark = str(int(machine.mark or 0) + 1) if machine.mark is not None else None
                self.unread_renewal_at = (
                    machine.now if machine.mark is not None else self.unread_renewal_at
                )
            case "cut off":
                machine.mark = None
                self.unread_renewal_at = None
            case "reach":
                machine.mark = machine.mark or "7"
            case "begin":
                machine.activity, machine.remaining, machine.has_work = "busy", ("task",), True
            case "land unseen":
                machine.remaining = ("task",)
            case "agent away":
                machine.activity = "silent"
            case "end":
                machine.activity, machine.remaining, machine.has_work = "empty", (), None
            case "stand still":
                machine.now += seconds * 100
            case "live":
                self.live(seconds)

    def live(self, seconds: float) -> None:
        machine, until = self.machine, self.machine.now + seconds
        while machine.now < until and not machine.has_powered_off:
            machine.now += 2.0
            if machine.activity == "busy":
                self.busy_at = machine.now
            if self.unread_renewal_at is not None:
                self.renewed_at, self.unread_renewal_at = self.unread_renewal_at, None
            machine.observe()


STEPS = st.tuples(
    st.sampled_from(
        [
            "renew",
            "cut off",
            "reach",
            "begin",
            "land unseen",
            "agent away",
            "end",
            "stand still",
            "live",
            "live",
            "live",
        ]
    ),
    st.integers(1, 70).map(float),
)


@pytest.mark.slow
@settings(max_examples=examples(600), deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_no_machine_powers_off_with_work_or_with_a_valid_lease(steps):
    reference = Reference()
    machine = reference.machine
    for step in steps:
        reference.apply(step)
        if machine.has_powered_off:
            break
    if machine.has_powered_off:
        assert machine.remaining == (), "a task's process was there"
        assert machine.activity != "busy"
        assert machine.has_work is not True
        assert machine.now - reference.renewed_at >= 60
        assert machine.now - reference.busy_at >= (10 if machine.activity == "silent" else 20)
    assert not isinstance(machine.effects[-1], StopAgent | Verify) if machine.effects else True


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_an_abandoned_empty_machine_powers_off_after_any_history(steps):
    reference = Reference()
    for step in steps:
        reference.apply(step)
    reference.apply(("end", 1.0))
    reference.live(60 + 256 * 20 + 60)
    assert reference.machine.has_powered_off
