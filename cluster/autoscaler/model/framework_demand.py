"""What one framework wants, as an adapter read it or as inference concludes it.

An adapter reads the framework's own API (`observation.adapters`); its answer is exact and replaces
inference. Everything is frozen. Depends on `shape`, `reason` and `placement.constraints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.shape import Shape
from mesaform.placement.constraints import Constraint
from mesaform.placement.task_labels import NO_LABELS, TaskLabels

FrameworkState = Literal["satisfied", "wants_more", "refuses_offers", "suppressed", "unknown"]
"""The verdict on a framework.

- `satisfied`: it has what it wants.
- `wants_more`: it wants more than it has; the evidence says how that is known.
- `refuses_offers`: it wants more, and refuses what there is or may be bought: the evidence names
  the nearest type and what it lacks.
- `suppressed`: it asked for no offers in all its roles.
- `unknown`: neither an adapter nor inference has enough evidence.
"""


@dataclass(frozen=True, slots=True)
class WantedShape:
    """`count` equal pieces that a framework wants in addition to what it has.

    `name` is unique within the framework: an app, a job, or empty if there is one shape only.
    `role` is the role in which it takes them; empty is any of the framework's roles. `since` is
    since when they wait (epoch s; 0: not known). A `divisible` shape has one cpu: the framework
    takes all cpus of an agent in one piece, with the memory of one (Spark without
    `spark.executor.cores`). `labels` are the work's labels for Mesaform, whose constraints are in
    `constraints`.
    """

    shape: Shape
    count: int
    name: str = ""
    role: str = ""
    constraints: tuple[Constraint, ...] = ()
    since: float = 0.0
    divisible: bool = False
    labels: TaskLabels = NO_LABELS


@dataclass(frozen=True, slots=True)
class FrameworkDemand:
    """What a framework wants at a time (epoch s).

    `adapter` is the adapter that read it; empty for inference. `wanted` is empty unless the state
    is `wants_more` or `refuses_offers`. `evidence` says why the state is so. `tasks` is how many
    tasks the framework had when it was read: what has started since is no more wanted. None means
    that it is not known.
    """

    framework_id: str
    state: FrameworkState
    at: float
    adapter: str = ""
    wanted: tuple[WantedShape, ...] = ()
    evidence: tuple[Reason, ...] = ()
    tasks: int | None = None

    @property
    def is_answered(self) -> bool:
        """Whether an adapter read it, so that nothing is inferred."""
        return bool(self.adapter)


@dataclass(frozen=True, slots=True)
class FrameworkVerdict:
    """The verdict on one connected framework.

    `pieces` is what it wants in addition to what it has, `since` is since when the state is so, and
    `at` when the verdict was last renewed (epoch s). `age_s` is the age of the adapter's answer.
    """

    framework_id: str
    name: str
    state: FrameworkState
    since: float
    at: float
    adapter: str = ""
    age_s: float = 0.0
    pieces: int = 0
    reasons: tuple[Reason, ...] = ()
    decided_at: float = 0.0
