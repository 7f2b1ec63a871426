"""The registry of faults: which are in force and what they do to a call. Pure: time is an argument.

A fault is added by `POST /_mesaform/faults` as a JSON object with a `kind`. It ends after `count`
uses or `duration_s` seconds, or when it is cleared.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar, cast

import msgspec

from mesaform.common.errors import BadInput
from mesaform.common.json_types import JsonObject, as_list
from mesaform.common.records import Codec

Via = Literal["both", "queue", "metadata"]
"""The ways of an announcement: EventBridge's queue, the instance's metadata, or both."""
EventCode = Literal[
    "instance-stop", "instance-retirement", "instance-reboot", "system-reboot", "system-maintenance"
]


class Timed(msgspec.Struct, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """The fields of every fault: it ends after `count` uses or after `duration_s` seconds."""

    count: int | None = None
    duration_s: float | None = None


class Capacity(Timed, tag="capacity", kw_only=True):
    """InsufficientInstanceCapacity for launches that match every given field.

    `capacity` is `on-demand` or `spot`. A use is one refused launch.
    """

    type: str | None = None
    zone: str | None = None
    capacity: str | None = None

    def matches(self, instance_type: str, zone: str, capacity: str) -> bool:
        """Whether a launch of this offering is refused."""
        wanted = ((self.type, instance_type), (self.zone, zone), (self.capacity, capacity))
        return all(value is None or value == actual for value, actual in wanted)


class Throttle(Timed, tag="throttle", kw_only=True):
    """RequestLimitExceeded for all EC2 calls or for `actions`.

    With `rate` only for calls beyond so many a second. A use is one refused call.
    """

    actions: tuple[str, ...] = ()
    rate: float | None = None


class Lag(Timed, tag="lag", kw_only=True):
    """EC2's Describe calls return the state of `seconds` ago."""

    seconds: float


class SpotInterruption(Timed, tag="spot_interruption", kw_only=True):
    """A notice now, and the instance's termination `after_s` seconds later (AWS: 120)."""

    instance_id: str
    after_s: float = 120.0
    via: Via = "both"


class Rebalance(Timed, tag="rebalance", kw_only=True):
    """A rebalance recommendation for the instance, now."""

    instance_id: str
    via: Via = "both"


class Scheduled(Timed, tag="scheduled_event", kw_only=True):
    """A scheduled event, announced now: a stop, retirement or reboot `after_s` seconds later."""

    instance_id: str
    code: EventCode = "instance-retirement"
    after_s: float = 86400.0
    via: Via = "both"


class Redelivery(Timed, tag="redelivery", kw_only=True):
    """Each announcement reaches the queue `copies` times."""

    copies: int = 2


class ZoneOutage(Timed, tag="zone_outage", kw_only=True):
    """Every instance of the zone is killed; launches there find no capacity."""

    zone: str


class BootDelay(Timed, tag="boot_delay", kw_only=True):
    """Instances stay pending for `seconds` before they boot."""

    seconds: float


class DelayedResponse(Timed, tag="delayed_response", kw_only=True):
    """Calls of `actions` are executed at once and answered `seconds` later. A use is one call.

    A caller may end in between.
    """

    actions: tuple[str, ...]
    seconds: float


class IgnoredCall(Timed, tag="ignored_call", kw_only=True):
    """TerminateInstances is answered as a success and not executed. A use is one call."""


class Denied(Timed, tag="denied", kw_only=True):
    """Calls that need one of these IAM actions, such as `ec2:RunInstances`, are denied.

    The policy simulator says so too. A denied call is no use of the fault.
    """

    actions: tuple[str, ...]


class QuotaValue(Timed, tag="quota", kw_only=True):
    """The value of a quota of Service Quotas. Launches beyond a quota of vCPUs are refused."""

    code: str
    value: float


class RegionClosed(Timed, tag="region_closed", kw_only=True):
    """The account has not opted in to the region: its calls are refused."""

    region: str


class ZoneClosed(Timed, tag="zone_closed", kw_only=True):
    """The account does not have this zone."""

    zone: str


class NotSold(Timed, tag="not_sold", kw_only=True):
    """EC2 does not sell the type in the zone; without a zone in none."""

    type: str
    zone: str | None = None

    def matches(self, instance_type: str, zone: str) -> bool:
        """Whether a type is not sold in a zone."""
        return self.type == instance_type and self.zone in (None, zone)


class DefaultKey(Timed, tag="default_key", kw_only=True):
    """The account's default key for EBS is this one instead of `alias/aws/ebs`."""

    key: str


class GatewaysBlocked(Timed, tag="gateways_blocked", kw_only=True):
    """VPC Block Public Access forbids internet gateways in the region."""


class ExpiredCredentials(Timed, tag="expired_credentials", kw_only=True):
    """The operator's credentials expire: every call of his is refused. A refusal is no use.

    With `actions` from the first call of one of them on, such as `TerminateInstances`; calls of S3
    are named by method, such as `PUT`. Roles and users are not affected.
    """

    actions: tuple[str, ...] = ()


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
    | Denied
    | QuotaValue
    | RegionClosed
    | ZoneClosed
    | NotSold
    | DefaultKey
    | GatewaysBlocked
    | ExpiredCredentials
)

Announcement = SpotInterruption | Rebalance | Scheduled
"""The faults that announce what will happen to an instance."""


F = TypeVar("F")


class Active(msgspec.Struct, Generic[F], kw_only=True):
    """A fault in force since `since` (seconds since the epoch).

    Attributes:
        left: how many uses remain; None means that uses are not counted.
        allowance: the calls that a throttle lets through at once.
        refilled: when the allowance was computed last.

    """

    id: str
    fault: F
    since: float
    left: int | None = None
    allowance: float = 0.0
    refilled: float = 0.0


class Due(msgspec.Struct, frozen=True):
    """An announcement: the fault, its id, when it happens, and whether that is now."""

    fault: Announcement
    id: str
    at: float
    is_due: bool


def parse(body: bytes) -> Fault:
    """A fault from JSON.

    Raises:
        BadInput: it is not a fault; the message names the field.

    """
    try:
        return cast("Fault", msgspec.json.decode(body, type=Fault))
    except msgspec.DecodeError as error:
        raise BadInput(
            str(error),
            where="fault",
            fix="kinds: capacity, throttle, lag, spot_interruption, zone_outage, boot_delay, "
            "delayed_response, rebalance, scheduled_event, redelivery, ignored_call, denied, "
            "quota, region_closed, zone_closed, not_sold, default_key, gateways_blocked, "
            "expired_credentials",
        ) from None


class RegistryState(msgspec.Struct, frozen=True):
    """The number of the last fault, and the faults in force."""

    sequence: int
    active: list[Active[Fault]]


REGISTRY = Codec(
    "localcloud.faults",
    RegistryState,
    upgrades={0: lambda pair: {"sequence": as_list(pair)[0], "active": as_list(pair)[1]}},
)
"""Version 0 was the pair `[sequence, active]`."""


class FaultRegistry:
    """The faults in force. Every question takes `now` in seconds since the epoch."""

    def __init__(self, active: list[Active[Fault]] | None = None, sequence: int = 0) -> None:
        self._active = active or []
        self._sequence = sequence

    def state(self) -> RegistryState:
        """The registry as a record."""
        return RegistryState(self._sequence, self._active)

    @classmethod
    def of(cls, state: RegistryState) -> FaultRegistry:
        """The registry of a record."""
        return cls(state.active, state.sequence)

    def dump(self) -> bytes:
        """The registry as it is, for `reset`."""
        return msgspec.json.encode(self.state())

    def reset(self, dump: bytes) -> None:
        """Go back to what `dump` gave."""
        state = msgspec.json.decode(dump, type=RegistryState)
        self._sequence, self._active = state.sequence, state.active

    def add(self, fault: Fault, now: float) -> str:
        """Put a fault in force; its id."""
        self._sequence += 1
        name = f"fault-{self._sequence}"
        self._active.append(
            Active(id=name, fault=fault, since=now, left=fault.count, allowance=1.0, refilled=now)
        )
        return name

    def clear(self, name: str | None = None) -> int:
        """Remove one fault or all; the answer is how many."""
        others = [item for item in self._active if name is not None and item.id != name]
        count = len(self._active) - len(others)
        self._active = others
        return count

    def listing(self, now: float) -> list[JsonObject]:
        """The faults in force as they were added, with `id`, `age_s` and `left`."""
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
        """Whether a launch of this offering finds no capacity. Uses the fault that says so."""
        for item in self._in_force(Capacity, now):
            if item.fault.matches(instance_type, zone, capacity):
                self._use(item)
                return True
        return zone in self.zones_out(now)

    def throttles(self, action: str, now: float) -> bool:
        """Whether this call is refused. Uses the fault that says so."""
        for item in self._in_force(Throttle, now):
            fault = item.fault
            if fault.actions and action not in fault.actions:
                continue
            if fault.rate is not None and self._draw(item, fault.rate, now):
                continue
            self._use(item)
            return True
        return False

    def names(self, action: str, now: float) -> bool:
        """Whether a throttle in force names this action."""
        return any(action in item.fault.actions for item in self._in_force(Throttle, now))

    def settings(self, kind: type[F], now: float) -> list[F]:
        """The faults of a kind in force that change what the account is; asking is no use."""
        return [item.fault for item in self._in_force(kind, now)]

    def denies(self, action: str, now: float) -> bool:
        """Whether calls that need this IAM action are denied."""
        return any(action in fault.actions for fault in self.settings(Denied, now))

    def closes(self, region: str, now: float) -> bool:
        """Whether the account has not opted in to a region."""
        return any(fault.region == region for fault in self.settings(RegionClosed, now))

    def has_expired(self, action: str, now: float) -> bool:
        """Whether the operator's credentials have expired at this call, which may begin it."""
        for item in self._in_force(ExpiredCredentials, now):
            if not item.fault.actions or action.partition(" ")[0] in item.fault.actions:
                item.fault.actions = ()
                return True
        return False

    def lag_s(self, now: float) -> float:
        """How far EC2's Describe calls lag behind."""
        return max((item.fault.seconds for item in self._in_force(Lag, now)), default=0.0)

    def ignores_termination(self, now: float) -> bool:
        """Whether this TerminateInstances call is ignored. Uses the fault that says so."""
        for item in self._in_force(IgnoredCall, now):
            self._use(item)
            return True
        return False

    def boot_delay_s(self, now: float) -> float:
        """How long instances stay pending."""
        return max((item.fault.seconds for item in self._in_force(BootDelay, now)), default=0.0)

    def response_delay_s(self, action: str, now: float) -> float:
        """How long the response to this call is delayed. Uses the faults that say so."""
        items = [
            item for item in self._in_force(DelayedResponse, now) if action in item.fault.actions
        ]
        for item in items:
            self._use(item)
        return max((item.fault.seconds for item in items), default=0.0)

    def announced(self, now: float) -> list[Due]:
        """The announcements in force. One that is due is removed."""
        self._expire(now)
        announcements = []
        for item in list(self._active):
            fault = item.fault
            if not isinstance(fault, Announcement):
                continue
            at = item.since + (0.0 if isinstance(fault, Rebalance) else fault.after_s)
            if at <= now:
                self._remove(item.id)
            announcements.append(Due(fault, item.id, at, at <= now))
        return announcements

    def copies(self, now: float) -> int:
        """How often each announcement is delivered."""
        return max((item.fault.copies for item in self._in_force(Redelivery, now)), default=1)

    def zones_out(self, now: float) -> set[str]:
        """The zones that are out."""
        return {item.fault.zone for item in self._in_force(ZoneOutage, now)}

    def _draw(self, item: Active[Throttle], rate: float, now: float) -> bool:
        """Take one call from a throttle's token bucket; False if it is empty."""
        burst = max(1.0, rate)
        item.allowance = min(burst, item.allowance + (now - item.refilled) * rate)
        item.refilled = now
        if item.allowance < 1.0:
            return False
        item.allowance -= 1.0
        return True

    def _use(self, item: Active[F]) -> None:
        if item.left is None:
            return
        item.left -= 1
        if item.left <= 0:
            self._remove(item.id)

    def _remove(self, name: str) -> None:
        self._active = [item for item in self._active if item.id != name]

    def _expire(self, now: float) -> None:
        self._active = [
            item
            for item in self._active
            if item.fault.duration_s is None or item.since + item.fault.duration_s > now
        ]

    def _in_force(self, kind: type[F], now: float) -> list[Active[F]]:
        self._expire(now)
        return [cast("Active[F]", item) for item in self._active if isinstance(item.fault, kind)]
