"""What a machine's metadata says of its own end, read as AWS writes it. Pure: who asks and who is told is not here.

| Path below `meta-data/` | Says |
|---|---|
| `spot/instance-action` | a spot machine ends at a time (absent until then) |
| `events/recommendations/rebalance` | it is more likely to be interrupted (absent until then) |
| `events/maintenance/scheduled` | AWS will restart, stop or retire it; a list, mostly empty |
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mesaform.topology.user_data import MachineNotice

ACTION = "meta-data/spot/instance-action"
REBALANCE = "meta-data/events/recommendations/rebalance"
SCHEDULED = "meta-data/events/maintenance/scheduled"


def read(instance_id: str, get: Callable[[str], str | None], now: float) -> list[MachineNotice]:
    """All that stands now, gravest first. `get` gives a path's text, or None. What cannot be understood is not told."""
    found = []
    for path, understand in ((ACTION, _action), (SCHEDULED, _scheduled), (REBALANCE, _rebalance)):
        text = get(path)
        if not text:
            continue
        try:
            found += understand(instance_id, json.loads(text), now)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def _action(instance_id: str, said: Any, now: float) -> list[MachineNotice]:
    return [
        MachineNotice(
            instance_id,
            "interruption",
            now,
            _moment(said["time"]),
            f"spot interruption ({said['action']})",
        )
    ]


def _scheduled(instance_id: str, said: Any, now: float) -> list[MachineNotice]:
    """The next event that is still to come."""
    events = [
        (_moment(event["NotBefore"]), str(event["Code"]))
        for event in said
        if event.get("State", "active") == "active"
    ]
    return [
        MachineNotice(instance_id, "scheduled", now, at, code.replace("-", " "))
        for at, code in sorted(events)[:1]
    ]


def _rebalance(instance_id: str, said: Any, _now: float) -> list[MachineNotice]:
    return [
        MachineNotice(
            instance_id, "rebalance", _moment(said["noticeTime"]), 0.0, "rebalance recommendation"
        )
    ]


def _moment(text: str) -> float:
    """Seconds since the epoch, of `2026-11-21T12:00:00Z` or `21 Nov 2026 12:00:00 GMT`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = parsedate_to_datetime(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
