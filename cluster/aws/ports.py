"""Ports to the cloud. Calls block (boto3): shells run them in threads. Every fault arrives as a `mesaform.common.errors.CloudError`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from mesaform.common.resources import Resources

Capacity = Literal["on-demand", "spot"]
MachineState = Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Machine:
    """An EC2 instance of this cluster. `launched_at` is seconds since the epoch; `tags` is all its tags.

    `ended_by` is EC2's code for why it ends or ended (`Client.InstanceInitiatedShutdown`), empty while it runs.
    """

    instance_id: str
    instance_type: str
    zone: str
    capacity: Capacity
    state: MachineState
    private_address: str
    public_address: str
    launched_at: float
    tags: Mapping[str, str] = field(default_factory=dict)
    ended_by: str = ""


@dataclass(frozen=True, slots=True)
class Offering:
    """Something that can be bought: a type in a zone as a capacity type, its price, and what the engine will see of it."""

    instance_type: str
    zone: str
    capacity: Capacity
    usd_per_hour: float
    resources: Resources

    @property
    def key(self) -> str:
        """`type/zone/capacity`."""
        return f"{self.instance_type}/{self.zone}/{self.capacity}"


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Buy `count` machines of any of `offerings` (cheapest first) for a pool. `token` makes the call idempotent.

    All offerings of one request have the same capacity type. `tags` are put on the machines besides those that say whose they are.
    """

    cluster: str
    pool: str
    count: int
    offerings: tuple[Offering, ...]
    token: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """What came of it: machines bought (fewer than asked for, even none, when capacity ran out), and each offering that had none.

    `without_capacity` has keys of offerings, or of what an error says beyond its offering (see `scope`).
    """

    machines: tuple[Machine, ...]
    without_capacity: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A pool's launch template: its newest version, and all `alike`, from which machines come that differ in nothing but their tags."""

    latest: str
    alike: frozenset[str]


OrderKind = Literal["pause", "bound", "hint", "drain"]


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator asks of the autoscaler for a time. `at` and `until` are seconds since the epoch; `by` is who gave it.

    pause: buy and remove nothing. bound: `bound` (min or max) of `pool` is `count`. hint: room for `count` pieces of `cpus` and
    `mem_mib` (in `pool`, if named). drain: the agent or instance `target` is emptied, and goes if the autoscaler bought it.
    """

    id: str
    kind: OrderKind
    by: str
    at: float
    until: float
    reason: str = ""
    pool: str = ""
    bound: str = ""
    count: int = 0
    cpus: float = 0.0
    mem_mib: float = 0.0
    target: str = ""

    def is_in_force(self, now: float) -> bool:
        """Whether it still counts."""
        return now < self.until

    def record(self, at: float, what: str) -> dict[str, Any]:
        """As a row of the ledger: who did what with which order, and when."""
        row = {
            key: value
            for key, value in asdict(self).items()
            if value not in ("", 0, 0.0) and key not in {"kind", "at", "id"}
        }
        return {
            "kind": "order",
            "at": at,
            "order": self.kind,
            "order_id": self.id,
            "what": what,
            **row,
        }


class Fleet(Protocol):
    """Machines: seen, bought and given back."""

    def machines(self, cluster: str) -> list[Machine]:
        """Every machine tagged with the cluster, terminated ones included while EC2 lists them. May lag a launch by seconds."""
        ...

    def launch(self, request: LaunchRequest) -> LaunchResult:
        """CreateFleet `instant`. Idempotent per token: again with the same token and request gives the same machines.

        Having no capacity is an answer, not an error: see `LaunchResult`.

        Raises:
            Retryable: throttled, a server's fault or no answer; machines may have been bought, so ask again with the same token.
            Permanent: the request is wrong or the rights are missing; nothing was bought.

        """
        ...

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        """Terminate by id what the autoscaler of this cluster bought. Idempotent: ids already terminated or unknown are no error.

        Raises:
            NotOwned: an id is a master, Terraform's or another cluster's; nothing at all was terminated.
            Retryable: as for `launch`.

        """
        ...

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int = 40
    ) -> list[Offering]:
        """What the named types cost in the named zones, on demand and as spot, with disks of `disk_gib`.

        Prices are those last heard: not older than half a day while AWS answers, else the last ones known.

        Raises:
            NotFound: a type does not exist in this region; the message names it and the nearest that does.

        """
        ...

    def templates(self, cluster: str) -> Mapping[str, Template]:
        """The launch templates by pool. May be a minute old. A machine's own version is its tag `aws:ec2launchtemplate:version`."""
        ...


class Ledger(Protocol):
    """Append-only records that outlive the cluster (S3). A record is a JSON object with at least `at` (epoch s) and `kind`."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record durably before returning.

        A record with an `instance_id` is the only one of its kind for that machine at that moment, and one with a `row` (an id) the
        only one of that id: writing it again changes nothing.
        """
        ...

    def append_many(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records durably before returning, as one object where they are of one hour and one topic.

        After an error some may have been written: those with a `row` may be given again.
        """
        ...

    def compact(self, now: float) -> int:
        """Merge what was written in small parts, so that reading stays quick; what is read does not change. How many parts went."""
        ...

    def read(
        self, since: float = 0.0, limit: int | None = None, kinds: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """Records with `at` >= since, oldest first; of these kinds, if any are named; with `limit`, the newest that many of them.

        Each is there once, whatever is written and merged meanwhile. All have a `row`.
        """
        ...


class Control(Protocol):
    """How an operator's program tells the autoscaler to stop, without reaching into the network (S3 is strongly consistent)."""

    def freeze(self, reason: str) -> None:
        """Ask the autoscaler to buy and remove nothing until lifted."""
        ...

    def unfreeze(self) -> None:
        """Take the fence away. Idempotent."""
        ...

    def frozen_reason(self) -> str | None:
        """The reason of the fence in force, or None."""
        ...

    def write_heartbeat(
        self, at: float, *, fenced: bool, address: str, memory: Mapping[str, Any] | None = None
    ) -> None:
        """The autoscaler's sign of life, whether it obeys a fence, and what it remembers (so that `mesaform plan` plans alike)."""
        ...

    def last_heartbeat(self) -> Mapping[str, Any] | None:
        """The last sign of life: `at`, `fenced`, `address`, `memory`; None if there never was one."""
        ...

    def keep(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a document of the autoscaler's under a name, in place of the last one."""
        ...

    def kept(self, name: str) -> Mapping[str, Any] | None:
        """The document last kept under a name, or None."""
        ...

    def orders(self) -> tuple[Override, ...]:
        """Every order given and not withdrawn, those that have run out included, oldest first."""
        ...

    def change_orders(
        self, change: Callable[[tuple[Override, ...]], tuple[Override, ...]]
    ) -> tuple[Override, ...]:
        """Put `change(orders)` in place of the orders, and return it; nobody else's change in between is lost.

        `change` may be called more than once.

        Raises:
            Retryable: others changed them all the time.

        """
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was handed out. `receipt` deletes it, as long as it was not handed out again since."""

    id: str
    receipt: str
    body: str


@dataclass(frozen=True, slots=True)
class ScheduledEvent:
    """Something that EC2 will do to an instance, not before `not_before` (epoch s)."""

    instance_id: str
    code: str
    not_before: float


class Notices(Protocol):
    """What the cloud announces about machines: a queue of messages, and EC2's list of scheduled events."""

    def receive(self, wait_s: float) -> list[Message]:
        """Up to ten messages; waits up to `wait_s` (at most 20) for the first.

        Each comes at least once and in no order: again, seconds later, unless it was deleted, also to a later leader.

        Raises:
            NotFound: the cluster has no queue.
            Retryable: no answer.

        """
        ...

    def delete(self, messages: Sequence[Message]) -> None:
        """These need not come again. Idempotent; one that the queue does not delete comes again, which is no error.

        Raises:
            Retryable: no answer; ask again, or take them again.

        """
        ...

    def scheduled(self) -> list[ScheduledEvent]:
        """Events that are still to come, of any instance of the account and region. May be minutes old.

        Raises:
            Retryable: no answer.

        """
        ...
