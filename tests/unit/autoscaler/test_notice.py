"""Messages of AWS about machines: accepted, refused with a reason, and compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.autoscaler_builders import NOW, a_spec, offerings
from mesaform.autoscaler.interruption import risk
from mesaform.autoscaler.interruption.notice import Unreadable, more_severe, notice_of_machine, read
from mesaform.autoscaler.model.notice import Notice, Risk
from mesaform.aws.ports import Offering
from mesaform.topology.user_data import MachineNotice

AT = 1_795_262_400.0  # 2026-11-21T12:00:00Z


def an_event(
    detail_type: str = "EC2 Spot Instance Interruption Warning",
    source: str = "aws.ec2",
    **detail: object,
) -> str:
    """As EventBridge puts it into a queue."""
    return json.dumps(
        {
            "version": "0",
            "id": "12345678-1234-1234-1234-123456789012",
            "detail-type": detail_type,
            "source": source,
            "account": "123456789012",
            "time": "2026-11-21T12:00:00Z",
            "region": "us-east-1",
            "resources": ["arn:aws:ec2:us-east-1a:instance/i-1"],
            "detail": {"instance-id": "i-1", **detail},
        }
    )


def a_health_event(status: str = "upcoming", **detail: object) -> str:
    entities = [{"entityValue": "i-1"}, {"entityValue": "i-2"}, {"entityValue": "vol-3"}]
    given = {
        "service": "EC2",
        "eventTypeCategory": "scheduledChange",
        "eventTypeCode": "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED",
        "startTime": "Sat, 05 Dec 2026 15:10:09 GMT",
        "statusCode": status,
        "affectedEntities": entities,
    }
    return an_event("AWS Health Event", "aws.health", **{**given, **detail})


def a_notice(kind="interruption", **fields) -> Notice:
    return replace(Notice(kind, "i-1", AT, AT + 120, "queue", "reported"), **fields)


def test_an_interruption_warning_leaves_two_minutes():
    (notice,) = read(an_event(**{"instance-action": "terminate"})).notices
    assert (notice.kind, notice.instance_id, notice.at, notice.ends_at) == (
        "interruption",
        "i-1",
        AT,
        AT + 120,
    )
    assert notice.what == "spot interruption (terminate)"


def test_an_advice_to_rebalance_names_no_end():
    (notice,) = read(an_event("EC2 Instance Rebalance Recommendation")).notices
    assert (notice.kind, notice.ends_at) == ("rebalance", 0.0)


def test_a_health_event_concerns_each_machine_that_it_names_and_nothing_else():
    result = read(a_health_event()).notices
    assert [(notice.kind, notice.instance_id) for notice in result] == [
        ("scheduled", "i-1"),
        ("scheduled", "i-2"),
    ]
    assert {notice.ends_at for notice in result} == {1_796_483_409.0}
    assert result[0].what == "instance retirement scheduled"


def test_a_health_event_that_is_closed_withdraws_its_notices():
    heard = read(a_health_event("closed"))
    assert heard.notices == ()
    assert heard.withdrawn == ("i-1", "i-2")


def test_a_state_change_is_only_a_reason_to_look():
    heard = read(an_event("EC2 Instance State-change Notification", state="terminated"))
    assert (heard.notices, heard.changed) == ((), ("i-1",))


@pytest.mark.parametrize(
    "body",
    [
        "nonsense",
        "[]",
        "7",
        "{}",
        an_event("EC2 Something Else"),
        an_event(source="somebody.else"),
        an_event().replace("2026-11-21T12:00:00Z", "noon"),
        an_event().replace('"i-1"', '"vol-1"'),
        an_event().replace('"i-1"', "null"),
        an_event().replace('"detail"', '"retail"'),
        a_health_event().replace('"service": "EC2"', '"service": "RDS"'),
        a_health_event().replace("Sat, 05 Dec 2026 15:10:09 GMT", "soon"),
        a_health_event().replace('[{"entityValue": "i-1"}', '["i-1"'),
    ],
)
def test_what_is_no_such_message_is_unreadable_and_says_why(body):
    with pytest.raises(Unreadable) as caught:
        read(body)
    assert str(caught.value)


def test_the_report_of_a_machine_is_a_notice():
    shown = notice_of_machine(
        MachineNotice("i-1", "interruption", AT, AT + 30, "spot interruption (stop)")
    )
    assert shown == Notice(
        "interruption", "i-1", AT, AT + 30, "machine", "spot interruption (stop)"
    )


def test_the_graver_notice_counts_whatever_came_first():
    advice, end = a_notice("rebalance", ends_at=0.0), a_notice()
    assert more_severe(advice, end) == more_severe(end, advice) == end
    assert more_severe(a_notice("scheduled"), end) == end


def test_of_equal_notices_the_first_counts_with_the_earlier_end():
    first = a_notice(is_reported=True)
    assert more_severe(first, a_notice(source="machine", ends_at=AT + 30)) == replace(
        first, ends_at=AT + 30
    )
    assert more_severe(first, a_notice(ends_at=AT + 300)) == first


def two_spot_offerings() -> tuple[Offering, Offering]:
    spot = [offering for offering in offerings(a_spec())["default"] if offering.capacity == "spot"]
    return spot[0], spot[1]


def test_an_offering_is_avoided_after_an_interruption_and_forgiven_in_time():
    interrupted, other = two_spot_offerings()
    risks = risk.counted({}, interrupted.key, "interruption", NOW)
    assert risk.calm([interrupted, other], risks, NOW + 4700) == [other]
    assert risk.calm([interrupted, other], risks, NOW + 4900) == [interrupted, other]


def test_more_interruptions_are_avoided_for_longer():
    interrupted, other = two_spot_offerings()
    risks: dict[str, Risk] = {}
    for _ in range(4):
        risks = risk.counted(risks, interrupted.key, "interruption", NOW)
    assert risk.calm([interrupted, other], risks, NOW + 4900 + 7000) == [other]


def test_advice_counts_half_and_planned_events_not_at_all():
    assert risk.score(risk.counted({}, "x", "rebalance", NOW), "x", NOW) == 0.5
    assert risk.counted({}, "x", "scheduled", NOW) == {}


def test_what_faded_is_forgotten():
    risks = risk.counted({}, "old", "interruption", NOW)
    assert set(risk.counted(risks, "new", "interruption", NOW + 36_000)) == {"new"}


def test_where_everything_is_risky_the_least_risky_is_left():
    sold = [offering for offering in offerings(a_spec())["default"] if offering.capacity == "spot"]
    risks = {offering.key: Risk(3.0, NOW) for offering in sold}
    risks[sold[4].key] = Risk(2.0, NOW)
    assert risk.calm(sold, risks, NOW) == [sold[4]]
    assert risk.calm([], risks, NOW) == []
