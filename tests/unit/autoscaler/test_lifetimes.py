"""What is learned of how long work goes on, and what is made of it."""

from __future__ import annotations

from mesaform.autoscaler.forecasting.lifetimes import (
    ENOUGH,
    FADES_AT,
    NAMES_AT_MOST,
    ends_within_s,
    lasts_s,
    learned,
)
from mesaform.autoscaler.model.cluster_tasks import Seen
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView
from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation import mesos_parsers
from mesaform.autoscaler.observation.mesos_agent_parser import from_json as agents_from_json
from mesaform.autoscaler.planner.observed_state import with_lifetimes

HOUR_S = 3600.0


def lives(*ran_s: float, name: str = "/web"):
    return learned({}, [Ended(name, item, 1.0) for item in ran_s])[name]


def test_what_is_not_known_lasts_as_long_again():
    assert lasts_s(None, 2 * HOUR_S) == 2 * HOUR_S
    assert ends_within_s(None, 2 * HOUR_S) is None


def test_tasks_of_a_name_are_expected_to_last_as_its_tasks_did():
    known = lives(*[1000.0] * 40)
    assert 500 <= lasts_s(known, 0.0) <= 1024
    assert 500 <= ends_within_s(known, 0.0) <= 1024
    assert ends_within_s(known, 900.0) <= 124


def test_the_old_are_compared_with_those_that_got_as_old():
    known = lives(*[60.0] * 100, *[10 * HOUR_S] * 20)
    assert lasts_s(known, 0.0) < 120
    assert lasts_s(known, 600.0) > HOUR_S


def test_a_history_of_few_is_not_believed():
    assert ends_within_s(lives(*[60.0] * int(ENOUGH - 1)), 0.0) is None
    assert lasts_s(lives(*[60.0] * 50), 40 * HOUR_S) == 40 * HOUR_S  # none of them got that old


def test_lifetimes_beyond_every_step_have_no_end():
    assert ends_within_s(lives(*[1e12] * 20), 0.0) is None


def test_guesses_are_never_negative_and_grow_with_what_was_seen():
    for age_s in (0.0, 10.0, 17.0, 1000.0, 1e6):
        short, long = lives(*[100.0] * 30, *[2e6] * 10), lives(*[100.0] * 10, *[2e6] * 30)
        assert 0 <= lasts_s(short, age_s) <= lasts_s(long, age_s)


def test_what_is_old_news_fades():
    known = learned({}, [Ended("/web", 60.0, 1.0)] * int(FADES_AT))
    known = learned(known, [Ended("/web", 10 * HOUR_S, 2.0)] * int(FADES_AT))
    assert sum(known["/web"]) <= FADES_AT + 1
    assert lasts_s(known["/web"], 0.0) < HOUR_S
    known = learned(known, [Ended("/web", 10 * HOUR_S, 3.0)] * int(FADES_AT))
    assert lasts_s(known["/web"], 0.0) > HOUR_S


def test_only_so_many_names_are_kept_those_with_the_most_to_tell():
    ended = [Ended(f"/app-{n}", 60.0, 1.0) for n in range(NAMES_AT_MOST + 10)] + [
        Ended("/often", 60.0, 1.0)
    ] * 3
    known = learned({}, ended)
    assert len(known) == NAMES_AT_MOST
    assert "/often" in known


def test_a_task_that_the_engine_lists_again_counts_once():
    view = ClusterView(ended=(Ended("/web", 60.0, 100.0),))
    memory = with_lifetimes(with_lifetimes(PlannerState(), view), view)
    assert sum(memory.lifetimes["/web"]) == 1
    later = with_lifetimes(memory, ClusterView(ended=(*view.ended, Ended("/web", 60.0, 101.0))))
    assert sum(later.lifetimes["/web"]) == 2


def completed(
    app: str | None = "/web", since: float = 100.0, ended: float = 160.0, agent_id: str = "A-1"
) -> Seen:
    return Seen("task-1", agent_id, "F-1", app, make(1, 1024), since=since, ended=ended)


def seen(*tasks: Seen, detailed: bool = True) -> tuple[Ended, ...]:
    frameworks = {"frameworks": [{"framework_info": {"id": {"value": "F-1"}, "name": "batch"}}]}
    return mesos_parsers.cluster_view(
        mesos_parsers.MasterAnswers(agents_from_json({}), (), frameworks, {}, over=tasks),
        detailed=detailed,
    ).ended


def test_the_engine_states_how_long_ended_tasks_ran():
    assert seen(completed()) == (Ended("/web", 60.0, 160.0, "A-1"),)
    assert seen(completed(app=None)) == (Ended("batch", 60.0, 160.0, "A-1"),)


def test_tasks_whose_times_are_not_known_teach_nothing():
    assert seen(completed(since=0.0), completed(ended=0.0), completed(since=170.0)) == ()


def test_nothing_is_read_of_ended_tasks_where_nothing_may_be_moved():
    assert seen(completed(), detailed=False) == ()


def test_tasks_that_were_moved_off_their_agent_teach_nothing():
    ended = (
        Ended("/web", 60.0, 100.0, "A-1"),
        Ended("/web", 60.0, 100.0, "A-2"),
        Ended("/web", 60.0, 100.0, "A-3"),
    )
    working, leaving = (
        Agent("A-1", "h-1", {}, make(2, 2048)),
        Agent("A-2", "h-2", {}, make(2, 2048), active=False, deactivated=True),
    )
    memory = with_lifetimes(PlannerState(), ClusterView((working, leaving), ended=ended))
    assert sum(memory.lifetimes["/web"]) == 1
    assert memory.lifetimes_until == 100.0
