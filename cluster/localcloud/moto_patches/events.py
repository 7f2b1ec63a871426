"""EventBridge's deliveries into queues: only where the queue's policy lets the rule send, as on AWS. moto asks no policy."""

from __future__ import annotations

import json
from typing import Any

import structlog
from moto.events.models import Rule

log = structlog.get_logger(__name__)

_send = Rule._send_to_sqs_queue  # noqa: SLF001


def admits(policy: str | None, rule_arn: str, queue_arn: str) -> bool:
    """Whether a queue's policy lets EventBridge send for this rule."""
    statements = json.loads(policy).get("Statement", []) if policy else []
    return any(_allows(statement, rule_arn, queue_arn) for statement in statements)


def _allows(statement: dict[str, Any], rule_arn: str, queue_arn: str) -> bool:
    service = (
        statement.get("Principal", {}).get("Service")
        if isinstance(statement.get("Principal"), dict)
        else None
    )
    conditions = statement.get("Condition", {})
    sources = [
        arn
        for operator in ("ArnEquals", "ArnLike", "StringEquals")
        for arn in _listed(conditions.get(operator, {}).get("aws:SourceArn"))
    ]
    return (
        statement.get("Effect") == "Allow"
        and "events.amazonaws.com" in _listed(service)
        and bool({"sqs:SendMessage", "sqs:*"} & set(_listed(statement.get("Action"))))
        and queue_arn in _listed(statement.get("Resource"))
        and (not conditions or rule_arn in sources)
    )


def _listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _send_if_admitted(
    self: Any, resource_id: str, event: dict[str, Any], group_id: str | None = None
) -> None:
    from moto.sqs.models import sqs_backends

    queue = sqs_backends[self.account_id][self.region_name].queues.get(resource_id)
    if queue is None or not admits(queue.policy, self.arn, queue.queue_arn):
        log.warning(
            "event.dropped",
            rule=self.name,
            queue=resource_id,
            why="no such queue" if queue is None else "its policy",
        )
        return
    _send(self, resource_id, event, group_id)


def apply() -> None:
    Rule._send_to_sqs_queue = _send_if_admitted  # noqa: SLF001
