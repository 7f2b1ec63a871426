"""The fault switch's board: which faults are in force and what they do to a call. Pure: time is passed in.

Faults are put on by `POST /_mesaform/faults` as JSON objects with a `kind`; each may end by itself after `count` uses or `duration_s`.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec

from mesaform.common.errors import BadInput

Via = Literal["both", "queue", "metadata"]
EventCode = Literal[
    "instance-stop", "instance-retirement", "instance-reboot", "system-reboot", "system-maintenance"
]


class Timed(msgspec.Struct, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """What every fault may have: an end after `count` uses or after `duration_s` seconds."""

    count: int | None = None
    duration_s: float | None = None


class Capacity(Timed, tag="capacity", kw_only=True):
    """InsufficientInstanceCapacity for launches that match all that is given; a use is one refused launch."""

    type: str | None = None
    zone: str | None = None
    capacity: str | None = None  # on-demand | spot


class Throttle(Timed, tag="throttle", kw_only=True):
    """RequestLimitExceeded for calls (all EC2 calls, or `actions`); with `rate`, only for what exceeds so many calls a second."""

    actions: tuple[str, ...] = ()
    rate: float | None = None


class Lag(Timed, tag="lag", kw_only=True):
    """EC2's Describe calls answer as of `seconds` ago."""

    seconds: float


class SpotInterruption(Timed, tag="spot_interruption", kw_only=True):
    """A notice now, and the instance's termination `after_s` seconds later (AWS: 120). `via`: on both ways that AWS tells it, or on one."""

    instance_id: str
    after_s: float = 120.0
    via: Via = "both"


class Rebalance(Timed, tag="rebalance", kw_only=True):
    """A rebalance recommendation for the instance, now."""

    instance_id: str
    via: Via = "both"


class Scheduled(Timed, tag="scheduled_event", kw_only=True):
    """A scheduled event of the instance, known now: it is stopped, retired or restarted `after_s` seconds later."""

    instance_id: str
    code: EventCode = "instance-retirement"
    after_s: float = 86400.0
    via: Via = "both"


class Redelivery(Timed, tag="redelivery", kw_only=True):
    """Each announcement reaches the queue so many times."""

    copies: int = 2


class ZoneOutage(Timed, tag="zone_outage", kw_only=True):
    """Every instance of the zone dies at once; launches there find no capacity."""

    zone: str


class BootDelay(Timed, tag="boot_delay", kw_only=True):
    """Instances stay pending `seconds` before they boot."""

    seconds: float


class DelayedResponse(Timed, tag="delayed_response", kw_only=True):
    """The named calls are carried out at once, and their answers come `seconds` late: a caller may die in between. A use is one call."""

    actions: tuple[str, ...]
    seconds: float


class IgnoredCall(Timed, tag="ignored_call", kw_only=True):
    """TerminateInstances is answered as ever and not carried out. A use is one call."""


Fault = (
    Capacity
    | Throttle
    | Lag
    | SpotInterruption
    | ZoneOutage
    | BootDelay
    | DelayedResponse
    | Rebalance
    | Scheduled
    | Redelivery
    | IgnoredCall
)

Announcement = SpotInterruption | Rebalance | Scheduled
"""The faults that announce what will happen to an instance."""


class Active(msgspec.Struct, kw_only=True):
    """A fault on the board. `left` counts down its uses; `allowance` is a throttle's bucket of calls."""

    id: str
    fault: Fault
    since: float
    left: int | None = None
    allowance: float = 0.0
    refilled: float = 0.0


def parse(body: bytes) -> Fault:
    """A fault from JSON.

    Raises:
        BadInput: it is none; the message says which field is wrong.

    """
    try:
        return cast("Fault", msgspec.json.decode(body, type=Fault))
    except msgspec.DecodeError as error:
        raise BadInput(
            str(error),
            where="fault",
            fix="kinds: capacity, throttle, lag, spot_interruption, zone_outage, boot_delay, delayed_response, rebalance, scheduled_event, redelivery, "
            "ignored_call",
        ) from None


class FaultRegistry:
    """The faults in force. Every question takes `now` (seconds since the epoch) and may use a fault up."""

    def __init__(self, active: list[Active] | None = None, sequence: int = 0) -> None:
        self._active = active or []
        self._sequence = sequence

    @classmethod
    def load(cls, data: bytes) -> FaultRegistry:
        sequence, active = msgspec.json.decode(data, type=tuple[int, list[Active]])
        return cls(active, sequence)

    def dump(self) -> bytes:
        return msgspec.json.encode((self._sequence, self._active))

    def add(self, fault: Fault, now: float) -> str:
        """Put a fault on the board; the answer names it."""
        self._sequence += 1
        name = f"fault-{self._sequence}"
        self._active.append(
            Active(id=name, fault=fault, since=now, left=fault.count, allowance=1.0, refilled=now)
        )
        return name

    def clear(self, name: str | None = None) -> int:
        """Take one fault or all off; how many went."""
        kept = [item for item in self._active if name is not None and item.id != name]
        gone = len(self._active) - len(kept)
        self._active = kept
        return gone

    def listing(self, now: float) -> list[dict[str, Any]]:
        """The faults in force, as they were put on, with `id`, `age_s` and the uses left."""
        self._expire(now)
        return [
            {
                "id": item.id,
                "age_s": round(now - item.since, 1),
                "left": item.left,
                **msgspec.to_builtins(item.fault),
            }
            for item in self._active
        ]

    def refuses(self, instance_type: str, zone: str, capacity: str, now: float) -> bool:
        """Whether a launch of this offering finds no capacity. Uses up one `count` of the fault that says so."""
        for item in self._in_force(Capacity, now):
            fault = item.fault
            wanted = ((fault.type, instance_type), (fault.zone, zone), (fault.capacity, capacity))
            if all(value is None or value == actual for value, actual in wanted):
                self._use(item)
                return True
        return any(item.fault.zone == zone for item in self._in_force(ZoneOutage, now))

    def throttles(self, action: str, now: float) -> bool:
        """Whether this call is one too many."""
        for item in self._in_force(Throttle, now):
            fault = item.fault
            if fault.actions and action not in fault.actions:
                continue
            if fault.rate is not None and self._draws(item, fault.rate, now):
                continue
            self._use(item)
            return True
        return False

    def names(self, action: str, now: float) -> bool:
        """Whether a throttle is in force that names this action."""
        return any(action in item.fault.actions for item in self._in_force(Throttle, now))

    def lag_s(self, now: float) -> float:
        return max((item.fault.seconds for item in self._in_force(Lag, now)), default=0.0)

    def ignores_termination(self, now: float) -> bool:
        """Whether this termination does not take."""
        for item in self._in_force(IgnoredCall, now):
            self._use(item)
            return True
        return False

    def boot_delay_s(self, now: float) -> float:
        return max((item.fault.seconds for item in self._in_force(BootDelay, now)), default=0.0)

    def response_delay_s(self, action: str, now: float) -> float:
        """How long the answer to this call is kept back."""
        found = [
            item for item in self._in_force(DelayedResponse, now) if action in item.fault.actions
        ]
        for item in found:
            self._use(item)
        return max((item.fault.seconds for item in found), default=0.0)

    def announced(
        self, now: float
    ) -> list[tuple[SpotInterruption | Rebalance | Scheduled, str, float, bool]]:
        """What is announced of instances: the fault, its id, when it comes, and whether that time has come (which takes it off)."""
        found = []
        for item in self._in_force((SpotInterruption, Rebalance, Scheduled), now):
            at = item.since + getattr(item.fault, "after_s", 0.0)
            if at <= now:
                self._active.remove(item)
            found.append((item.fault, item.id, at, at <= now))
        return found

    def copies(self, now: float) -> int:
        """How often each announcement is delivered."""
        return max((item.fault.copies for item in self._in_force(Redelivery, now)), default=1)

    def zones_out(self, now: float) -> set[str]:
        return {item.fault.zone for item in self._in_force(ZoneOutage, now)}

    def _draws(self, item: Active, rate: float, now: float) -> bool:
        burst = max(1.0, rate)
        item.allowance = min(burst, item.allowance + (now - item.refilled) * rate)
        item.refilled = now
        if item.allowance < 1.0:
            return False
        item.allowance -= 1.0
        return True

    def _use(self, item: Active) -> None:
        if item.left is None:
            return
        item.left -= 1
        if item.left <= 0:
            self._active.remove(item)

    def _expire(self, now: float) -> None:
        self._active = [
            item
            for item in self._active
            if item.fault.duration_s is None or item.since + item.fault.duration_s > now
        ]

    def _in_force(self, kind: type[Any] | tuple[type[Any], ...], now: float) -> list[Any]:
        self._expire(now)
        return [item for item in self._active if isinstance(item.fault, kind)]
