"""Announcements about machines: the event rules, the queue and its policy. Pure.

EventBridge cannot filter by the tags of an instance. So the rules match events of the whole account
and region, and the receiver ignores machines that are not its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RETENTION_S = 3600
"""Retention of the queue. A spot machine has two minutes; later events are read from EC2 too."""

DEAD_RETENTION_S = 14 * 24 * 3600
MAX_RECEIVES = 10
"""A message that was received this often and not deleted moves to the dead-letter queue."""

VISIBILITY_S = 10
"""Time for which a received message is hidden from the next leader; short, since notices expire."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An event rule: its event pattern, and in `why` its description."""

    name: str
    pattern: Mapping[str, object]
    why: str


def queue_name(cluster: str) -> str:
    """Return the name of the queue of the cluster's announcements."""
    return f"mesaform-{cluster}-notices"


def dead_queue_name(cluster: str) -> str:
    """Return the name of the dead-letter queue."""
    return f"mesaform-{cluster}-notices-dead"


def rules(cluster: str) -> tuple[Rule, ...]:
    """Return the rules for announced, recommended, planned and completed ends of machines."""

    def rule(name: str, source: str, detail_type: str, why: str, **detail: list[str]) -> Rule:
        pattern: dict[str, object] = {"source": [source], "detail-type": [detail_type]}
        return Rule(
            f"mesaform-{cluster}-{name}", {**pattern, **({"detail": detail} if detail else {})}, why
        )

    return (
        rule(
            "interruption",
            "aws.ec2",
            "EC2 Spot Instance Interruption Warning",
            "spot machines that end in two minutes",
        ),
        rule(
            "rebalance",
            "aws.ec2",
            "EC2 Instance Rebalance Recommendation",
            "spot machines more likely to be interrupted",
        ),
        rule(
            "state",
            "aws.ec2",
            "EC2 Instance State-change Notification",
            "machines that end",
            state=["shutting-down", "stopping", "terminated"],
        ),
        rule(
            "health",
            "aws.health",
            "AWS Health Event",
            "maintenance that AWS plans",
            service=["EC2"],
            eventTypeCategory=["scheduledChange"],
        ),
    )


def queue_policy(queue_arn: str, rule_arns: Sequence[str]) -> dict[str, object]:
    """Return the policy of the queue: only EventBridge may send, for these rules."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "EventsOfTheseRulesOnly",
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": list(rule_arns)}},
            }
        ],
    }
