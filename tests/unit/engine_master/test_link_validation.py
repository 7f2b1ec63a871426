"""Link messages that are invalid: each is refused with the path of its first bad value."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.engine import link
from mesaform.engine.link_validation import (
    MAX_AGENT_INFO_BYTES,
    MAX_ATTRIBUTE_BYTES,
    problem_of,
    read_from_agent,
)
from mesaform.mesos.messages import (
    AgentInfo,
    Attribute,
    KillPolicy,
    PortRange,
    Ranges,
    Resource,
    Scalar,
    TaskStatus,
    Text,
    ident,
    to_wire,
)
from tests.support.profiles import examples
from tests.unit.engine_agent.builders import framework, task
from tests.unit.engine_master.world import SIZE

INFO = AgentInfo(hostname="h", resources=to_wire(SIZE, role="*"))


def cpus(value: float) -> AgentInfo:
    resource = Resource(name="cpus", type="SCALAR", scalar=Scalar(value=value))
    return msgspec.structs.replace(INFO, resources=[resource])


def ports(low: int, high: int) -> AgentInfo:
    ranges = Ranges(range=[PortRange(begin=low, end=high)])
    return msgspec.structs.replace(
        INFO, resources=[Resource(name="ports", type="RANGES", ranges=ranges)]
    )


def attribute(text: str, name: str = "a") -> AgentInfo:
    value = Attribute(name=name, type="TEXT", text=Text(value=text))
    return msgspec.structs.replace(INFO, attributes=[value])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e308])
def test_an_amount_that_is_no_amount_is_refused(value):
    assert problem_of(link.Register(cpus(value))) is not None
    with pytest.raises(link.BadMessage, match=r"message of an agent|Register"):
        read_from_agent(link.encode(link.Register(cpus(value))))


@pytest.mark.parametrize(
    ("info", "path"),
    [
        (ports(5, 4), "info.resources[0].ranges"),
        (ports(-1, 4), "info.resources[0].ranges"),
        (ports(31000, 70000), "info.resources[0].ranges"),
        (attribute("x" * MAX_ATTRIBUTE_BYTES), "info.attributes[0]"),
        (attribute("x", name="a\nb"), "info.attributes[0].name"),
        (attribute("x", name=""), "info.attributes[0].name"),
        (AgentInfo(hostname=""), "info.hostname"),
        (AgentInfo(hostname="h" * 256), "info.hostname"),
        (AgentInfo(hostname="h", port=2**20), "info.port"),
    ],
)
def test_the_problem_of_an_agents_info_names_the_value(info, path):
    assert (problem_of(link.Register(info)) or "").startswith(path)


def test_an_info_that_would_fill_the_registry_is_refused_though_each_attribute_is_small():
    size = MAX_ATTRIBUTE_BYTES // 2
    attributes = [
        Attribute(name=f"a{number}", type="TEXT", text=Text(value="x" * size))
        for number in range(MAX_AGENT_INFO_BYTES // size + 1)
    ]
    info = msgspec.structs.replace(INFO, attributes=attributes)
    assert (problem_of(link.Register(info)) or "").startswith("info has")


@pytest.mark.parametrize("id_", ["", ".", "..", "a/b", "/etc", "a\\b", "a\0b", "x" * 256])
def test_an_id_that_cannot_name_a_folder_is_refused_in_every_message(id_):
    status = TaskStatus(task_id=ident(id_), state="TASK_RUNNING")
    messages = [
        link.Register(INFO, id_ or "."),
        link.Update("f", status, "TASK_RUNNING"),
        link.Update(id_, TaskStatus(task_id=ident("t"), state="TASK_RUNNING"), "TASK_RUNNING"),
        link.Launch(framework(named=id_), task()),
        link.Launch(framework(), task(id_)),
        link.Kill("f", id_),
        link.Acknowledge(id_, "t", b"u" * 16),
        link.ShutdownFramework(id_),
    ]
    assert [message for message in messages if problem_of(message) is None] == []


@pytest.mark.parametrize(
    "message",
    [
        link.Update("f", TaskStatus(task_id=ident("t"), state="TASK_ODD"), "TASK_RUNNING"),
        link.Update("f", TaskStatus(task_id=ident("t"), state="TASK_RUNNING"), "odd"),
        link.Update(
            "f", TaskStatus(task_id=ident("t"), state="TASK_RUNNING", uuid=b"x"), "TASK_RUNNING"
        ),
        link.Kill("f", "t", math.nan),
        link.Kill("f", "t", -1.0),
        link.Kill("f", "t", 1e30),
        link.Drain(math.inf),
        link.Acknowledge("f", "t", b""),
        link.Registered("a", 0.0),
        link.Launch(framework(), task(health_check={"type": "TCP", "delay_seconds": math.nan})),
        link.Launch(framework(), msgspec.structs.replace(task(), discovery={"x": [2**70]})),
    ],
)
def test_a_message_with_an_impossible_value_is_refused(message):
    assert problem_of(message) is not None


def test_a_deeply_nested_message_is_refused_instead_of_exhausting_the_stack():
    nested: dict[str, object] = {}
    for _ in range(500):
        nested = {"x": nested}
    odd = msgspec.structs.replace(task(), discovery=nested)
    assert "nested" in (problem_of(link.Launch(framework(), odd)) or "")


def test_ordinary_messages_are_valid():
    known = link.KnownTask(
        framework(), task(kill_policy={"grace_period": {"nanoseconds": 10**9}}), "TASK_RUNNING"
    )
    status = TaskStatus(
        task_id=ident("t"), state="TASK_RUNNING", uuid=b"u" * 16, timestamp=1e9, healthy=True
    )
    messages: list[link.LinkMessage] = [
        link.Register(INFO, None, "h:5051", "1.12.0", [known]),
        link.Update("f", status, "TASK_RUNNING"),
        link.Pong(),
        link.Leaving(),
        link.Registered("a"),
        link.Refused("gone"),
        link.Launch(framework(), task(kill_policy=msgspec.to_builtins(KillPolicy()))),
        link.Kill("f", "t", 0.0),
        link.Drain(),
        link.Undrain(),
        link.Ping(),
    ]
    assert [problem_of(message) for message in messages] == [None] * len(messages)


@given(st.binary(max_size=200))
@settings(max_examples=examples(200), deadline=None)
def test_bytes_that_are_no_message_are_a_bad_message_and_nothing_else(data):
    try:
        message = read_from_agent(data)
    except link.BadMessage:
        return
    assert problem_of(message) is None


@given(data=st.data())
@settings(max_examples=examples(300), deadline=None)
def test_a_register_with_one_byte_changed_is_read_or_is_a_bad_message(data):
    original = bytearray(link.encode(link.Register(INFO, "a", "h:1", "v", [])))
    position = data.draw(st.integers(0, len(original) - 1))
    original[position] = data.draw(st.integers(0, 255))
    try:
        message = read_from_agent(bytes(original))
    except link.BadMessage:
        return
    assert problem_of(message) is None
