"""Fakes of the ports `Fleet`, `Ledger`, `Control` and `Notices`.

They model lack of capacity, delays of listings, lost answers and errors, and pass the same contract
suite as the adapters (tests/integration/aws/test_contract.py). No threads; the clock is injected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.aws import ledger_rows
from mesaform.aws.ports import (
    Capacity,
    LaunchRequest,
    LaunchResult,
    Machine,
    MachineState,
    Message,
    Offering,
    Row,
    ScheduledEvent,
    Template,
)
from mesaform.aws.ports.control import Heartbeat, Overrides
from mesaform.aws.pricing import price_book
from mesaform.common.errors import CloudError, NotFound, NotOwned, Permanent, Retryable
from mesaform.common.records import Codec, Unreadable, Value
from mesaform.common.resources import Resources
from mesaform.common.set_aside import SetAside
from mesaform.topology.capacity import agent_resources
from mesaform.topology.names import Tag

SIZES: Mapping[str, tuple[int, int]] = {
    "t3.medium": (2, 4096),
    "m5.large": (2, 8192),
    "m5.xlarge": (4, 16384),
    "m5.2xlarge": (8, 32768),
    "m5.4xlarge": (16, 65536),
    "c5.large": (2, 4096),
    "c5.xlarge": (4, 8192),
    "c5.4xlarge": (16, 32768),
    "m6g.large": (2, 8192),
    "m6g.xlarge": (4, 16384),
    "r5.large": (2, 16384),
    "r5.xlarge": (4, 32768),
}
"""Virtual cpus and memory in MiB of the types that the fake offers."""


@dataclass
class _Listed:
    machine: Machine
    visible_at: float


FIRST_TEMPLATE = Template("1", frozenset({"1"}))
"""What pools have whose launch template no test changed."""


class FakeFleet:
    """See `Fleet`.

    Args:
        clock: seconds since the epoch.
        lag_s: for how long a launched machine is missing in `machines`.

    Attributes:
        stock: remaining machines by key of the offering; others have no limit.
        fail_next: an error that the next call raises, once, before it does anything.
        pool_templates: launch templates by pool; machines get the tag of the newest version.
        lose_next_answer: the next launch succeeds, but raises `Retryable`.

    """

    def __init__(self, clock: Callable[[], float], lag_s: float = 0.0) -> None:
        self.clock = clock
        self.lag_s = lag_s
        self.stock: dict[str, int] = {}
        self.fail_next: CloudError | None = None
        self.lose_next_answer = False
        self.pool_templates: dict[str, Template] = {"default": FIRST_TEMPLATE}
        self.launches: list[LaunchRequest] = []
        self._listed: dict[str, _Listed] = {}
        self._answers: dict[str, tuple[LaunchRequest, LaunchResult]] = {}

    def add(self, machine: Machine) -> None:
        """Add a machine as Terraform does."""
        self._listed[machine.instance_id] = _Listed(machine, self.clock())

    def set_state(self, instance_id: str, state: MachineState) -> None:
        """Change the state of a machine as the cloud does: boot, stop, interruption."""
        listed = self._listed[instance_id]
        listed.machine = replace(listed.machine, state=state)

    def all_machines(self) -> list[Machine]:
        """Return every machine, those that EC2 does not list yet included."""
        return [listed.machine for listed in self._listed.values()]

    def machines(self, cluster: str) -> list[Machine]:
        self._maybe_fail()
        visible = (
            listed.machine for listed in self._listed.values() if listed.visible_at <= self.clock()
        )
        return [machine for machine in visible if machine.tags.get(Tag.CLUSTER) == cluster]

    def launch(self, request: LaunchRequest) -> LaunchResult:
        self._maybe_fail()
        if request.token in self._answers:
            before, result = self._answers[request.token]
            if before != request:
                raise Permanent(
                    "IdempotentParameterMismatch: the token was used for another request",
                    where=request.token,
                )
            return result
        self.launches.append(request)
        result = self._buy(request)
        self._answers[request.token] = (request, result)
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise Retryable("the connection broke", after_s=1.0, where="launch")
        return result

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        self._maybe_fail()
        listed_machines = [self._listed[name] for name in instance_ids if name in self._listed]
        for listed in listed_machines:
            tags = listed.machine.tags
            if (tags.get(Tag.CLUSTER), tags.get(Tag.ROLE), tags.get(Tag.MANAGED_BY)) != (
                cluster,
                "agent",
                "autoscaler",
            ):
                raise NotOwned(
                    "not the autoscaler's to terminate", where=listed.machine.instance_id
                )
        for listed in listed_machines:
            listed.machine = replace(listed.machine, state="terminated")

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int = 40
    ) -> list[Offering]:
        self._maybe_fail()
        offerings: list[Offering] = []
        for name in types:
            if name not in SIZES:
                raise NotFound(
                    f"no instance type {name}",
                    fix=f"did you mean {price_book.nearest_type(name, SIZES)}?",
                )
            resources = agent_resources(*SIZES[name], disk_gib)
            capacities: tuple[Capacity, ...] = ("on-demand", "spot")
            offerings.extend(
                self._offering(name, zone, capacity, resources)
                for zone in zones
                for capacity in capacities
            )
        return offerings

    def templates(self, cluster: str, needed: Collection[str] = ()) -> Mapping[str, Template]:
        self._maybe_fail()
        is_listed = any(
            listed.machine.tags.get(Tag.CLUSTER) == cluster for listed in self._listed.values()
        )
        known = self.pool_templates if is_listed else {}
        return {**dict.fromkeys(needed, FIRST_TEMPLATE), **known}

    @staticmethod
    def _offering(name: str, zone: str, capacity: Capacity, resources: Resources) -> Offering:
        return Offering(
            name, zone, capacity, price_book.usd_per_hour(name, capacity) or 0.0, resources
        )

    def _buy(self, request: LaunchRequest) -> LaunchResult:
        machines: list[Machine] = []
        without_capacity: list[str] = []
        for offering in request.offerings:
            while len(machines) < request.count and self.stock.get(offering.key, 1) > 0:
                if offering.key in self.stock:
                    self.stock[offering.key] -= 1
                machines.append(self._machine(request, offering))
            if len(machines) < request.count:
                without_capacity.append(offering.key)
        return LaunchResult(tuple(machines), tuple(without_capacity))

    def _machine(self, request: LaunchRequest, offering: Offering) -> Machine:
        number = len(self._listed) + 1
        tags = {
            **request.tags,
            Tag.CLUSTER: request.cluster,
            Tag.ROLE: "agent",
            Tag.POOL: request.pool,
            Tag.MANAGED_BY: "autoscaler",
            Tag.LAUNCH: request.token,
        }
        if request.pool in self.pool_templates:
            tags[Tag.TEMPLATE_VERSION] = self.pool_templates[request.pool].latest
        machine = Machine(
            instance_id=f"i-{number:017x}",
            instance_type=offering.instance_type,
            zone=offering.zone,
            capacity=offering.capacity,
            state="pending",
            private_address=f"127.42.{number // 250}.{number % 250 + 1}",
            public_address="",
            launched_at=self.clock(),
            tags=tags,
        )
        self._listed[machine.instance_id] = _Listed(machine, self.clock() + self.lag_s)
        return machine

    def _maybe_fail(self) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error


class FakeLedger:
    """See `Ledger`. `writes` counts the writing calls; the next one raises `fail_next`, once."""

    def __init__(self) -> None:
        self.records: dict[str, Row] = {}
        self.fail_next: CloudError | None = None
        self.writes = 0

    def append(self, record: Mapping[str, object]) -> None:
        self.append_many([record])

    def append_many(self, records: Iterable[Mapping[str, object]]) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        self.writes += 1
        for record in records:
            row = ledger_rows.stamped(record, "fake", len(self.records))
            self.records[row[ledger_rows.ROW]] = row

    def compact(self, now: float) -> int:  # noqa: ARG002 - the fake has no parts
        return 0

    def read(
        self, since: float = 0.0, limit: int | None = None, kinds: Collection[str] = ()
    ) -> list[Row]:
        wanted = (
            record
            for record in self.records.values()
            if record["at"] >= since and (not kinds or record["kind"] in kinds)
        )
        rows = ledger_rows.in_order(wanted)
        return rows if limit is None else rows[len(rows) - min(limit, len(rows)) :]


class FakeControl:
    """See `Control`."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._heartbeat: Heartbeat | None = None
        self._overrides: Overrides = ()
        self._records: dict[str, bytes] = {}
        self.fail_next: CloudError | None = None

    def freeze(self, reason: str) -> None:
        self._reason = reason

    def unfreeze(self) -> None:
        self._reason = None

    def frozen_reason(self) -> str | None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        return self._reason

    def write_heartbeat(
        self,
        at: float,
        *,
        frozen: bool,
        address: str,
        planner_state: Mapping[str, object] | None = None,
        set_aside: Sequence[SetAside] = (),
        reasons: Sequence[str] = (),
    ) -> None:
        state = dict(planner_state or {})
        self._heartbeat = {"at": at, "frozen": frozen, "address": address, "planner_state": state}
        if set_aside:
            self._heartbeat["set_aside"] = list(set_aside)
        if reasons:
            self._heartbeat["reasons"] = list(reasons)

    def last_heartbeat(self) -> Heartbeat | None:
        return self._heartbeat

    def write_record(self, name: str, codec: Codec[Value], value: Value) -> None:
        self._records[name] = codec.encode(value)

    def write_bytes(self, name: str, body: bytes) -> None:
        """Store a record as somebody else would write it."""
        self._records[name] = body

    def read_record(self, name: str, codec: Codec[Value]) -> Value | Unreadable | None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        body = self._records.get(name)
        return None if body is None else codec.decode(body)

    def overrides(self) -> Overrides:
        return self._overrides

    def update_overrides(self, change: Callable[[Overrides], Overrides]) -> Overrides:
        self._overrides = change(self._overrides)
        return self._overrides


class FakeNotices:
    """See `Notices`. Received messages are delivered again after `visibility_s`, in another order.

    Attributes:
        fail_next: an error that the next call raises, once.
        events: the result of `scheduled`.

    """

    def __init__(self, clock: Callable[[], float], visibility_s: float = 10.0) -> None:
        self.clock = clock
        self.visibility_s = visibility_s
        self.fail_next: CloudError | None = None
        self.events: list[ScheduledEvent] = []
        self._waiting: dict[str, tuple[str, float, int]] = {}
        """By id: the body, when it is visible, and how many times it was received."""
        self._sent = 0

    def send(self, body: str) -> str:
        """Send a message as EventBridge does; return its id."""
        self._sent += 1
        name = f"m-{self._sent}"
        self._waiting[name] = (body, 0.0, 0)
        return name

    @property
    def left(self) -> list[str]:
        """Ids of the messages that were not deleted."""
        return list(self._waiting)

    def receive(self, wait_s: float) -> list[Message]:  # noqa: ARG002  # a fake does not wait
        self._maybe_fail()
        messages: list[Message] = []
        for name, (body, visible_at, times) in reversed(list(self._waiting.items())):
            if visible_at <= self.clock() and len(messages) < 10:
                self._waiting[name] = (body, self.clock() + self.visibility_s, times + 1)
                messages.append(Message(name, f"{name}/{times + 1}", body))
        return messages

    def delete(self, messages: Sequence[Message]) -> None:
        self._maybe_fail()
        for message in messages:
            listed = self._waiting.get(message.id)
            if listed is not None and message.receipt == f"{message.id}/{listed[2]}":
                del self._waiting[message.id]

    def scheduled(self) -> list[ScheduledEvent]:
        self._maybe_fail()
        return list(self.events)

    def _maybe_fail(self) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
