"""Status update streams, through crashes, lost connections and wrong acknowledgements."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesaform.engine.agent.streams import RETRY, UpdateStreams
from mesaform.mesos.messages import TaskStatus, ident

TASKS = ("a", "b", "c")


def status(number: int, state: str = "TASK_RUNNING", task: str = "a") -> TaskStatus:
    return TaskStatus(task_id=ident(task), state=state, uuid=number.to_bytes(16, "big"))


class Streams(RuleBasedStateMachine):
    """The model has, for each task, its unacknowledged updates and when the first was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: UpdateStreams[str] = UpdateStreams()
        self.waiting: dict[str, list[TaskStatus]] = defaultdict(list)
        self.sent: dict[str, list[float]] = {}
        self.ended: set[str] = set()
        self.connected = False
        self.now = 0.0
        self.numbers = iter(range(1, 10**9))

    def check_sent(self, key: str, sent: list[TaskStatus], *, first: bool) -> None:
        """Compare what was sent with the model, and record the time."""
        if not sent:
            return
        assert self.connected
        assert sent == self.waiting[key][:1]
        self.sent[key] = [self.now] if first else [*self.sent[key], self.now]

    @rule(key=st.sampled_from(TASKS), terminal=st.booleans())
    def a_task_changes(self, key: str, terminal: bool) -> None:
        if key in self.ended:
            return
        update = status(next(self.numbers), "TASK_FAILED" if terminal else "TASK_RUNNING", key)
        if terminal:
            self.ended.add(key)
        self.waiting[key].append(update)
        sent = self.streams.add(key, update, self.now)
        assert bool(sent) == (self.connected and len(self.waiting[key]) == 1)
        self.check_sent(key, sent, first=True)
        assert self.streams.add(key, update, self.now) == []

    @precondition(lambda self: self.connected)
    @rule(key=st.sampled_from(TASKS))
    def it_is_acknowledged(self, key: str) -> None:
        if not self.waiting[key]:
            return
        done = self.waiting[key].pop(0)
        outcome, sent = self.streams.acknowledge(key, done.uuid or b"", self.now)
        assert outcome.is_accepted
        assert outcome.has_ended == (done.state == "TASK_FAILED")
        if outcome.has_ended:
            self.ended.discard(key)
        assert bool(sent) == bool(self.waiting[key])
        self.check_sent(key, sent, first=True)
        repeated, resent = self.streams.acknowledge(key, done.uuid or b"", self.now)
        assert not repeated.is_accepted
        assert resent == []

    @rule(key=st.sampled_from(TASKS), number=st.integers(10**9, 10**9 + 5))
    def a_wrong_acknowledgement_changes_nothing(self, key: str, number: int) -> None:
        outcome, sent = self.streams.acknowledge(key, number.to_bytes(16, "big"), self.now)
        assert not outcome.is_accepted
        assert sent == []

    @precondition(lambda self: not self.connected)
    @rule()
    def a_master_takes_the_agent(self) -> None:
        self.connected = True
        sent = dict(self.streams.connected(self.now))
        assert set(sent) == {key for key, waiting in self.waiting.items() if waiting}
        for key, update in sent.items():
            self.check_sent(key, [update], first=True)

    @precondition(lambda self: self.connected)
    @rule()
    def the_master_is_lost(self) -> None:
        self.connected = False
        self.streams.disconnected()

    @rule()
    def the_agent_crashes_and_recovers(self) -> None:
        pending = {key: self.streams.pending(key) for key in TASKS}
        self.streams = UpdateStreams()
        self.connected = False
        for key, waiting in pending.items():
            if waiting:
                self.streams.restore(key, waiting)

    @rule(seconds=st.sampled_from([0.5, RETRY.first_s, 35.0, RETRY.cap_s]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for key, update in self.streams.due(self.now):
            times = self.sent[key]
            interval = min(RETRY.first_s * 2 ** (len(times) - 1), RETRY.cap_s)
            assert self.now - times[-1] >= interval
            self.check_sent(key, [update], first=False)

    @invariant()
    def pending_is_what_was_not_acknowledged(self) -> None:
        for key in TASKS:
            assert self.streams.pending(key) == self.waiting[key]

    @invariant()
    def it_wakes_exactly_when_something_is_to_be_repeated(self) -> None:
        wanted = [
            self.sent[key][-1] + min(RETRY.first_s * 2 ** (len(self.sent[key]) - 1), RETRY.cap_s)
            for key, waiting in self.waiting.items()
            if waiting and self.connected
        ]
        assert self.streams.next_due() == (min(wanted) if wanted else None)


TestStreams = pytest.mark.slow(Streams.TestCase)


def test_retries_double_from_ten_seconds_to_ten_minutes():
    streams: UpdateStreams[str] = UpdateStreams()
    streams.connected(0.0)
    streams.add("a", status(1), 0.0)
    times: list[float] = []
    while len(times) < 9:
        due = streams.next_due()
        assert due is not None
        assert streams.due(due - 0.001) == []
        assert streams.due(due) == [("a", status(1))]
        times.append(due)
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert gaps == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_an_update_without_a_uuid_is_refused():
    streams: UpdateStreams[str] = UpdateStreams()
    with pytest.raises(ValueError, match="cannot be acknowledged"):
        streams.add("a", TaskStatus(task_id=ident("a"), state="TASK_LOST"), 0.0)
