"""Which of the agents that a task fits on it goes to: the strategies `pack` and `spread`. Pure.

Services place by them, and the simulator models them.

`pack` keeps few machines in use, and lets them become empty together. It prefers agents with tasks
to empty ones, then those that the task does not keep in use for longer (by expected ends, in powers
of two of `GROUP_S`), then the fullest. `spread` prefers agents with few tasks of the same app, then
the emptiest. Both avoid agents that are announced to end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Strategy = Literal["pack", "spread"]

GROUP_S = 60.0
"""Expected ends that are closer than this are equal."""

MIB_PER_CPU = 4096.0
"""Memory that counts as much as a cpu where free capacities are compared (an m type's)."""

Rank = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class AgentUse:
    """An agent as a place of a task.

    `cpus` and `mem_mib` are free. `tasks` run there, `same_app` of them of the task's app. The last
    of them is expected to end at `ends_at` (epoch seconds; infinite: not known). The agent itself
    is announced to end at `leaves_at`.
    """

    cpus: float
    mem_mib: float
    tasks: int
    same_app: int = 0
    ends_at: float = math.inf
    leaves_at: float = math.inf

    @property
    def free(self) -> float:
        """Free capacity in cpus, memory included."""
        return self.cpus + self.mem_mib / MIB_PER_CPU


def rank(strategy: Strategy, use: AgentUse, task_ends_at: float) -> Rank:
    """The preference for an agent; the smallest is the best.

    `task_ends_at` is when the task is expected to end (epoch seconds; infinite: not known).
    """
    is_leaving = float(use.leaves_at < math.inf)
    if strategy == "spread":
        return (is_leaving, use.same_app, -use.free)
    return (is_leaving, float(not use.tasks), _extension(use, task_ends_at), use.free)


def _extension(use: AgentUse, task_ends_at: float) -> float:
    """By how much a task keeps an agent in use for longer, in coarse steps; 0 if it does not."""
    if not use.tasks or task_ends_at <= use.ends_at:
        return 0.0
    longer_s = task_ends_at - use.ends_at
    return longer_s if math.isinf(longer_s) else math.floor(math.log2(1 + longer_s / GROUP_S))
