"""Any message of a master is handled, refused with TASK_ERROR, or ignored; the agent goes on."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesaform.engine import link
from mesaform.engine.agent.containerizer import ContainerSpec
from mesaform.engine.agent.events import Exited, Send, StartContainer
from mesaform.engine.agent.layout import TASK
from mesaform.engine.agent.tasks import SavedTask
from mesaform.engine.link_validation import RejectedLaunch, problem_of, read_from_master
from tests.support.profiles import examples
from tests.support.struct_strategies import as_msgpack, damaged, documents, mistaken
from tests.unit.engine_agent.builders import Scenario, framework, statuses, task

HANDLED = (
    link.Launch | link.Kill | link.Acknowledge | link.Drain | link.Undrain | link.ShutdownFramework
)
IDS = {
    "task_id": st.fixed_dictionaries({"value": st.sampled_from(["t", "u", "../x", ""])}),
    "framework_id": st.sampled_from(["fw", "other", "a/b"]),
}


@pytest.mark.slow
@given(st.lists(damaged(mistaken(documents(HANDLED, IDS)).map(as_msgpack)), max_size=4))
@settings(
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_no_message_of_a_master_harms_another_task(messages):
    scenario = Scenario()
    lives = scenario.run(task("lives"), framework(named="mine"))
    for data in messages:
        try:
            message = read_from_master(data)
        except link.BadMessage:
            continue
        if isinstance(message, link.LinkMessage) and not isinstance(message, HANDLED):
            continue  # the daemon handles those
        effects = scenario.happens(message)
        for effect in effects:
            if isinstance(effect, Send):
                assert problem_of(effect.update) is None, "the master would refuse this update"
            if isinstance(effect, StartContainer):
                ContainerSpec.of(effect.record)
                saved = SavedTask(effect.record, [])
                assert isinstance(TASK.decode(TASK.encode(saved)), SavedTask)
    scenario.happens(link.Undrain())
    ended = statuses(scenario.happens(Exited(lives, 0)))
    record = scenario.core.tasks.get(("mine", "lives"))
    assert record is None or record.is_over
    assert not ended or ended[-1].state in {"TASK_FINISHED", "TASK_KILLED"}


def test_a_launch_that_cannot_be_decoded_is_answered_with_the_ids_in_it():
    scenario = Scenario()
    document = msgspec.to_builtins(link.Launch(framework(), task("bad")), builtin_types=(bytes,))
    document["task"]["resources"] = "all"
    rejected = read_from_master(msgspec.msgpack.encode(document))
    assert isinstance(rejected, RejectedLaunch)
    (status,) = statuses(scenario.happens(rejected))
    assert (status.task_id.value, status.state, status.reason) == (
        "bad",
        "TASK_ERROR",
        "REASON_TASK_INVALID",
    )
    assert "resources" in (status.message or "")


def test_an_event_that_the_agent_fails_to_handle_ends_its_task_at_once():
    scenario = Scenario()
    container_id = scenario.run(task("t"))
    scenario.run(task("u"))
    event = Exited(container_id, 0)
    effects = scenario.core.fail_task(event, "the reason", scenario.now)
    (status,) = statuses(effects)
    assert (status.task_id.value, status.state, status.message) == (
        "t",
        "TASK_FAILED",
        "the reason",
    )
    assert scenario.core.fail_task(event, "again", scenario.now) == []
    assert not scenario.core.tasks["fw", "u"].is_over
