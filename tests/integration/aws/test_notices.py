"""Contract of the port `Notices`, for the fake and for SQS and EventBridge on moto's server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from mesaform.autoscaler.interruption.notice import read
from mesaform.aws import client
from mesaform.aws.notice_queue import SqsNotices
from mesaform.aws.ports import Message, Notices
from mesaform.common.errors import NotFound
from mesaform.testing.fake_cloud import FakeNotices
from mesaform.topology import eventbridge
from tests.integration.aws.conftest import REGION

pytestmark = pytest.mark.slow
VISIBILITY_S = 1
SPOT_WARNING = "EC2 Spot Instance Interruption Warning"
PLANNED = {
    "service": "EC2",
    "eventTypeCategory": "scheduledChange",
    "startTime": "Sat, 05 Dec 2026 15:10:09 GMT",
}


class Setup:
    """A queue to send to and a port to receive from."""

    def __init__(
        self,
        notices: Notices,
        send: Callable[[str], Any],
        later: Callable[[], None],
        left: Callable[[], int],
    ) -> None:
        self.notices, self.send, self.later, self.left = notices, send, later, left

    def bodies(self) -> list[str]:
        return sorted(message.body for message in self.notices.receive(0))


def create_queue() -> str:
    return client.client("sqs", REGION).create_queue(
        QueueName=eventbridge.queue_name("toy"), Attributes={"VisibilityTimeout": str(VISIBILITY_S)}
    )["QueueUrl"]


@pytest.fixture(params=["fake", "sqs"])
def setup(request: pytest.FixtureRequest) -> Setup:
    if request.param == "fake":
        now = [0.0]
        fake = FakeNotices(lambda: now[0], visibility_s=VISIBILITY_S)

        def later() -> None:
            now[0] += VISIBILITY_S

        return Setup(fake, fake.send, later, lambda: len(fake.left))
    request.getfixturevalue("cloud")
    url, sqs = create_queue(), client.client("sqs", REGION)

    def left() -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return sum(
            int(value)
            for value in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)[
                "Attributes"
            ].values()
        )

    return Setup(
        SqsNotices("toy", REGION),
        lambda body: sqs.send_message(QueueUrl=url, MessageBody=body),
        lambda: time.sleep(VISIBILITY_S + 0.1),  # the queue's own time
        left,
    )


def test_a_received_message_is_hidden_for_a_while(setup):
    setup.send("one")
    assert setup.bodies() == ["one"]
    assert setup.bodies() == []
    setup.later()
    assert setup.bodies() == ["one"]


def test_a_deleted_message_is_not_delivered_again(setup):
    setup.send("one")
    setup.send("two")
    messages = setup.notices.receive(0)
    setup.notices.delete([message for message in messages if message.body == "one"])
    setup.notices.delete([message for message in messages if message.body == "one"])
    setup.later()
    assert setup.bodies() == ["two"]


def test_at_most_ten_messages_are_received_at_once(setup):
    for number in range(23):
        setup.send(f"{number:02}")
    batches = [setup.notices.receive(0) for _ in range(3)]
    assert [len(batch) for batch in batches] == [10, 10, 3]
    setup.notices.delete([message for batch in batches for message in batch])
    assert setup.left() == 0


def test_an_empty_queue_has_no_messages(setup):
    assert setup.notices.receive(0) == []
    setup.notices.delete([])


def test_without_events_nothing_is_scheduled(setup):
    assert setup.notices.scheduled() == []


def test_an_absent_queue_is_an_error_until_it_is_created(cloud):
    notices = SqsNotices("toy", REGION)
    with pytest.raises(NotFound):
        notices.receive(0)
    create_queue()
    assert notices.receive(0) == []


def test_a_recreated_queue_is_used(cloud):
    url, notices = create_queue(), SqsNotices("toy", REGION)
    assert notices.receive(0) == []
    client.client("sqs", REGION).delete_queue(QueueUrl=url)
    with pytest.raises(NotFound):
        notices.receive(0)
    client.client("sqs", REGION).send_message(QueueUrl=create_queue(), MessageBody="one")
    assert [message.body for message in notices.receive(0)] == ["one"]


def test_a_receipt_that_is_too_old_deletes_nothing_and_is_no_error(cloud):
    create_queue()
    SqsNotices("toy", REGION).delete([Message("m", "nonsense", "")])


@pytest.mark.parametrize(
    ("source", "detail_type", "detail", "is_delivered"),
    [
        ("aws.ec2", SPOT_WARNING, {"instance-action": "terminate"}, True),
        ("aws.ec2", "EC2 Instance Rebalance Recommendation", {}, True),
        ("aws.ec2", "EC2 Instance State-change Notification", {"state": "terminated"}, True),
        ("aws.ec2", "EC2 Instance State-change Notification", {"state": "running"}, False),
        ("aws.health", "AWS Health Event", PLANNED, True),
        ("aws.health", "AWS Health Event", {"service": "EC2", "eventTypeCategory": "issue"}, False),
        ("aws.health", "AWS Health Event", {**PLANNED, "service": "RDS"}, False),
        ("aws.autoscaling", "EC2 Instance Launch Successful", {}, False),
    ],
)  # fmt: skip
def test_the_rules_match_what_the_reader_understands(
    cloud, source, detail_type, detail, is_delivered
):
    url, events = create_queue(), client.client("events", REGION)
    arn = client.client("sqs", REGION).get_queue_attributes(
        QueueUrl=url, AttributeNames=["QueueArn"]
    )["Attributes"]["QueueArn"]
    for rule in eventbridge.rules("toy"):
        events.put_rule(Name=rule.name, EventPattern=json.dumps(rule.pattern), Description=rule.why)
        events.put_targets(Rule=rule.name, Targets=[{"Id": "queue", "Arn": arn}])
    entry = {
        "Source": source,
        "DetailType": detail_type,
        "Detail": json.dumps({"instance-id": "i-1", **detail}),
    }
    events.put_events(Entries=[entry])
    messages = SqsNotices("toy", REGION).receive(0)
    assert len(messages) == is_delivered
    for message in messages:
        read(message.body)
