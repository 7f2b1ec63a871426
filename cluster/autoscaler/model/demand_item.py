"""A unit of demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.cluster_view import Constraint
from mesaform.autoscaler.model.shape import Shape, text

BlockedKind = Literal[
    "",
    "quota",
    "role",
    "reservation",
    "maintenance",
    "constraint",
    "untaken",
    "failover",
    "recovering",
    "allocator",
    "not_dry",
]
"""Why no machine is bought for a unit: what a machine would not cure, or what must be known first."""


@dataclass(frozen=True, slots=True)
class DemandItem:
    """`count` equal pieces of work. `blocked` says what no machine can cure; then nothing is bought for it."""

    source: Source
    name: str
    shape: Shape
    count: int
    reason: str
    constraints: tuple[Constraint, ...] = ()
    blocked: str = ""
    blocked_kind: BlockedKind = ""
    framework_id: str = ""
    role: str = "*"
    leaves: str = ""  # the machine that these run on and have to leave

    @property
    def key(self) -> str:
        """What tells it from others: frameworks may share a name, and what its quota stops of an app is another unit than the rest."""
        return (
            f"{self.source}:{self.name}"
            + (f":{self.framework_id}" if self.framework_id else "")
            + (f":{self.blocked_kind}" if self.blocked_kind == "quota" else "")
            + (f"@{self.leaves}" if self.leaves else "")
        )

    def __str__(self) -> str:
        return f"{self.count} x {self.name} ({text(self.shape)})"


Source = Literal[
    "services", "jobs", "framework", "headroom", "hint", "calendar", "profile", "displaced"
]
