"""EventBridge's deliveries into queues, only where the queue's policy admits the rule, as on AWS.

moto does not check the policy.
"""

from __future__ import annotations

import json

import structlog
from moto.events.models import Rule

from mesaform.common.json_types import Json, JsonObject, as_list, as_object
from mesaform.localcloud.moto_patches import moto_types
from mesaform.localcloud.moto_patches.moto_types import Parameters

log = structlog.get_logger(__name__)

_moto_send = Rule._send_to_sqs_queue  # noqa: SLF001 - the method that is patched


def admits(policy: str | None, rule_arn: str, queue_arn: str) -> bool:
    """Whether a queue's policy lets EventBridge send for this rule."""
    statements = as_list(as_object(json.loads(policy)).get("Statement")) if policy else []
    return any(_allows(as_object(statement), rule_arn, queue_arn) for statement in statements)


def _allows(statement: JsonObject, rule_arn: str, queue_arn: str) -> bool:
    principal = as_object(statement.get("Principal"))
    required = (
        statement.get("Effect") == "Allow",
        "events.amazonaws.com" in _values(principal.get("Service")),
        not {"sqs:SendMessage", "sqs:*"}.isdisjoint(_values(statement.get("Action"))),
        queue_arn in _values(statement.get("Resource")),
        _condition_admits(as_object(statement.get("Condition")), rule_arn),
    )
    return all(required)


def _condition_admits(conditions: JsonObject, rule_arn: str) -> bool:
    sources = [
        arn
        for operator in ("ArnEquals", "ArnLike", "StringEquals")
        for arn in _values(as_object(conditions.get(operator)).get("aws:SourceArn"))
    ]
    return not conditions or rule_arn in sources


def _values(value: Json) -> list[str]:
    """A policy's element, which may be one value or a list."""
    if isinstance(value, str):
        return [value]
    return [str(item) for item in as_list(value)]


def _send_if_admitted(
    self: moto_types.Rule, resource_id: str, event: Parameters, group_id: str | None = None
) -> None:
    from moto.sqs.models import sqs_backends

    queue = sqs_backends[self.account_id][self.region_name].queues.get(resource_id)
    if queue is None or not admits(queue.policy, self.arn, queue.queue_arn):
        log.warning(
            "event.dropped",
            rule=self.name,
            queue=resource_id,
            reason="no such queue" if queue is None else "the queue's policy",
        )
        return
    _moto_send(self, resource_id, event, group_id)


def apply() -> None:
    """Patch moto in this process."""
    Rule._send_to_sqs_queue = _send_if_admitted  # noqa: SLF001 - the method that is patched
