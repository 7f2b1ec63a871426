"""Parsing of notices from EventBridge, from IMDS as an agent reports it, and from EC2. Pure.

Kinds: `interruption` (a spot instance ends within minutes), `scheduled` (AWS will stop, restart or
retire the instance) and `rebalance` (an interruption is more likely). A repeated, late or
out-of-order notice does not replace a more severe one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from mesaform.autoscaler.model.notice import Notice, NoticeKind
from mesaform.topology.user_data import MachineNotice

WARNING_S = 120.0
"""Warning time of a spot interruption (s); the message lacks the time. Source: EC2 user guide."""


SEVERITY: Mapping[NoticeKind, int] = {"rebalance": 0, "scheduled": 1, "interruption": 2}
PASSED = frozenset({"closed", "completed", "canceled", "cancelled"})


class Unreadable(ValueError):
    """The message is not a known event; the text says what it is."""


@dataclass(frozen=True, slots=True)
class ParsedNotice:
    """A message: notices, instances whose event is withdrawn, instances that changed state."""

    notices: tuple[Notice, ...] = ()
    withdrawn: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def machines(self) -> frozenset[str]:
        return frozenset(
            {*(notice.instance_id for notice in self.notices), *self.withdrawn, *self.changed}
        )


def read(body: str) -> ParsedNotice:
    """Parse a message of the queue.

    Raises:
        Unreadable: it is no event, or an unknown one.
    """
    try:
        event = msgspec.json.decode(body, type=dict[str, Any])
        reader = _READERS.get((event.get("source", ""), event.get("detail-type", "")))
        if reader is None:
            raise Unreadable(f"an event of {event.get('source')!r}, {event.get('detail-type')!r}")
        return reader(event, event["detail"])
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def notice_of_machine(notice: MachineNotice) -> Notice:
    """The notice that an agent read in its instance metadata."""
    return Notice(
        notice.kind, notice.instance_id, notice.at, notice.ends_at, "machine", notice.what
    )


def more_severe(before: Notice | None, new: Notice) -> Notice:
    """Of two notices about a machine the more severe; of the same kind the earlier end."""
    if before is None or SEVERITY[new.kind] > SEVERITY[before.kind]:
        return new
    if new.kind != before.kind:
        return before
    ends = [notice.ends_at for notice in (before, new) if notice.ends_at]
    return replace(before, ends_at=min(ends, default=0.0))


def _interruption(event: Mapping[str, Any], detail: Mapping[str, Any]) -> ParsedNotice:
    at = _moment(event["time"])
    action = str(detail.get("instance-action", "terminate"))
    return ParsedNotice(
        (
            Notice(
                "interruption",
                _id(detail["instance-id"]),
                at,
                at + WARNING_S,
                "queue",
                f"spot interruption ({action})",
            ),
        )
    )


def _rebalance(event: Mapping[str, Any], detail: Mapping[str, Any]) -> ParsedNotice:
    return ParsedNotice(
        (
            Notice(
                "rebalance",
                _id(detail["instance-id"]),
                _moment(event["time"]),
                0.0,
                "queue",
                "rebalance recommendation",
            ),
        )
    )


def _state(_event: Mapping[str, Any], detail: Mapping[str, Any]) -> ParsedNotice:
    return ParsedNotice(changed=(_id(detail["instance-id"]),))


def _health(event: Mapping[str, Any], detail: Mapping[str, Any]) -> ParsedNotice:
    if detail.get("service") != "EC2" or detail.get("eventTypeCategory") != "scheduledChange":
        raise Unreadable(
            f"a health event about {detail.get('service')!r}, {detail.get('eventTypeCategory')!r}"
        )
    machines = tuple(
        str(entity["entityValue"])
        for entity in detail.get("affectedEntities", ())
        if _is_machine(entity.get("entityValue"))
    )
    if str(detail.get("statusCode", "")) in PASSED:
        return ParsedNotice(withdrawn=machines)
    what = (
        str(detail.get("eventTypeCode", "scheduled event"))
        .removeprefix("AWS_EC2_")
        .lower()
        .replace("_", " ")
    )
    at, ends_at = _moment(event["time"]), _moment(detail["startTime"])
    return ParsedNotice(
        tuple(Notice("scheduled", name, at, ends_at, "queue", what) for name in machines)
    )


_READERS = {
    ("aws.ec2", "EC2 Spot Instance Interruption Warning"): _interruption,
    ("aws.ec2", "EC2 Instance Rebalance Recommendation"): _rebalance,
    ("aws.ec2", "EC2 Instance State-change Notification"): _state,
    ("aws.health", "AWS Health Event"): _health,
}


def _is_machine(name: object) -> bool:
    return isinstance(name, str) and name.startswith("i-")


def _id(name: object) -> str:
    if not _is_machine(name):
        raise Unreadable(f"{name!r} is no instance")
    return str(name)


def _moment(text: str) -> float:
    """Seconds since the epoch, of `2026-11-21T12:00:00Z` or `Sat, 21 Nov 2026 12:00:00 GMT`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            raise Unreadable(f"{text!r} is no time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
