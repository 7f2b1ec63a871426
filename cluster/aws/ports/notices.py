"""Port to announcements about machines: a queue of messages and EC2's scheduled events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """A received message. `receipt` deletes it until the queue delivers it again."""

    id: str
    receipt: str
    body: str


@dataclass(frozen=True, slots=True)
class ScheduledEvent:
    """An action that EC2 will take on an instance, not before `not_before` (epoch s)."""

    instance_id: str
    code: str
    not_before: float


class Notices(Protocol):
    """The announcements for one cluster."""

    def receive(self, wait_s: float) -> list[Message]:
        """Return up to ten messages; wait up to `wait_s` (at most 20) for the first.

        Messages have no order. Each is delivered at least once, and again after seconds, also to a
        later leader, unless it is deleted.

        Raises:
            NotFound: the cluster has no queue.
            Retryable: no answer.

        """
        ...

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages. Idempotent; one that the queue fails to delete is delivered again.

        Raises:
            Retryable: no answer; call again, or receive the messages again.

        """
        ...

    def scheduled(self) -> list[ScheduledEvent]:
        """List future events of all instances of the account and region; may be minutes old.

        Raises:
            Retryable: no answer.

        """
        ...
