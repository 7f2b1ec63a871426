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
]
"""Verdicts on demand that a new machine would not serve, or whose need is not certain yet."""


@dataclass(frozen=True, slots=True)
class DemandItem:
    """`count` equal pieces of work. Nothing is bought for an item that is `blocked`.

    `reasons` say why the demand is there, `blocked` why no machine would serve it.
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


Source = Literal["services", "framework", "headroom", "hint", "calendar", "profile", "displaced"]
