"""What a pass knows and what it makes of it, as values: the world as seen, and what is remembered from pass to pass.

Everything is frozen; dictionaries inside are never changed in place. What is in `PlannerState` survives a change of leader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, Constraint, QueueEntry
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.weekly_profile import Profile
from mesaform.aws.overrides import Override
from mesaform.aws.ports import LaunchRequest, Machine, Offering, Template
from mesaform.config.schema import ClusterSpec


@dataclass(frozen=True, slots=True)
class Intent:
    """A launch as journaled. `instance_ids` is None until CreateFleet's answer is known."""

    request: LaunchRequest
    at: float
    instance_ids: tuple[str, ...] | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at one moment. `cluster` is None without an elected master; `queue` is None when services do not answer."""

    spec: ClusterSpec
    cluster: ClusterView | None
    queue: tuple[QueueEntry, ...] | None
    machines: tuple[Machine, ...]
    offerings: Mapping[str, tuple[Offering, ...]]  # by pool
    intents: tuple[Intent, ...] = ()
    state: PlannerState = field(default_factory=PlannerState)
    templates: Mapping[str, Template] = field(
        default_factory=dict
    )  # launch templates by pool, as far as they could be read
    freeze_reason: str | None = None  # the note of the freeze in force; None without one
    read_errors: tuple[str, ...] = ()  # what could not be read, for people
    overrides: tuple[Override, ...] = ()  # what operators ask for, those that have run out included
    profile: Profile | None = None  # what past weeks were like; None: not read
    app_constraints: Mapping[str, tuple[Constraint, ...]] | None = (
        None  # constraints of every app; None: not read, so nothing is moved
    )

    @property
    def agents_by_instance(self) -> dict[str, Agent]:
        """The registered agents by instance id; none without an elected master."""
        agents = self.cluster.agents if self.cluster is not None else ()
        return {agent.instance_id: agent for agent in agents}
