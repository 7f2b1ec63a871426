"""An item of demand. Depends on `shape`, `snapshot` and `reason`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.shape import Shape, text
from mesaform.placement.constraints import Constraint

BlockedKind = Literal[
    "",
    "quota",
    "role",
    "reservation",
    "maintenance",
    "constraint",
    "offer_declined",
    "failover",
    "recovering",
    "allocator",
    "offers_available",
    "inference_limit",
    "label",
]
"""Verdicts on demand that a new machine would not serve, or whose need is not certain yet."""


StopKind = Literal["purchases_stopped", "app_failing", "max_wait"]
"""Verdicts on demand that existing machines may serve and for which little is bought."""


@dataclass(frozen=True, slots=True)
class PurchaseStop:
    """At most `pieces` of an item are bought for, less those that existing machines serve."""

    kind: StopKind
    pieces: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class DemandItem:
    """`count` equal pieces of work. Nothing is bought for an item that is `blocked`.

    `reasons` say why the demand is there, `blocked` why no machine would serve it, `stop` why
    little is bought. `refused_by` are machines that did not serve it although it fits on them.
    `config` is the version of the app's configuration. Nothing is bought before `buy_at` (epoch s),
    when a wait that the work allows ends.
    """

    source: Source
    name: str
    shape: Shape
    count: int
    reasons: tuple[Reason, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    blocked: Reason | None = None
    blocked_kind: BlockedKind = ""
    framework_id: str = ""
    role: str = "*"
    leaves: str = ""  # the instance that these tasks run on and have to leave
    config: str = ""
    stop: PurchaseStop | None = None
    refused_by: frozenset[str] = frozenset()
    buy_at: float = 0.0

    @property
    def key(self) -> str:
        """Unique among the items of a pass.

        Frameworks may share a name; what a quota stops of an app is an item of its own.
        """
        return (
            f"{self.source}:{self.name}"
            + (f":{self.framework_id}" if self.framework_id else "")
            + (f":{self.blocked_kind}" if self.blocked_kind == "quota" else "")
            + (f"@{self.leaves}" if self.leaves else "")
        )

    def __str__(self) -> str:
        return f"{self.count} x {self.name} ({text(self.shape)})"


Source = Literal[
    "services",
    "reported",
    "framework",
    "headroom",
    "hint",
    "calendar",
    "profile",
    "displaced",
]
"""`reported`: an adapter read it of a framework. `framework`: it is inferred."""
