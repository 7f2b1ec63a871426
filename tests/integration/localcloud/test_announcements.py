"""EC2's announcements: EventBridge delivers them where a policy admits it, metadata shows them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import msgspec
import pytest

from mesaform.localcloud import daemon
from mesaform.localcloud.faults import Due, FaultRegistry, Redelivery, Scheduled, parse
from mesaform.localcloud.moto_patches.events import admits
from mesaform.localcloud.protocol import World
from mesaform.topology import eventbridge
from tests.integration.localcloud.conftest import Cloud, eventually

RULE = "arn:aws:events:us-east-1:123456789012:rule/mesaform-toy-interruption"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:mesaform-toy-notices"
LONGEST_WAIT_S = 20
"""SQS waits no longer for a message."""


def test_a_queue_takes_what_its_policy_admits_and_nothing_else():
    policy: Any = eventbridge.queue_policy(QUEUE, [RULE])
    assert admits(json.dumps(policy), RULE, QUEUE)
    assert not admits(json.dumps(policy), RULE + "x", QUEUE)
    assert not admits(json.dumps(policy), RULE, QUEUE + "x")
    assert not admits(None, RULE, QUEUE)
    for field, value in (
        ("Principal", {"Service": "sns.amazonaws.com"}),
        ("Principal", "*"),
        ("Effect", "Deny"),
        ("Action", "sqs:ReceiveMessage"),
    ):
        (statement,) = policy["Statement"]
        assert not admits(json.dumps({"Statement": [{**statement, field: value}]}), RULE, QUEUE)


@pytest.mark.slow
def test_a_queue_shows_its_redrive_policy_as_sqs_does_without_spaces(cloud: Cloud):
    sqs = cloud.client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = {"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 5}
    attributes = {"RedrivePolicy": json.dumps(policy)}
    queue = sqs.create_queue(QueueName="live", Attributes=attributes)["QueueUrl"]
    shown = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert shown["RedrivePolicy"] == json.dumps(policy, separators=(",", ":"))


def test_a_scheduled_event_is_announced_until_it_is_due():
    registry, fault = (
        FaultRegistry(),
        Scheduled(instance_id="i-1", code="instance-stop", after_s=60),
    )
    registry.add(fault, 1000.0)
    (announcement,) = registry.announced(1001.0)
    assert announcement == Due(fault, "fault-1", 1060.0, is_due=False)
    assert [due.is_due for due in registry.announced(1060.0)] == [True]
    assert registry.announced(1061.0) == []


def test_redelivery_is_in_force_until_it_ends():
    registry = FaultRegistry()
    assert registry.copies(0.0) == 1
    registry.add(Redelivery(copies=3, duration_s=10), 0.0)
    assert (registry.copies(5.0), registry.copies(11.0)) == (3, 1)


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"scheduled_event","instance_id":"i-1","code":"odd"}',
        b'{"kind":"rebalance","instance_id":"i-1","via":"post"}',
    ],
)
def test_invalid_faults_are_refused(body):
    from mesaform.common.errors import BadInput

    with pytest.raises(BadInput):
        parse(body)


class Queue:
    """The cluster's queue with its rules, as the stack declares them."""

    def __init__(self, cloud: Cloud, *, admitted: bool = True) -> None:
        self.sqs, events = cloud.client("sqs"), cloud.client("events")
        cluster = f"toy{time.monotonic_ns()}"[:20]
        self.url = self.sqs.create_queue(QueueName=eventbridge.queue_name(cluster))["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])[
            "Attributes"
        ]["QueueArn"]
        rules = []
        for rule in eventbridge.rules(cluster):
            rules.append(
                events.put_rule(Name=rule.name, EventPattern=json.dumps(rule.pattern))["RuleArn"]
            )
            events.put_targets(Rule=rule.name, Targets=[{"Id": "queue", "Arn": arn}])
        if admitted:
            policy = json.dumps(eventbridge.queue_policy(arn, rules))
            self.sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"Policy": policy})

    def receive(self, name: str, wait_s: int = LONGEST_WAIT_S) -> list[dict[str, Any]]:
        """What comes about a machine, each message once."""
        messages = self.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_s
        ).get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return [
            event
            for message in messages
            if name in json.dumps(event := json.loads(message["Body"]))
        ]


def a_spot_machine(cloud: Cloud) -> str:
    name = cloud.launch(cloud.image(), InstanceMarketOptions={"MarketType": "spot"})
    cloud.node_facts(name)
    return name


@pytest.mark.slow
def test_the_queue_receives_an_interruption_and_the_end_of_the_machine(cloud: Cloud):
    queue, name = Queue(cloud), a_spot_machine(cloud)
    cloud.fault(kind="spot_interruption", instance_id=name, after_s=2)
    (event,) = queue.receive(name)
    assert (event["source"], event["detail-type"]) == (
        "aws.ec2",
        "EC2 Spot Instance Interruption Warning",
    )
    assert event["detail"] == {"instance-id": name, "instance-action": "terminate"}
    assert event["resources"] == [f"arn:aws:ec2:us-east-1:123456789012:instance/{name}"]
    assert event["time"].endswith("Z")
    states: list[str] = []
    eventually(
        lambda: (
            states.extend(e["detail"]["state"] for e in queue.receive(name, 1))
            or "terminated" in states
        ),
        "its end is announced",
    )
    assert states == ["shutting-down", "terminated"]


@pytest.mark.slow
def test_a_queue_without_a_policy_receives_nothing(cloud: Cloud):
    queue, name = Queue(cloud, admitted=False), a_spot_machine(cloud)
    cloud.fault(kind="rebalance", instance_id=name)
    assert queue.receive(name, 1) == []


@pytest.mark.slow
def test_each_announcement_is_delivered_as_often_as_the_fault_says(cloud: Cloud):
    queue, name = Queue(cloud), a_spot_machine(cloud)
    cloud.fault(kind="redelivery", copies=3)
    cloud.fault(kind="rebalance", instance_id=name)
    events = queue.receive(name)
    assert [event["detail-type"] for event in events] == [
        "EC2 Instance Rebalance Recommendation"
    ] * 3


@pytest.mark.slow
def test_a_waiting_receive_does_not_block_other_calls(cloud: Cloud):
    import threading

    queue, name = Queue(cloud), a_spot_machine(cloud)
    got: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: got.extend(queue.receive(name, LONGEST_WAIT_S)))
    waiting.start()
    for _ in range(5):
        cloud.ec2.describe_instances()
    assert waiting.is_alive(), "the calls were answered after the wait"
    cloud.fault(kind="rebalance", instance_id=name)
    waiting.join(60)
    assert len(got) == 1


@pytest.mark.slow
def test_a_scheduled_event_is_announced_by_health_listed_by_ec2_and_executed(cloud: Cloud):
    queue, name = Queue(cloud), a_spot_machine(cloud)
    began = time.time()
    cloud.fault(kind="scheduled_event", instance_id=name, after_s=3)
    (event,) = queue.receive(name)
    assert (event["source"], event["detail-type"], event["detail"]["service"]) == (
        "aws.health",
        "AWS Health Event",
        "EC2",
    )
    assert event["detail"]["affectedEntities"] == [{"entityValue": name}]
    codes = [{"Name": "event.code", "Values": ["instance-retirement"]}]
    (status,) = [
        s
        for s in cloud.ec2.describe_instance_status(Filters=codes)["InstanceStatuses"]
        if s["InstanceId"] == name
    ]
    (listed,) = status["Events"]
    assert listed["Code"] == "instance-retirement"
    assert began + 2 <= listed["NotBefore"].timestamp() <= time.time() + 3

    def state() -> str:
        return cloud.ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0][
            "State"
        ]["Name"]

    eventually(lambda: state() == "terminated", "it is retired")
    assert cloud.ec2.describe_instance_status(Filters=codes)["InstanceStatuses"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("via", "comes"), [("metadata", False), ("queue", True)])
def test_a_fault_may_announce_in_one_way_only(cloud: Cloud, via: str, comes: bool):
    queue, name = Queue(cloud), a_spot_machine(cloud)
    cloud.fault(kind="spot_interruption", instance_id=name, after_s=60, via=via)
    assert bool(queue.receive(name, LONGEST_WAIT_S if comes else 1)) == comes
    world = msgspec.convert(daemon.ask(cloud.root, "machines"), World)
    (machine,) = [machine for machine in world.machines if machine.instance_id == name]
    assert (machine.notice is None) == comes


@pytest.mark.slow
def test_the_queue_and_its_messages_outlive_the_endpoint(cloud: Cloud):
    queue, name = Queue(cloud), a_spot_machine(cloud)
    cloud.fault(kind="rebalance", instance_id=name)
    killed = cloud.child("endpoint")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: cloud.child("endpoint") != killed, "another endpoint was started")
    assert len(queue.receive(name)) == 1
