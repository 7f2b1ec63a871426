"""A cloud for tests that behaves: capacity runs out, the API lags, an answer gets lost, the next call fails.

Beside the ports and held to the same contract suite as the adapters (tests/integration/aws/test_contract.py). No threads, no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mesaform.aws import ledger_rows
from mesaform.aws.ports import (
    Capacity,
    LaunchRequest,
    LaunchResult,
    Machine,
    MachineState,
    Message,
    Offering,
    ScheduledEvent,
    Template,
)
from mesaform.aws.ports.control import Document, Heartbeat, Overrides
from mesaform.aws.pricing import price_book
from mesaform.common.errors import CloudError, NotFound, NotOwned, Permanent, Retryable
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
    "r5.large": (2, 16384),
    "r5.xlarge": (4, 32768),
}
"""Virtual cpus and memory in MiB of the types that the fake sells."""


@dataclass
class _Held:
    machine: Machine
    visible_at: float


class FakeFleet:
    """See `Fleet`.

    Args:
        clock: seconds since the epoch.
        lag_s: how long a bought machine is missing from `machines`.

    Attributes:
        stock: how many more machines an offering's key has; what is not named never runs out.
        fail_next: raised by the next call, once, before it does anything.
        pool_templates: launch templates by pool; what is bought gets the newest version of its pool's as a tag.
        lose_next_answer: the next launch works, but its answer is lost (`Retryable`).

    """

    def __init__(self, clock: Callable[[], float], lag_s: float = 0.0) -> None:
        self.clock = clock
        self.lag_s = lag_s
        self.stock: dict[str, int] = {}
        self.fail_next: CloudError | None = None
        self.lose_next_answer = False
        self.pool_templates: dict[str, Template] = {"default": Template("1", frozenset({"1"}))}
        self.launches: list[LaunchRequest] = []
        self._held: dict[str, _Held] = {}
        self._answers: dict[str, tuple[LaunchRequest, LaunchResult]] = {}

    def add(self, machine: Machine) -> None:
        """Put a machine there as Terraform would."""
        self._held[machine.instance_id] = _Held(machine, self.clock())

    def set_state(self, instance_id: str, state: MachineState) -> None:
        """What the cloud does by itself: boot, stop, interrupt."""
        held = self._held[instance_id]
        held.machine = replace(held.machine, state=state)

    def machines(self, cluster: str) -> list[Machine]:
        self._maybe_fail()
        seen = (held.machine for held in self._held.values() if held.visible_at <= self.clock())
        return [machine for machine in seen if machine.tags.get(Tag.CLUSTER) == cluster]

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
        known = [self._held[name] for name in instance_ids if name in self._held]
        for held in known:
            tags = held.machine.tags
            if (tags.get(Tag.CLUSTER), tags.get(Tag.ROLE), tags.get(Tag.MANAGED_BY)) != (
                cluster,
                "agent",
                "autoscaler",
            ):
                raise NotOwned("not the autoscaler's to terminate", where=held.machine.instance_id)
        for held in known:
            held.machine = replace(held.machine, state="terminated")

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int = 40
    ) -> list[Offering]:
        self._maybe_fail()
        found: list[Offering] = []
        for name in types:
            if name not in SIZES:
                raise NotFound(
                    f"no instance type {name}",
                    fix=f"did you mean {price_book.nearest_type(name, SIZES)}?",
                )
            resources = agent_resources(*SIZES[name], disk_gib)
            capacities: tuple[Capacity, ...] = ("on-demand", "spot")
            found.extend(
                self._offering(name, zone, capacity, resources)
                for zone in zones
                for capacity in capacities
            )
        return found

    def templates(self, cluster: str) -> Mapping[str, Template]:
        self._maybe_fail()
        return (
            dict(self.pool_templates)
            if any(held.machine.tags.get(Tag.CLUSTER) == cluster for held in self._held.values())
            else {}
        )

    @staticmethod
    def _offering(name: str, zone: str, capacity: Capacity, resources: Any) -> Offering:
        return Offering(
            name, zone, capacity, price_book.usd_per_hour(name, capacity) or 0.0, resources
        )

    def _buy(self, request: LaunchRequest) -> LaunchResult:
        bought: list[Machine] = []
        without: list[str] = []
        for offering in request.offerings:
            while len(bought) < request.count and self.stock.get(offering.key, 1) > 0:
                if offering.key in self.stock:
                    self.stock[offering.key] -= 1
                bought.append(self._machine(request, offering))
            if len(bought) < request.count:
                without.append(offering.key)
        return LaunchResult(tuple(bought), tuple(without))

    def _machine(self, request: LaunchRequest, offering: Offering) -> Machine:
        number = len(self._held) + 1
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
        self._held[machine.instance_id] = _Held(machine, self.clock() + self.lag_s)
        return machine

    def _maybe_fail(self) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error


class FakeLedger:
    """See `Ledger`. `writes` counts calls that wrote; `fail_next` is raised by the next one."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.fail_next: CloudError | None = None
        self.writes = 0

    def append(self, record: Mapping[str, Any]) -> None:
        self.append_many([record])

    def append_many(self, records: Iterable[Mapping[str, Any]]) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        self.writes += 1
        for record in records:
            row = ledger_rows.stamped(record, "fake", len(self.records))
            self.records[row[ledger_rows.ROW]] = row

    def compact(self, now: float) -> int:  # noqa: ARG002 - it has no parts
        return 0

    def read(
        self, since: float = 0.0, limit: int | None = None, kinds: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        wanted = (
            record
            for record in self.records.values()
            if record["at"] >= since and (not kinds or record["kind"] in kinds)
        )
        found = ledger_rows.in_order(wanted)
        return found if limit is None else found[len(found) - min(limit, len(found)) :]


class FakeControl:
    """See `Control`."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._heartbeat: Heartbeat | None = None
        self._overrides: Overrides = ()
        self._documents: dict[str, Document] = {}
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
        planner_state: Mapping[str, Any] | None = None,
    ) -> None:
        state = dict(planner_state or {})
        self._heartbeat = {"at": at, "frozen": frozen, "address": address, "planner_state": state}

    def last_heartbeat(self) -> Heartbeat | None:
        return self._heartbeat

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        self._documents[name] = dict(document)

    def read_document(self, name: str) -> Document | None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        return self._documents.get(name)

    def overrides(self) -> Overrides:
        return self._overrides

    def update_overrides(self, change: Callable[[Overrides], Overrides]) -> Overrides:
        self._overrides = change(self._overrides)
        return self._overrides


class FakeNotices:
    """See `Notices`. Messages that were handed out come again after `visibility_s`, in another order.

    Attributes:
        fail_next: raised by the next call, once.
        events: what `scheduled` tells.

    """

    def __init__(self, clock: Callable[[], float], visibility_s: float = 10.0) -> None:
        self.clock = clock
        self.visibility_s = visibility_s
        self.fail_next: CloudError | None = None
        self.events: list[ScheduledEvent] = []
        self._waiting: dict[
            str, tuple[str, float, int]
        ] = {}  # id -> body, when it can be seen, how often it was handed out
        self._sent = 0

    def send(self, body: str) -> str:
        """Put a message there as EventBridge would; its id."""
        self._sent += 1
        name = f"m-{self._sent}"
        self._waiting[name] = (body, 0.0, 0)
        return name

    @property
    def left(self) -> list[str]:
        """Ids of what was not deleted."""
        return list(self._waiting)

    def receive(self, wait_s: float) -> list[Message]:  # noqa: ARG002  # a fake does not wait
        self._maybe_fail()
        found: list[Message] = []
        for name, (body, seen_at, times) in reversed(list(self._waiting.items())):
            if seen_at <= self.clock() and len(found) < 10:
                self._waiting[name] = (body, self.clock() + self.visibility_s, times + 1)
                found.append(Message(name, f"{name}/{times + 1}", body))
        return found

    def delete(self, messages: Sequence[Message]) -> None:
        self._maybe_fail()
        for message in messages:
            held = self._waiting.get(message.id)
            if held is not None and message.receipt == f"{message.id}/{held[2]}":
                del self._waiting[message.id]

    def scheduled(self) -> list[ScheduledEvent]:
        self._maybe_fail()
        return list(self.events)

    def _maybe_fail(self) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
