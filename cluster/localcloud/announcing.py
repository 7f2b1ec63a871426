"""EC2's announcements about its instances, put on EventBridge's default event bus.

Rules and queue policies decide who receives them. The caller holds the endpoint's lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from mesaform.localcloud.moto_patches.moto_types import Ec2Backend, EventsBackend
from mesaform.localcloud.protocol import Event, Notice
from mesaform.localcloud.timestamps import http_date

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
"""AWS Health's event type of each scheduled event of EC2."""

States = Mapping[str, tuple[Ec2Backend, str]]
"""Each instance's backend and state, by instance id."""


class Bus:
    """The default event bus of every account and region.

    Attributes:
        copies: how often each message is delivered; EventBridge and SQS promise at least once.

    """

    def __init__(self, events_backends: Mapping[str, Mapping[str, EventsBackend]]) -> None:
        self._backends = events_backends
        self._states: dict[str, str] | None = None
        self._previous: dict[str, str] | None = None
        self.copies = 1

    def interruption(self, backend: Ec2Backend, instance_id: str, notice: Notice) -> None:
        """Send a spot interruption warning."""
        detail = {"instance-id": instance_id, "instance-action": notice.action}
        self._put(backend, instance_id, "aws.ec2", INTERRUPTION, detail)

    def rebalance(self, backend: Ec2Backend, instance_id: str) -> None:
        """Send a rebalance recommendation."""
        self._put(backend, instance_id, "aws.ec2", REBALANCE, {"instance-id": instance_id})

    def scheduled(self, backend: Ec2Backend, instance_id: str, event: Event) -> None:
        """Send AWS Health's event for a scheduled event of the instance."""
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

    def announce_changes(self, states: States) -> bool:
        """Announce the instances whose state differs from the last call; whether any does."""
        known = self._previous = self._states
        self._states = {name: state for name, (_, state) in states.items()}
        if known is None:
            return False
        changed = [name for name, state in self._states.items() if known.get(name) != state]
        for name in changed:
            backend, state = states[name]
            detail = {"instance-id": name, "state": state}
            self._put(backend, name, "aws.ec2", STATE, detail)
        return bool(changed)

    def take_back(self) -> None:
        """Undo the last `announce_changes`, because its messages could not be stored."""
        self._states = self._previous

    def _put(
        self,
        backend: Ec2Backend,
        instance_id: str,
        source: str,
        detail_type: str,
        detail: Mapping[str, object],
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
