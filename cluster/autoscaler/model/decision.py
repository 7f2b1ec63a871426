"""A decision of the autoscaler: what, how much, why, in dollars. Depends on `reason` only.

The log line, the metric, the entry of `/decisions` and the row of the ledger are made from it;
`reporting/decision_text.py` renders it for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import msgspec

from mesaform.autoscaler.model.reason import Reason

Kind = Literal[
    "buy",  # instances are launched
    "no_capacity",  # the cloud had none of what was requested
    "launch_failed",  # the cloud refused the request
    "reactivate",  # an agent is taken back into service
    "deactivate",  # an agent gets no more offers
    "drain",  # an agent is drained
    "terminate",  # an instance is terminated after its drain
    "drain_timed_out",  # a drain took too long: it is ended, the agent is reactivated
    "give_up",  # an instance is terminated because its agent never registered or was lost
    "unschedulable",  # demand gets no machine
    "notice",  # the cloud announced an instance's end, or a risk of it
    "instance_terminated",  # an instance ended as announced
    "self_terminated",  # an instance terminated itself, as its lease had run out
    "capacity_mismatch",  # agents of a type advertise less than expected
    "anomaly",  # an instance or an agent is not as expected
    "leader_changed",  # another daemon leads
    "expiry",  # the time of a cluster with a ttl ends soon, or is over
    "pool_stopped",  # a pool buys nothing, because its machines fail
    "pool_resumed",  # it buys again
    "purchases_stopped",  # nothing is bought for a demand, because its machines are of no use
    "purchases_resumed",  # machines are bought for it again
    "framework",  # the verdict on a framework changed
]
"""Public: the values of `decision` in rows and of the label `kind` of metrics."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class DemandCount:
    """`count` pieces of the demand with this name."""

    name: str
    count: int

    def __str__(self) -> str:
        return f"{self.count} x {self.name}"


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    `usd_per_hour` is the change that it makes (negative when money is saved); `before_usd` and
    `after_usd` are the cluster's rates in USD an hour. `agents` are the Mesos agent ids of those
    `machines` that have one. `offering` is type/zone/capacity type. `planned_usd` is the expected
    price of a purchase, in USD an hour.

    `packed_usd`, `bound_usd`, `gap_percent` and `method` are about everything that the pass of a
    purchase packed: its price and the lower bound of its price in USD an hour, the gap, and the
    packing method (empty for what was not packed).

    `text` is the prose of a row that was written before decisions had codes; else empty.
    """

    at: float
    kind: Kind
    reasons: tuple[Reason, ...] = ()
    pool: str = ""
    offering: str = ""
    count: int = 0
    machines: tuple[str, ...] = ()
    demand: tuple[DemandCount, ...] = ()
    usd_per_hour: float = 0.0
    before_usd: float = 0.0
    after_usd: float = 0.0
    token: str = ""
    dry_run: bool = False
    agents: tuple[str, ...] = ()
    policy: str = ""
    planned_usd: float = 0.0
    packed_usd: float = 0.0
    bound_usd: float = 0.0
    gap_percent: float = 0.0
    method: str = ""
    text: str = ""

    @property
    def instance_type(self) -> str:
        return self.offering.partition("/")[0]

    @property
    def zone(self) -> str:
        """The zone of the first choice of a purchase; empty without an offering."""
        return self.offering.partition("/")[2].partition("/")[0]

    def record(self) -> dict[str, object]:
        """The ledger row: `kind` is the row's kind, `decision` the decision's."""
        row: dict[str, object] = {
            key: value
            for key, value in asdict(self).items()
            if value not in ("", (), 0, 0.0, False)
        }
        row["decision"] = self.kind
        row["kind"] = "decision"
        row["at"] = self.at
        return row


def from_record(row: Mapping[str, object]) -> Decision:
    """The decision of a ledger row in the current vocabulary (see `old_vocabulary`).

    Raises:
        msgspec.ValidationError: the row is not one of a decision.

    """
    return msgspec.convert({**row, "kind": row["decision"]}, Decision)
