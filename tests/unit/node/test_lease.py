"""The dead man's lease, decided: by example, and in every order of events that a machine may live through."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.node.lease_monitor import (
    COUNTS_AT_MOST_S,
    TRANSITIONS,
    Asked,
    Effect,
    Held,
    Hold,
    Kind,
    LeaseMonitor,
    Leave,
    LookAgain,
    Looked,
    Release,
    Released,
    Seen,
    State,
    Terms,
    UnknownTransition,
    Unseen,
)
from tests.support.profiles import examples

LEASE_S, EMPTY_S, PACE_S = 600.0, 100.0, 10.0


class Machine:
    """A watch, its time, and what the world says when it is looked at."""

    def __init__(self, lease_s: float = LEASE_S, empty_s: float = EMPTY_S) -> None:
        self.now = 5000.0
        self.watch = LeaseMonitor(Terms(lease_s, empty_s), self.now)
        self.mark: str | None = "1"
        self.terms: Terms | None = None
        self.spared = False
        self.found = "empty"
        self.left: tuple[str, ...] | None = ()
        self.at_the_last_look: str | None = None  # the lease's mark then, when it is another one
        self.master: bool | None = None
        self.done: list[Effect] = []

    def lease(self) -> Seen | Unseen:
        return Unseen() if self.mark is None else Seen(self.mark, self.terms, self.spared)

    def feed(self, event) -> None:
        for effect in self.watch.handle(event, self.now):
            self.done.append(effect)
            match effect:
                case Hold():
                    self.feed(Held(self.left))
                case LookAgain():
                    self.mark = self.at_the_last_look or self.mark
                    self.feed(self.lease())
                    if self.watch.state is State.LOOKING:
                        self.feed(Asked(self.master))
                case Release():
                    self.feed(Released())

    def look(self) -> None:
        self.feed(self.lease())
        if self.watch.wants_look:
            self.feed(Looked(self.found))  # type: ignore[arg-type]

    def live(self, seconds: float, pace_s: float = PACE_S) -> Machine:
        """So long, looking every `pace_s`."""
        until = self.now + seconds
        while self.now < until and not self.has_left:
            self.now += pace_s
            self.look()
        return self

    @property
    def has_left(self) -> bool:
        return self.watch.state is State.LEAVING

    @property
    def held(self) -> int:
        return sum(isinstance(effect, Hold) for effect in self.done)


def test_an_empty_machine_leaves_when_its_lease_was_not_renewed_for_so_long():
    machine = Machine().live(LEASE_S - PACE_S)
    assert not machine.has_left
    machine.live(2 * PACE_S)
    assert machine.has_left
    assert machine.now - 5000 == LEASE_S
    (left,) = [effect for effect in machine.done if isinstance(effect, Leave)]
    assert (left.lease_s, left.silent_s) == (LEASE_S, LEASE_S)
    assert left.empty_s >= EMPTY_S


def test_a_lease_that_is_renewed_in_time_keeps_an_empty_machine_for_ever():
    machine = Machine()
    for number in range(20):
        machine.mark = str(number)
        machine.live(LEASE_S - 2 * PACE_S)
    assert machine.watch.state is State.KEPT
    assert machine.held == 0


def test_an_old_lease_that_is_there_when_the_machine_boots_is_no_renewal_and_no_silence():
    machine = Machine().live(PACE_S)
    assert machine.watch.silent_s == PACE_S


def test_a_lease_that_appears_while_one_listens_is_a_renewal():
    machine = Machine()
    machine.mark = ""
    machine.live(LEASE_S / 2)
    machine.mark = "1"
    machine.live(PACE_S)
    assert machine.watch.silent_s == 0


def test_a_lease_that_vanishes_and_is_back_as_it_was_is_no_renewal():
    machine = Machine().live(100)
    machine.mark = ""
    machine.live(100)
    machine.mark = "1"
    machine.live(100)
    assert machine.watch.silent_s == 300


def test_zookeeper_out_of_reach_is_silence():
    machine = Machine()
    machine.mark = None
    assert machine.live(LEASE_S + PACE_S).has_left


def test_a_busy_machine_stays_and_leaves_once_it_was_empty_for_all_the_time_asked_for():
    machine = Machine()
    machine.found = "busy"
    machine.live(5 * LEASE_S)
    assert machine.watch.state is State.SILENT
    machine.found = "empty"
    machine.live(EMPTY_S)
    assert not machine.has_left
    assert machine.live(2 * PACE_S).has_left


def test_one_busy_look_begins_the_wait_anew():
    machine = Machine()
    machine.found = "busy"
    machine.live(LEASE_S)
    for _ in range(20):
        machine.found = "empty"
        machine.live(EMPTY_S - PACE_S)
        machine.found = "busy"
        machine.live(PACE_S)
    assert machine.held == 0


def test_an_agent_that_once_does_not_answer_is_not_known_to_have_been_empty():
    machine = Machine()
    machine.found = "busy"
    machine.live(LEASE_S)
    machine.found = "empty"
    machine.live(EMPTY_S - PACE_S)
    machine.found = "silent"
    machine.live(PACE_S)
    machine.found = "empty"
    machine.live(EMPTY_S - PACE_S)
    assert machine.held == 0


def test_an_agent_that_has_not_answered_for_a_whole_lease_is_looked_into():
    machine = Machine()
    machine.found = "silent"
    machine.live(LEASE_S * 1.5 - PACE_S)
    assert machine.held == 0
    assert machine.live(3 * PACE_S).has_left


@pytest.mark.parametrize("left", [("sleep",), None])
def test_what_landed_before_the_agent_stopped_is_gone_on_with(left):
    machine = Machine()
    machine.left = left
    machine.live(LEASE_S)
    assert machine.done == [Hold(), Release()]
    assert machine.watch.state is State.SILENT


def test_after_each_attempt_in_vain_the_machine_waits_twice_as_long():
    machine = Machine(empty_s=100)
    machine.left = ("lost-child",)
    machine.live(LEASE_S + 100 * (2 + 4) + 4 * PACE_S)
    assert machine.held == 3
    assert machine.watch.needed_s == 800


def test_an_autoscaler_that_is_back_at_the_last_look_keeps_the_machine():
    machine = Machine()
    machine.at_the_last_look = "2"
    machine.live(LEASE_S)
    assert machine.done == [Hold(), LookAgain(), Release()]
    machine.live(PACE_S)
    assert machine.watch.state is State.KEPT


def test_work_that_only_the_master_knows_of_keeps_the_machine():
    machine = Machine()
    machine.master = True
    machine.live(LEASE_S)
    assert machine.done == [Hold(), LookAgain(), Release()]


@pytest.mark.parametrize("how", ["off", "spared"])
def test_a_lease_that_is_off_or_a_protected_machine_never_ends(how):
    machine = Machine()
    machine.terms, machine.spared = (Terms(0, EMPTY_S), False) if how == "off" else (None, True)
    machine.live(50 * LEASE_S)
    machine.mark = None  # and the autoscaler dies for good
    machine.live(50 * LEASE_S)
    assert machine.held == 0


def test_terms_that_the_autoscaler_tells_count_at_once():
    machine = Machine()
    machine.terms = Terms(2 * LEASE_S, EMPTY_S)
    assert not machine.live(2 * LEASE_S - PACE_S).has_left
    assert machine.live(PACE_S).has_left


def test_time_in_which_the_machine_stood_still_is_not_silence():
    machine = Machine().live(PACE_S)
    machine.now += 100 * LEASE_S
    machine.look()
    assert machine.watch.silent_s == PACE_S + COUNTS_AT_MOST_S


def test_time_in_which_nobody_looked_is_not_known_to_have_been_empty():
    machine = Machine()
    machine.found = "busy"
    machine.live(LEASE_S)
    machine.found = "empty"
    machine.live(PACE_S)
    machine.now += 10 * EMPTY_S
    machine.look()
    assert machine.watch.empty_s == 0


def test_an_agent_seen_empty_once_is_not_empty_yet_whatever_the_terms_say():
    machine = Machine(empty_s=0)
    machine.found = "busy"
    machine.live(LEASE_S)
    machine.found = "empty"
    machine.live(PACE_S)
    assert machine.held == 0


def test_the_agent_is_left_alone_until_half_of_the_lease_is_over():
    machine = Machine().live(LEASE_S / 2 - PACE_S)
    assert not machine.watch.wants_look
    machine.live(PACE_S)
    assert machine.watch.wants_look


def test_every_state_but_the_last_has_a_way_on_and_an_unasked_answer_is_a_fault_with_its_history():
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.LEAVING}
    assert {kind for _, kind in TRANSITIONS} == set(Kind)
    machine = Machine()
    machine.found = "busy"
    machine.live(LEASE_S)
    with pytest.raises(UnknownTransition, match=r"held while silent; before that: kept\+ran-out"):
        machine.watch.handle(Held(()), machine.now)


class Truth:
    """What is true of a made-up life, kept apart from the watch: who renewed when, since when the machine is empty.

    A renewal counts from the first look that could see it: of one just before ZooKeeper went out of reach nobody can know.
    """

    def __init__(self) -> None:
        self.machine = Machine(lease_s=60, empty_s=20)
        self.renewed_at = self.machine.now
        self.unseen_at: float | None = None
        self.machine.look()  # the service looks as soon as it is there
        self.busy_at = self.machine.now

    def apply(self, step: tuple[str, float]) -> None:
        what, seconds = step
        machine = self.machine
        match what:
            case "renew":
                machine.mark = str(int(machine.mark or 0) + 1) if machine.mark is not None else None
                self.unseen_at = machine.now if machine.mark is not None else self.unseen_at
            case "cut off":
                machine.mark = None
                self.unseen_at = None
            case "reach":
                machine.mark = machine.mark or "7"
            case "begin":
                machine.found, machine.left, machine.master = "busy", ("task",), True
            case "land unseen":
                machine.left = ("task",)
            case "agent away":
                machine.found = "silent"
            case "end":
                machine.found, machine.left, machine.master = "empty", (), None
            case "stand still":
                machine.now += seconds * 100
            case "live":
                self.live(seconds)

    def live(self, seconds: float) -> None:
        machine, until = self.machine, self.machine.now + seconds
        while machine.now < until and not machine.has_left:
            machine.now += 2.0
            if machine.found == "busy":  # what only the last look can find is asserted by `left`
                self.busy_at = machine.now
            if self.unseen_at is not None:
                self.renewed_at, self.unseen_at = self.unseen_at, None
            machine.look()


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


@settings(max_examples=examples(600), deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_no_machine_leaves_with_work_or_within_its_lease(steps):
    truth = Truth()
    machine = truth.machine
    for step in steps:
        truth.apply(step)
        if machine.has_left:
            break
    if machine.has_left:
        assert machine.left == (), "a task's process was there"
        assert machine.found != "busy"
        assert machine.master is not True
        assert machine.now - truth.renewed_at >= 60
        assert machine.now - truth.busy_at >= (10 if machine.found == "silent" else 20)
    assert not isinstance(machine.done[-1], Hold | LookAgain) if machine.done else True


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_whatever_happened_before_an_abandoned_empty_machine_leaves_in_the_end(steps):
    truth = Truth()
    for step in steps:
        truth.apply(step)
    truth.apply(("end", 1.0))
    truth.live(60 + 256 * 20 + 60)
    assert truth.machine.has_left
