"""What EC2 announces of its instances, put on the event bus: rules and queue policies decide who gets it. Callers hold the lock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mesaform.localcloud.protocol import Event, Notice

INTERRUPTION = "EC2 Spot Instance Interruption Warning"
REBALANCE = "EC2 Instance Rebalance Recommendation"
STATE = "EC2 Instance State-change Notification"
HEALTH = "AWS Health Event"
HEALTH_CODES = {
    "instance-stop": "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
    "instance-retirement": "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED",
    "instance-reboot": "AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED",
    "system-reboot": "AWS_EC2_SYSTEM_REBOOT_MAINTENANCE_SCHEDULED",
    "system-maintenance": "AWS_EC2_SYSTEM_MAINTENANCE_EVENT",
}


class Bus:
    """The default event bus of every account and region.

    Attributes:
        copies: how often each message is delivered: EventBridge and SQS promise at least once.

    """

    def __init__(self, events_backends: Any) -> None:
        self._backends = events_backends
        self._states: dict[str, str] | None = None
        self.copies = 1

    def interruption(self, backend: Any, instance_id: str, notice: Notice) -> None:
        self._put(
            backend,
            instance_id,
            "aws.ec2",
            INTERRUPTION,
            {"instance-id": instance_id, "instance-action": notice.action},
        )

    def rebalance(self, backend: Any, instance_id: str) -> None:
        self._put(backend, instance_id, "aws.ec2", REBALANCE, {"instance-id": instance_id})

    def scheduled(self, backend: Any, instance_id: str, event: Event) -> None:
        from mesaform.localcloud.metadata import http_date

        detail = {
            "eventArn": f"arn:aws:health:{backend.region_name}::event/EC2/{event.id}",
            "service": "EC2",
            "eventTypeCode": HEALTH_CODES[event.code],
            "eventTypeCategory": "scheduledChange",
            "startTime": http_date(event.at),
            "statusCode": "upcoming",
            "affectedEntities": [{"entityValue": instance_id}],
        }
        self._put(backend, instance_id, "aws.health", HEALTH, detail)

    def look(self, states: Mapping[str, tuple[Any, str]]) -> bool:
        """Tell of instances whose state is another than at the last look; whether any was."""
        known, self._states = self._states, {name: state for name, (_, state) in states.items()}
        changed = (
            []
            if known is None
            else [name for name, state in self._states.items() if known.get(name) != state]
        )
        for name in changed:
            self._put(
                states[name][0],
                name,
                "aws.ec2",
                STATE,
                {"instance-id": name, "state": states[name][1]},
            )
        return bool(changed)

    def _put(
        self,
        backend: Any,
        instance_id: str,
        source: str,
        detail_type: str,
        detail: Mapping[str, Any],
    ) -> None:
        bus = self._backends[backend.account_id][backend.region_name]
        arn = f"arn:aws:ec2:{backend.region_name}:{backend.account_id}:instance/{instance_id}"
        entry = {
            "Source": source,
            "DetailType": detail_type,
            "Detail": json.dumps(detail),
            "Resources": [arn],
        }
        for _ in range(self.copies):
            bus.put_events([dict(entry)])
