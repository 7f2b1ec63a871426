"""The cluster's queue in SQS, and scheduled events from EC2. See `Notices`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from botocore.config import Config

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.aws.ports import Message, ScheduledEvent
from mesaform.common.errors import NotFound
from mesaform.topology import eventbridge

LONGEST_WAIT_S = 20
BATCH = 10
CODES = (
    "instance-reboot",
    "system-reboot",
    "system-maintenance",
    "instance-retirement",
    "instance-stop",
)
OVER = ("[Completed]", "[Canceled]")

_CONFIG = Config(
    connect_timeout=3,
    read_timeout=LONGEST_WAIT_S + 10,
    retries={"mode": "standard", "max_attempts": 2},
)
"""A long poll is silent for as long as it may take."""


class SqsNotices:
    """See `Notices`. The queue may be made, or made anew, at any time: its address is asked for until it is there."""

    def __init__(self, cluster: str, region: str) -> None:
        self._name = eventbridge.queue_name(cluster)
        self._where = f"sqs {self._name}"
        self._sqs = client.client("sqs", region, _CONFIG)
        self._ec2 = client.client("ec2", region)
        self._url = ""

    def receive(self, wait_s: float) -> list[Message]:
        try:
            with translate_errors(self._where):
                answer = self._sqs.receive_message(
                    QueueUrl=self._queue(),
                    MaxNumberOfMessages=BATCH,
                    WaitTimeSeconds=min(LONGEST_WAIT_S, math.ceil(wait_s)),
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
                {"Id": str(n), "ReceiptHandle": message.receipt}
                for n, message in enumerate(messages[start : start + BATCH])
            ]
            with translate_errors(self._where):
                self._sqs.delete_message_batch(QueueUrl=self._queue(), Entries=entries)

    def scheduled(self) -> list[ScheduledEvent]:
        found: list[ScheduledEvent] = []
        with translate_errors("ec2 DescribeInstanceStatus"):
            pages = self._ec2.get_paginator("describe_instance_status").paginate(
                Filters=[{"Name": "event.code", "Values": list(CODES)}]
            )
            for page in pages:
                for status in page["InstanceStatuses"]:
                    found += [
                        ScheduledEvent(
                            status["InstanceId"], event["Code"], event["NotBefore"].timestamp()
                        )
                        for event in status.get("Events", ())
                        if event["Code"] in CODES
                        and not str(event.get("Description", "")).startswith(OVER)
                    ]
        return found

    def _queue(self) -> str:
        """Its address, asked for once. It has the service's own form, so it is not made up here."""
        if not self._url:
            self._url = str(self._sqs.get_queue_url(QueueName=self._name)["QueueUrl"])
        return self._url
