"""Announcements of AWS about machines: EventBridge rules, the cluster's queue, its dead letters.

The stack depends on no other and is deployed beside the network, because the provider waits 25 s
for the attributes of each queue to settle.
"""

from __future__ import annotations

import json

from mesaform.topology import eventbridge, iam
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack, Settings


class NoticesStack(ClusterStack):
    def __init__(self, settings: Settings) -> None:
        super().__init__("notices", settings)
        cluster, region = self.spec.name, self.spec.region
        account_id = aws.DataAwsCallerIdentity(self, "account").account_id
        queue_arn = iam.queue_arn(cluster, region, account_id)
        rules = eventbridge.rules(cluster)
        policy = eventbridge.queue_policy(
            queue_arn, [iam.rule_arn(rule.name, region, account_id) for rule in rules]
        )
        queue = aws.SqsQueue(
            self,
            "queue",
            name=eventbridge.queue_name(cluster),
            message_retention_seconds=eventbridge.RETENTION_S,
            visibility_timeout_seconds=eventbridge.VISIBILITY_S,
            sqs_managed_sse_enabled=True,
            policy=json.dumps(policy),
            redrive_policy=self._dead_letters() if self.spec.target == "aws" else None,
            tags=self.named("notices"),
        )
        for rule in rules:
            self._rule(rule, queue)
        self.put("queue_url", queue.url)

    def _dead_letters(self) -> str:
        """The queue of messages that were received too often.

        Not on the local cloud, where the wait for a second queue would make `up` longer.
        """
        dead = aws.SqsQueue(
            self,
            "dead",
            name=eventbridge.dead_queue_name(self.spec.name),
            message_retention_seconds=eventbridge.DEAD_RETENTION_S,
            sqs_managed_sse_enabled=True,
            tags=self.named("notices-dead"),
        )
        return json.dumps(
            {"deadLetterTargetArn": dead.arn, "maxReceiveCount": eventbridge.MAX_RECEIVES}
        )

    def _rule(self, rule: eventbridge.Rule, queue: aws.SqsQueue) -> None:
        short = rule.name.rpartition("-")[2]
        event_rule = aws.CloudwatchEventRule(
            self,
            f"{short}-rule",
            name=rule.name,
            description=f"For the Mesos cluster {self.spec.name}: {rule.why}",
            event_pattern=json.dumps(rule.pattern),
            tags=self.named(short),
        )
        aws.CloudwatchEventTarget(
            self, f"{short}-target", rule=event_rule.name, target_id="queue", arn=queue.arn
        )
