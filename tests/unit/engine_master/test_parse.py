"""JSON into messages by Mesos' rules."""

from __future__ import annotations

import base64
import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.engine.master.parse import BadMessage, parse, parse_body
from mesaform.mesos.containers import Volume
from mesaform.mesos.messages import FrameworkInfo, KillPolicy, TcpCheckInfo
from mesaform.mesos.operator_api import OperatorCall
from mesaform.mesos.scheduler_api import Call


def test_unknown_fields_and_null_are_ignored():
    call = parse(
        {
            "type": "DECLINE",
            "more": {"a": 1},
            "decline": {"offer_ids": [{"value": "x"}], "filters": None, "x": 1},
        },
        Call,
    )
    assert call.decline is not None
    assert (call.decline.offer_ids[0].value, call.decline.filters.refuse_seconds) == ("x", 5.0)


@pytest.mark.parametrize(
    ("text", "value"), [("12.5", 12.5), (7, 7.0), ("Infinity", float("inf")), ("1e3", 1000.0)]
)
def test_numbers_may_be_strings(text, value):
    call = parse({"type": "DECLINE", "decline": {"filters": {"refuse_seconds": text}}}, Call)
    assert call.decline is not None
    assert call.decline.filters.refuse_seconds == value


def test_an_unknown_enum_counts_as_absent():
    assert parse({"type": "NOPE"}, Call).type is None
    info = {"user": "u", "name": "n", "capabilities": [{"type": "FROM_THE_FUTURE"}]}
    subscribe = parse({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}, Call).subscribe
    assert subscribe is not None
    assert subscribe.framework_info.capabilities[0].type is None


def test_an_unknown_enum_of_a_required_field_is_an_error():
    volume = {"container_path": "p", "mode": "RX"}
    with pytest.raises(BadMessage, match="Failed to find enum for 'RX'"):
        parse(volume, Volume)


def test_a_repeated_field_takes_one_value_and_lists_in_lists():
    info = {"user": "u", "name": "n", "roles": [["a", None], "b"], "capabilities": {"type": "X"}}
    framework = parse(info, FrameworkInfo)
    assert (framework.roles, len(framework.capabilities)) == (["a", "b"], 1)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (2**64, -(2**63)),
        (1e30, -(2**63)),
        ("12", 12),
        (1.9, 1),
        (-1.9, -1),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_an_integer_is_cast_as_by_mesos(raw, value):
    policy = parse({"grace_period": {"nanoseconds": raw}}, KillPolicy)
    assert policy.grace_period is not None
    assert policy.grace_period.nanoseconds == value


@pytest.mark.parametrize(("raw", "value"), [(-1, 2**32 - 1), (2**32 + 5, 5), (1e30, 0)])
def test_an_unsigned_integer_wraps(raw, value):
    assert parse({"port": raw}, TcpCheckInfo).port == value


def test_a_task_without_a_name_is_not_read():
    task = {"task_id": {"value": "t"}, "agent_id": {"value": "a"}}
    operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    body = msgspec.json.encode({"type": "ACCEPT", "accept": {"operations": [operation]}})
    with pytest.raises(BadMessage, match=r"accept\.operations\[0\]\.launch\.task_infos\[0\]\.name"):
        parse_body(body, Call)


def test_a_body_of_too_many_odd_values_is_refused_at_once():
    with pytest.raises(BadMessage, match="More than 100000 values"):
        parse_body(b'{"x":1,"kill":{"task_id":7},"y":[' + b"0," * 100_000 + b"0]}", Call)


def test_bytes_are_base64():
    ack = {
        "agent_id": {"value": "a"},
        "task_id": {"value": "t"},
        "uuid": base64.b64encode(b"0123456789abcdef").decode(),
    }
    call = parse({"type": "ACKNOWLEDGE", "acknowledge": ack}, Call)
    assert call.acknowledge is not None
    assert call.acknowledge.uuid == b"0123456789abcdef"


PREFIX = "Failed to convert JSON into Call protobuf: "
OUT_OF_RANGE = "Failed to parse body into JSON: Value out of range"
WRONG = {
    b"{": "Failed to parse body into JSON: syntax error at line 1 near: ",
    b'{"type": "REVIVE", "unknown": 1e999}': OUT_OF_RANGE,
    b'{"type": "REVIVE", "unknown": [-1E+400]}': OUT_OF_RANGE,
    b"[]": PREFIX + "Expecting a JSON object",
    b'{"type": 7}': PREFIX + "Not expecting a JSON number for field 'type'",
    b'{"kill": {"task_id": "x"}}': PREFIX + "Not expecting a JSON string for field 'task_id'",
    b'{"kill": []}': PREFIX + "Not expecting a JSON array for field 'kill'",
    b'{"decline": {"offer_ids": {}}}': PREFIX
    + "Missing required fields: decline.offer_ids[0].value",
    b'{"decline": {"offer_ids": 7}}': PREFIX + "Not expecting a JSON number for field 'offer_ids'",
    b'{"decline": {"filters": {"refuse_seconds": true}}}': PREFIX
    + "Not expecting a JSON boolean for field 'refuse_seconds'",
    b'{"decline": {"filters": {"refuse_seconds": "soon"}}}': PREFIX
    + "Failed to parse 'soon' as a JSON number for field 'refuse_seconds'",
    b'{"subscribe": {"framework_info": {"user": "root"}}}': PREFIX
    + "Missing required fields: subscribe.framework_info.name",
    b'{"subscribe": {}}': PREFIX + "Missing required fields: subscribe.framework_info",
    b'{"message": {"agent_id": {"value": "a"}, "executor_id": {"value": "e"}, '
    b'"data": "!!"}}': PREFIX + "Failed to base64 decode bytes field 'data': Invalid character '!'",
}


@pytest.mark.parametrize(("body", "message"), WRONG.items(), ids=[body.decode() for body in WRONG])
def test_wrong_values_are_named_in_mesos_words(body, message):
    with pytest.raises(BadMessage) as caught:
        parse_body(body, Call)
    assert str(caught.value) == message


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "x", "1", "1e999", "-Infinity", "!!", "AAAA"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "type", "seconds", "uuid", "filters"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
BODIES = [
    "type",
    "framework_id",
    "accept",
    "decline",
    "kill",
    "acknowledge",
    "subscribe",
    "reconcile",
    "revive",
    "drain_agent",
    "teardown",
]


@given(st.dictionaries(st.sampled_from(BODIES), JSON))
def test_any_document_is_a_message_or_an_error(document):
    for of in (Call, OperatorCall):
        with contextlib.suppress(BadMessage):
            assert isinstance(parse(document, of), of)
