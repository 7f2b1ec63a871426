from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.resources import EMPTY, Resources
from mesaform.mesos.messages import Attribute, Offer, TaskStatus, from_wire, ident, to_wire
from mesaform.mesos.run_state import Execution, Job, environment, exit_code
from mesaform.mesos.scheduler_api import Call, Event, Offers, Subscribed, Update
from mesaform.mesos.values import Text

SHAPE = Resources.of(cpus=1, mem_mib=64)


def a_job(instances: int = 1, *command: str) -> Job:
    return Job("hello", command or ("true",), SHAPE, instances)


def offers(*amounts: tuple[float, float]) -> Event:
    messages = [
        Offer(
            id=ident(f"o{index}"),
            framework_id=ident("f"),
            agent_id=ident(f"a{index}"),
            hostname=f"h{index}",
            resources=to_wire(Resources.of(cpus=cpus, mem_mib=mem), role="*"),
        )
        for index, (cpus, mem) in enumerate(amounts)
    ]
    return Event(type="OFFERS", offers=Offers(offers=messages))


def update(task_id: str, state: str, message: str | None = None) -> Event:
    status = TaskStatus(
        task_id=ident(task_id), state=state, message=message, agent_id=ident("a0"), uuid=b"u" * 16
    )
    return Event(type="UPDATE", update=Update(status=status))


def launched(calls: list[Call]) -> list[str]:
    return [
        info.task_id.value
        for call in calls
        if call.accept
        for operation in call.accept.operations
        for info in operation.task_infos
    ]


@pytest.mark.parametrize(
    ("state", "message", "code"),
    [
        ("TASK_FINISHED", "Command exited with status 0", 0),
        ("TASK_FAILED", "Command exited with status 3", 3),
        ("TASK_FAILED", "Command terminated with signal Killed", 137),
        ("TASK_KILLED", "Command terminated with signal Terminated", 143),
        ("TASK_FAILED", "Command terminated with signal Segmentation fault (core dumped)", 139),
        ("TASK_GONE", None, 1),
        ("TASK_ERROR", "no such user", 1),
    ],
)
def test_an_exit_code_is_that_of_a_shell(state: str, message: str | None, code: int) -> None:
    assert exit_code(TaskStatus(task_id=ident("t"), state=state, message=message)) == code


def test_several_arguments_are_an_argv_and_a_single_one_is_a_shell_line() -> None:
    argv = a_job(1, "sh", "-c", "exit 3").command_info()
    assert (argv.shell, argv.value, argv.arguments) == (False, "sh", ["sh", "-c", "exit 3"])
    line = a_job(1, "exit 3").command_info()
    assert (line.shell, line.value) == (True, "exit 3")


def test_the_framework_declares_the_smallest_useful_offer() -> None:
    filters = a_job().framework().offer_filters
    assert msgspec.to_builtins(filters) == {
        "*": {
            "min_allocatable_resources": {
                "quantities": [{"quantities": {"cpus": {"value": 1}, "mem": {"value": 64}}}]
            }
        }
    }


def test_many_tasks_share_an_offer_and_the_rest_waits_with_a_reason() -> None:
    execution = Execution(a_job(5), "x")
    calls = execution.handle(offers((2, 4096), (0.5, 4096)))
    assert launched(calls) == ["hello-0.x", "hello-1.x"]
    assert calls[-1].type == "DECLINE"
    assert (
        "3 of 5 tasks wait for an offer of cpus:1;mem:64; 1 offers were too small, "
        "the largest had cpus:0.5;mem:4096" in execution.why_waiting()
    )


def test_offers_are_suppressed_when_all_is_launched() -> None:
    execution = Execution(a_job(), "x")
    assert [call.type for call in execution.handle(offers((2, 4096), (2, 4096)))] == [
        "ACCEPT",
        "DECLINE",
        "SUPPRESS",
    ]


def test_the_first_failure_in_time_is_the_job_s() -> None:
    execution = Execution(a_job(3), "x")
    execution.handle(offers((8, 4096)))
    execution.handle(update("hello-0.x", "TASK_FINISHED", "Command exited with status 0"))
    execution.handle(update("hello-2.x", "TASK_FAILED", "Command exited with status 7"))
    execution.handle(update("hello-1.x", "TASK_FAILED", "Command exited with status 3"))
    assert execution.is_done
    assert execution.exit_code == 7


def test_a_launch_that_did_not_reach_its_agent_is_repeated_with_a_new_id() -> None:
    execution = Execution(a_job(), "x")
    first = launched(execution.handle(offers((8, 4096))))
    execution.handle(update(first[0], "TASK_DROPPED", "Task launched with invalid offers"))
    assert not execution.is_done
    second = launched(execution.handle(offers((8, 4096))))
    assert len(second) == 1
    assert second != first


def test_live_tasks_are_reconciled_after_a_new_subscription() -> None:
    execution = Execution(a_job(), "x")
    subscribed = Event(type="SUBSCRIBED", subscribed=Subscribed(framework_id=ident("f")))
    assert execution.handle(subscribed) == []
    execution.handle(offers((8, 4096)))
    [call] = execution.handle(subscribed)
    assert call.reconcile is not None
    assert call.reconcile.tasks[0].task_id.value == "hello.x"
    execution.handle(update("hello.x", "TASK_UNKNOWN"))
    assert (execution.is_done, execution.exit_code) == (True, 1)


def test_stopping_kills_live_tasks_and_launches_no_more() -> None:
    execution = Execution(a_job(3), "x")
    execution.handle(offers((2, 4096)))
    assert [call.kill.task_id.value for call in execution.stop() if call.kill] == [
        "hello-0.x",
        "hello-1.x",
    ]
    assert launched(execution.handle(offers((8, 4096)))) == []
    for task in ("hello-0.x", "hello-1.x"):
        execution.handle(update(task, "TASK_KILLED"))
    assert execution.is_done


@given(
    st.integers(1, 12),
    st.lists(st.lists(st.tuples(st.floats(0, 6), st.floats(0, 600)), max_size=4), max_size=6),
)
def test_no_task_is_launched_twice_nor_beyond_its_offer(
    instances: int, rounds: list[list[tuple[float, float]]]
) -> None:
    execution = Execution(a_job(instances), "x")
    seen: list[str] = []
    for amounts in rounds:
        event = offers(*amounts)
        assert event.offers is not None
        by_id = {offer.id.value: from_wire(offer.resources) for offer in event.offers.offers}
        answered: list[str] = []
        for call in execution.handle(event):
            body = call.accept or call.decline
            answered += [item.value for item in body.offer_ids] if body else []
            if call.accept:
                taken = EMPTY
                for info in call.accept.operations[0].task_infos:
                    taken = taken + from_wire(info.resources)
                    seen.append(info.task_id.value)
                assert by_id[call.accept.offer_ids[0].value].contains(taken)
        assert sorted(answered) == sorted(by_id)
    assert len(seen) == len(set(seen)) <= instances


def test_environment_arguments_need_a_name_and_a_value() -> None:
    assert environment(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    for word in ("A", "=1"):
        with pytest.raises(ValueError, match=word):
            environment([word])


def test_the_message_of_a_task_has_the_external_cause_of_its_end() -> None:
    execution = Execution(a_job(), "u")
    [task] = launched(execution.handle(offers((1, 128))))
    message = "Command terminated with signal Terminated"
    status = TaskStatus(
        task_id=ident(task),
        state="TASK_KILLED",
        message=message,
        reason="REASON_AGENT_DRAINING",
        agent_id=ident("a0"),
    )
    execution.handle(Event(type="UPDATE", update=Update(status=status)))
    assert execution.changes[-1].message == f"{message}; its agent is being drained"
    assert execution.exit_code == 143


def an_agents_offer(**attributes: str) -> Offer:
    return Offer(
        id=ident("o"),
        framework_id=ident("f"),
        agent_id=ident("a"),
        hostname="h",
        attributes=[
            Attribute(name=name, type="TEXT", text=Text(value=value))
            for name, value in attributes.items()
        ],
    )


@pytest.mark.parametrize(
    ("own", "attributes", "is_usable"),
    [
        ({}, {}, True),
        ({}, {"arch": "x86_64"}, True),
        ({}, {"arch": "arm64", "requires_pin": "arch"}, False),
        ({"mesaform/arch": "arm64"}, {"arch": "arm64", "requires_pin": "arch"}, True),
        ({"mesaform.architecture": "arm64"}, {"arch": "x86_64"}, False),
        ({"mesaform.capacity-type": "spot"}, {"lifecycle": "on-demand"}, False),
        ({"mesaform.capacity-type": "spot"}, {"lifecycle": "spot"}, True),
        ({"mesaform.instance-type": "c5.large,m5.large"}, {"instance_type": "m5.large"}, True),
        ({"mesaform.instance-type": "c5.large,m5.large"}, {"instance_type": "r5.large"}, False),
        ({"team": "spot"}, {"lifecycle": "on-demand"}, True),
    ],
)
def test_a_job_uses_only_agents_that_its_labels_allow(
    own: dict[str, str], attributes: dict[str, str], is_usable: bool
) -> None:
    labelled = Job("hello", ("true",), SHAPE, labels=own)
    assert labelled.may_use(an_agents_offer(**attributes)) is is_usable
    labels = labelled.framework().labels
    assert {label.key: label.value for label in labels.labels} == own if labels else not own
