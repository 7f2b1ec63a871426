"""Calls of the executor API by Mesos' rules."""

from __future__ import annotations

import pytest

from mesaform.engine.master.parse import parse
from mesaform.engine.validation.executor_calls import invalid_executor_call
from mesaform.mesos.executor_api import ExecutorCall

IDS = {"executor_id": {"value": "e"}, "framework_id": {"value": "f"}}
STATUS = {
    "task_id": {"value": "t"},
    "state": "TASK_RUNNING",
    "source": "SOURCE_EXECUTOR",
    "uuid": "AAAAAAAAQACAAAAAAAAAAA==",
}


def problem_of(**call: object) -> str | None:
    return invalid_executor_call(parse(IDS | call, ExecutorCall))


def update(**status: object) -> str | None:
    return problem_of(type="UPDATE", update={"status": STATUS | status})


def test_valid_calls_have_no_problem():
    assert problem_of(type="HEARTBEAT") is None
    assert problem_of(type="SUBSCRIBE", subscribe={}) is None
    assert update() is None


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"uuid": None}, "Expecting 'uuid' to be present"),
        ({"uuid": "AAAA"}, "Not a valid UUID"),
        ({"executor_id": {"value": "x"}}, "does not match ExecutorID in TaskStatus: x"),
        ({"source": "SOURCE_AGENT"}, "expecting 'SOURCE_EXECUTOR'"),
        ({"state": "TASK_STAGING"}, "TASK_STAGING from executor e of framework f"),
        ({"check_status": {}}, "CheckStatusInfo must specify 'type'"),
        ({"check_status": {"type": "TCP"}}, "Expecting 'tcp' to be set"),
    ],
)
def test_an_update_that_mesos_refuses_has_its_words(status, text):
    assert text in (update(**status) or "")


def test_a_call_needs_a_type_and_its_body():
    assert problem_of() == "Expecting 'type' to be present"
    assert problem_of(type="MESSAGE") == "Expecting 'message' to be present"
