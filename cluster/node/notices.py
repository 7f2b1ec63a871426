"""Notices about the end of this machine, parsed from the instance metadata service. No I/O.

| Path below `meta-data/` | Content |
|---|---|
| `spot/instance-action` | when AWS ends this spot instance (absent until then) |
| `events/recommendations/rebalance` | its interruption is more likely (absent until then) |
| `events/maintenance/scheduled` | list of planned restarts, stops and retirements, mostly empty |

Source: Amazon EC2 User Guide, "Spot Instance interruption notices", "EC2 instance rebalance
recommendations" and "Scheduled events for your instances".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from mesaform.topology.user_data import MachineNotice

ACTION = "meta-data/spot/instance-action"
REBALANCE = "meta-data/events/recommendations/rebalance"
SCHEDULED = "meta-data/events/maintenance/scheduled"


class _InstanceAction(msgspec.Struct, frozen=True):
    action: str
    time: str


class _Rebalance(msgspec.Struct, frozen=True, rename="camel"):
    notice_time: str


class _ScheduledEvent(msgspec.Struct, frozen=True, rename="pascal"):
    not_before: str
    code: str
    state: str = "active"


def read(instance_id: str, get: Callable[[str], str | None], now: float) -> list[MachineNotice]:
    """Every present notice, most severe first. Unreadable metadata is ignored.

    `get` returns the text of a path or None; `now` is epoch seconds.
    """
    notices = []
    for path, parse in _PARSERS:
        text = get(path)
        if not text:
            continue
        try:
            notices += parse(instance_id, text, now)
        except (msgspec.DecodeError, ValueError, TypeError):
            continue
    return notices


def _parse_action(instance_id: str, text: str, now: float) -> list[MachineNotice]:
    action = msgspec.json.decode(text, type=_InstanceAction)
    what = f"spot interruption ({action.action})"
    return [MachineNotice(instance_id, "interruption", now, _epoch_s(action.time), what)]


def _parse_scheduled(instance_id: str, text: str, now: float) -> list[MachineNotice]:
    """The earliest event that is still active."""
    events = msgspec.json.decode(text, type=list[_ScheduledEvent])
    active = sorted(
        (_epoch_s(event.not_before), event.code) for event in events if event.state == "active"
    )
    return [
        MachineNotice(instance_id, "scheduled", now, starts_at, code.replace("-", " "))
        for starts_at, code in active[:1]
    ]


def _parse_rebalance(instance_id: str, text: str, _now: float) -> list[MachineNotice]:
    noticed_at = _epoch_s(msgspec.json.decode(text, type=_Rebalance).notice_time)
    return [MachineNotice(instance_id, "rebalance", noticed_at, 0.0, "rebalance recommendation")]


def _epoch_s(text: str) -> float:
    """Epoch seconds of `2026-11-21T12:00:00Z` or `21 Nov 2026 12:00:00 GMT`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = parsedate_to_datetime(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_PARSERS = (
    (ACTION, _parse_action),
    (SCHEDULED, _parse_scheduled),
    (REBALANCE, _parse_rebalance),
)
"""Most severe first."""
