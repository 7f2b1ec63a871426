"""Adapter of the `Notices` port: the cluster's queue in SQS and EC2's scheduled events."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from botocore.config import Config

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.aws.ports import Message, ScheduledEvent
from mesaform.common.errors import NotFound
from mesaform.topology import eventbridge

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceStatusTypeDef

MAX_WAIT_S = 20
BATCH = 10
"""Messages per call of SQS."""

EVENT_CODES = (
    "instance-reboot",
    "system-reboot",
    "system-maintenance",
    "instance-retirement",
    "instance-stop",
)
FINISHED_PREFIXES = ("[Completed]", "[Canceled]")
"""Starts of the descriptions of events that EC2 still lists and that will not happen."""

_CONFIG = Config(
    connect_timeout=3,
    read_timeout=MAX_WAIT_S + 10,
    retries={"mode": "standard", "max_attempts": 2},
)
"""A long poll may be silent for `MAX_WAIT_S`."""


class SqsNotices:
    """See `Notices`. The queue may be recreated, so its URL is read again when it is absent."""

    def __init__(self, cluster: str, region: str) -> None:
        self._name = eventbridge.queue_name(cluster)
        self._where = f"sqs {self._name}"
        self._sqs = client.client("sqs", region, _CONFIG)
        self._ec2: EC2Client = client.client("ec2", region)
        self._url = ""

    def receive(self, wait_s: float) -> list[Message]:
        try:
            with translate_errors(self._where):
                answer = self._sqs.receive_message(
                    QueueUrl=self._queue_url(),
                    MaxNumberOfMessages=BATCH,
                    WaitTimeSeconds=min(MAX_WAIT_S, math.ceil(wait_s)),
                )
        except NotFound:
            self._url = ""
            raise
        return [
            Message(raw["MessageId"], raw["ReceiptHandle"], raw["Body"])
            for raw in answer.get("Messages", ())
        ]

    def delete(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), BATCH):
            entries = [
                {"Id": str(number), "ReceiptHandle": message.receipt}
                for number, message in enumerate(messages[start : start + BATCH])
            ]
            with translate_errors(self._where):
                self._sqs.delete_message_batch(QueueUrl=self._queue_url(), Entries=entries)

    def scheduled(self) -> list[ScheduledEvent]:
        with translate_errors("ec2 DescribeInstanceStatus"):
            pages = self._ec2.get_paginator("describe_instance_status").paginate(
                Filters=[{"Name": "event.code", "Values": list(EVENT_CODES)}]
            )
            return [
                event
                for page in pages
                for status in page["InstanceStatuses"]
                for event in _future_events(status)
            ]

    def _queue_url(self) -> str:
        """The queue's URL, which the service defines."""
        if not self._url:
            self._url = str(self._sqs.get_queue_url(QueueName=self._name)["QueueUrl"])
        return self._url


def _future_events(status: InstanceStatusTypeDef) -> Iterator[ScheduledEvent]:
    for event in status.get("Events", ()):
        is_finished = str(event.get("Description", "")).startswith(FINISHED_PREFIXES)
        if event["Code"] in EVENT_CODES and not is_finished:
            not_before = event["NotBefore"].timestamp()
            yield ScheduledEvent(status["InstanceId"], event["Code"], not_before)
