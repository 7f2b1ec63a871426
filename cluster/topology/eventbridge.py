"""How the cloud's announcements about machines reach a cluster, as pure functions of its name: rules, one queue, who may send to it.

EventBridge cannot choose by a machine's tags, so the rules match events of the whole account and region; who receives them sorts out
which machines are its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RETENTION_S = 3600
"""A notice is of no use for longer: a spot machine has two minutes, and what is planned for later EC2 is asked for as well."""

DEAD_RETENTION_S = 14 * 24 * 3600
HANDED_OUT_AT_MOST = 10
"""A message that was handed out so often and never deleted goes to the dead-letter queue, so that it stops nobody."""

VISIBILITY_S = 10
"""How long a message that a leader took is hidden from the next one: short, since a notice's time runs meanwhile."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `pattern` is EventBridge's; `why` its description."""

    name: str
    pattern: Mapping[str, Any]
    why: str


def queue_name(cluster: str) -> str:
    return f"mesaform-{cluster}-notices"


def dead_queue_name(cluster: str) -> str:
    return f"mesaform-{cluster}-notices-dead"


def rules(cluster: str) -> tuple[Rule, ...]:
    """What is listened for: the end of a machine announced, advised, planned, or come."""

    def rule(name: str, source: str, detail_type: str, why: str, **detail: Any) -> Rule:
        pattern: dict[str, Any] = {"source": [source], "detail-type": [detail_type]}
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


def queue_policy(queue_arn: str, rule_arns: list[str]) -> dict[str, Any]:
    """Who may send to the queue: EventBridge, for these rules, and nobody else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "EventsOfTheseRulesOnly",
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule_arns}},
            }
        ],
    }
