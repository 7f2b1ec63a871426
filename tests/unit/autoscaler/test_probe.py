"""State machine of the probe framework: it asks on suspicion, returns all offers, and leaves."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.autoscaler.model.planner_state import Finding
from mesaform.autoscaler.model.shape import Shape, make, text
from mesaform.autoscaler.observation import probe
from mesaform.autoscaler.observation.probe import (
    Ask,
    Decline,
    Event,
    Leave,
    ProbeState,
    Seen,
    Subscribe,
    Suppress,
    handle,
)
from tests.support.profiles import examples

BIG, SMALL = make(4, 4096), make(1, 512)


class Life:
    """The state of a probe, its effects so far, and a clock."""

    def __init__(self) -> None:
        self.state, self.now = ProbeState(), 1000.0
        self.effects: list[probe.Effect] = []

    def tell(
        self,
        kind: probe.Input,
        *,
        after_s: float = 0.0,
        shapes: tuple[Shape, ...] = (),
        offers: tuple[Seen, ...] = (),
    ) -> list:
        self.now += after_s
        self.state, effects = handle(self.state, Event(kind, shapes, offers), self.now)
        self.effects += effects
        return effects

    def asking(self, *shapes: Shape) -> Life:
        self.tell("wanted", shapes=shapes or (BIG,))
        self.tell("subscribed")
        return self

    def quiet(self, *shapes: Shape) -> Life:
        self.asking(*shapes)
        self.tell("tick", after_s=4)
        return self


def offer(shape: Shape, number: str = "o1") -> Seen:
    return Seen(number, shape, "10.0.0.1")


def test_nothing_is_subscribed_while_nobody_is_suspected():
    life = Life()
    assert life.tell("wanted") == []
    assert life.tell("tick", after_s=1000) == []
    assert life.state.state == "away"


def test_a_suspicion_subscribes_and_asks_for_offers_of_that_size():
    life = Life()
    assert life.tell("wanted", shapes=(BIG,)) == [Subscribe()]
    assert life.tell("subscribed") == [Ask((BIG,))]


def test_three_rounds_without_an_offer_are_dry_and_then_it_is_silent():
    life = Life().asking()
    assert life.tell("tick", after_s=3.4) == []
    assert life.tell("tick", after_s=0.1) == [Suppress()]
    assert probe.known(life.state, life.now) == {text(BIG): Finding(life.now, offered=False)}


def test_an_offer_that_is_large_enough_is_given_back_and_ends_the_question():
    life = Life().asking()
    assert life.tell("offers", after_s=1, offers=(offer(make(8, 8192, 100, 0, 5)),)) == [
        Decline(("o1",), probe.REFUSE_S),
        Suppress(),
    ]
    assert probe.known(life.state, life.now) == {
        text(BIG): Finding(life.now, offered=True, where="10.0.0.1")
    }


def test_a_smaller_offer_is_given_back_and_says_nothing_of_the_larger_shape():
    life = Life().asking(BIG, SMALL)
    assert life.tell("offers", offers=(offer(make(2, 1024)),)) == [Decline(("o1",), probe.REFUSE_S)]
    assert life.tell("tick", after_s=4) == [Suppress()]
    assert {name: item.offered for name, item in probe.known(life.state, life.now).items()} == {
        text(BIG): False,
        text(SMALL): True,
    }


def test_an_offer_that_crosses_the_silence_is_given_back():
    life = Life().quiet()
    assert life.tell("offers", offers=(offer(BIG), offer(BIG, "o2"))) == [
        Decline(("o1", "o2"), probe.REFUSE_S)
    ]
    assert life.state.findings[text(BIG)].offered is False


def test_a_finding_is_not_asked_for_again_before_it_is_old():
    life = Life().quiet()
    assert life.tell("wanted", after_s=29, shapes=(BIG,)) == []
    assert life.tell("wanted", after_s=2, shapes=(BIG,)) == [Ask((BIG,))]


def test_an_old_answer_does_not_answer_a_new_question():
    life = Life().asking()
    life.tell("offers", offers=(offer(BIG),))
    assert life.tell("wanted", after_s=31, shapes=(BIG, SMALL)) == [Ask((BIG, SMALL))]
    assert life.tell("offers", offers=(offer(SMALL),)) == [Decline(("o1",), probe.REFUSE_S)]
    assert life.state.open == (BIG,)


def test_what_is_newly_suspected_is_asked_at_once_and_only_that():
    life = Life().quiet()
    assert life.tell("wanted", shapes=(BIG, SMALL)) == [Ask((SMALL,))]


def test_a_new_stream_begins_the_question_again_and_a_lost_one_answers_nothing():
    life = Life().asking()
    life.tell("lost", after_s=3.2)
    assert life.tell("tick", after_s=60) == []
    assert life.state.findings == {}
    assert life.tell("subscribed") == [Ask((BIG,))]
    assert life.tell("tick", after_s=3) == []


def test_a_new_stream_while_nothing_is_asked_is_silenced_at_once():
    life = Life().quiet()
    assert life.tell("subscribed", after_s=1) == [Suppress()]


def test_it_leaves_when_nobody_was_suspected_for_ten_minutes_and_comes_back():
    life = Life().quiet()
    life.tell("wanted")
    assert life.tell("tick", after_s=599) == []
    assert life.tell("tick", after_s=2) == [Leave()]
    life.tell("removed")
    assert life.tell("wanted", shapes=(BIG,)) == [Subscribe()]


def test_a_removed_framework_begins_anew_with_the_next_suspicion():
    life = Life().asking()
    life.tell("removed")
    assert life.state.state == "away"
    assert life.tell("wanted", shapes=(BIG,)) == [Subscribe()]


@pytest.mark.parametrize("outcome", [Life().asking, Life().quiet])
def test_the_end_of_a_term_tears_it_down(outcome):
    life = outcome()
    assert life.tell("stop") == [Leave()]
    assert life.tell("subscribed") == [Leave()], "the word did not arrive: it is said again"


def test_findings_grow_old():
    life = Life().quiet()
    assert probe.known(life.state, life.now + 59)
    assert not probe.known(life.state, life.now + 61)


def test_what_the_table_does_not_know_raises_with_what_happened_before():
    with pytest.raises(probe.UnknownEdge) as caught:
        handle(ProbeState(history=("away, wanted",)), Event("subscribed"), 0.0)
    assert caught.value.where == "away, wanted"


def test_shapes_are_declared_as_the_smallest_useful_offers():
    filters = probe.shapes_as_filters([make(0.5, 128), make(gpus=1)])
    assert msgspec.to_builtins(filters) == {
        "min_allocatable_resources": {
            "quantities": [
                {"quantities": {"cpus": {"value": 0.5}, "mem": {"value": 128}}},
                {"quantities": {"gpus": {"value": 1}}},
            ]
        }
    }


SHAPES = st.sampled_from([BIG, SMALL, make(0.1, 64)])
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["wanted", "subscribed", "offers", "tick", "lost", "removed", "stop"]),
        st.floats(0, 40),
        st.lists(SHAPES, max_size=3, unique=True),
    ),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(HAPPENINGS)
def test_whatever_happens_nothing_is_kept_and_offers_are_asked_for_only_while_somebody_is_suspected(
    happenings,
):
    life, suppressed = Life(), True
    for kind, after_s, shapes in happenings:
        if (life.state.state, kind) not in probe.EDGES:
            continue
        offers = (
            tuple(offer(shape, f"o{index}") for index, shape in enumerate(shapes))
            if kind == "offers"
            else ()
        )
        effects = life.tell(
            kind, after_s=after_s, shapes=tuple(shapes) if kind == "wanted" else (), offers=offers
        )
        if offers and life.state.state != "away":
            assert any(
                isinstance(item, Decline) and set(item.offer_ids) == {o.offer_id for o in offers}
                for item in effects
            )
        if kind == "subscribed":
            suppressed = False
        for effect in effects:
            suppressed = isinstance(effect, Suppress) or (
                suppressed and not isinstance(effect, Ask)
            )
            if isinstance(effect, Ask):
                assert set(effect.shapes) <= set(life.state.wanted)
        if life.state.state == "quiet":
            assert suppressed
        assert (life.state.state == "asking") == bool(life.state.open)
