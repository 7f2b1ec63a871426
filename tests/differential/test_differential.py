"""A part of the differential: hand-written calls that end quickly, and some generated ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from harness.mesos_prefix import PREFIX_VARIABLE, mesos_prefix
from harness.zookeeper import available
from tests.differential.cases import Case, ending, hand_written
from tests.differential.comparison import Answers
from tests.differential.run import Comparer, comparer, run_generated
from tests.differential.table import PAGE, differences, explanation, updated_page

GENERATED = 30
SEED = 17
QUICK_TASKS = 9
"""Of the tasks, each ninth one is sent: Apache Mesos needs a second for one that starts."""


def test_the_page_has_the_table_of_differences():
    page = PAGE.read_text(encoding="utf-8")
    assert page == updated_page(page), "run: python -m tests.differential.table"


def test_each_hand_written_case_has_a_name_of_its_own():
    names = [case.name for case in hand_written()]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparer]:
    prefix = mesos_prefix()
    if prefix is None or not available():
        pytest.skip(f"${PREFIX_VARIABLE} names no installed Apache Mesos, or no ZooKeeper is there")
    with comparer(prefix, tmp_path_factory.mktemp("differential")) as function:
        yield function


def unexplained(answers: Answers) -> bool:
    return answers.differ and explanation(differences(), answers) is None


@pytest.mark.slow
@pytest.mark.zookeeper
@pytest.mark.timeout(240)
def test_hand_written_calls_are_answered_as_by_apache_mesos(compare: Comparer) -> None:
    tasks = [case for case in hand_written() if case.kind in {"task", "accept"}]
    tasks = [case for case in tasks if case not in ending()]
    others = [case for case in hand_written() if case.kind not in {"task", "accept"}]
    answers = [compare(case) for case in [*others, *tasks[::QUICK_TASKS]]]
    assert [entry for entry in answers if unexplained(entry)] == []


@pytest.mark.slow
@pytest.mark.zookeeper
@pytest.mark.timeout(240)
def test_generated_calls_are_answered_as_by_apache_mesos(compare: Comparer) -> None:
    answers: list[Answers] = []
    run_generated(compare, GENERATED, SEED, answers.append)
    assert len(answers) == GENERATED
    assert [entry for entry in answers if unexplained(entry)] == []


def plain_case() -> Case:
    return next(case for case in hand_written() if case.name == "task plain")


@pytest.mark.slow
@pytest.mark.zookeeper
@pytest.mark.timeout(240)
def test_a_call_that_ends_apache_mesos_has_a_reason_and_the_next_one_is_compared(
    compare: Comparer,
) -> None:
    ends = {}
    for case in ending():
        answers = compare(case)
        assert not unexplained(answers), answers
        ends[case.name] = answers.mesos["ends the reference"], answers.mesos["status"]
        assert not unexplained(compare(plain_case()))
    assert ends == {
        "task resource of the type TEXT": ("master", "SIGABRT"),
        "task empty resource allocated to no role": ("agent", "SIGABRT"),
        "task empty resource allocated to another role": ("agent", "SIGABRT"),
    }


@pytest.mark.slow
@pytest.mark.zookeeper
@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", ["agent", "master"])
def test_a_process_of_apache_mesos_that_is_killed_is_named_with_its_signal_and_log(
    compare: Comparer, part: str
) -> None:
    os.kill(compare.reference.processes[part].pid, signal.SIGKILL)
    answers = compare(plain_case())
    seen = answers.mesos
    assert (seen["ends the reference"], seen["status"]) == (part, "SIGKILL")
    assert seen["during"].startswith("task plain, the case before: ")
    assert seen["log"].count("\n") > 3
    assert unexplained(answers), "a reason is of a fault that is known"
    assert not unexplained(compare(plain_case()))
