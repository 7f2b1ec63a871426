"""The input of a pass: everything that was observed at one moment, with the planner state.

Everything is frozen; dictionaries inside are never changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, QueueEntry
from mesaform.autoscaler.model.framework_demand import FrameworkDemand
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.weekly_profile import Profile
from mesaform.aws.overrides import Override
from mesaform.aws.ports import LaunchRequest, Machine, Offering, Template
from mesaform.config.schema import ClusterSpec
from mesaform.placement.constraints import Constraint

MAX_EPOCH_S = 253_402_300_799.0
"""The last second that a timestamp can show: the end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A launch in the journal. `instance_ids` is None until CreateFleet's answer is known.

    `at` is when it was journaled (epoch seconds), `reason` the first reason of its decision,
    `epoch` the term of the leader that decided it (0: from before terms were recorded).
    """

    request: LaunchRequest
    at: Annotated[float, Meta(ge=0, le=MAX_EPOCH_S)]
    instance_ids: tuple[str, ...] | None = None
    reason: Reason | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at one moment.

    `cluster` is None without an elected master. `queue` is None when the services' queue cannot be
    read. `machines` are all instances of the cluster, `offerings` what each pool may buy, and
    `templates` the launch templates by `names.template_key`, as far as they were read, and
    `templates_read` whether all were: one that is missing does not exist then.
    `freeze_reason` is the note of the freeze in force. `read_errors` name what could not be read.
    `overrides` include those that have run out. `profile` is None when past weeks were not read.
    `app_constraints` are the constraints of every app; while they are None, no task is moved.
    `app_configs` are the versions of the apps' configurations, as far as they were read.
    `launches_lost_at` is when the record of a launch was last set aside: what it bought may not be
    listed yet.
    `usd_per_hour` are the prices of machines by instance id, with all their parts;
    `standing_usd_per_hour` is what the cluster costs besides its machines.
    `framework_demand` is what adapters read of frameworks, by framework id; nothing is inferred of
    these. `adapter_failures` are why an adapter of a framework gives no answer.
    """

    spec: ClusterSpec
    cluster: ClusterView | None
    queue: tuple[QueueEntry, ...] | None
    machines: tuple[Machine, ...]
    offerings: Mapping[str, tuple[Offering, ...]]
    intents: tuple[Intent, ...] = ()
    state: PlannerState = field(default_factory=PlannerState)
    templates: Mapping[str, Template] = field(default_factory=dict)
    templates_read: bool = False
    freeze_reason: str | None = None
    read_errors: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    profile: Profile | None = None
    app_constraints: Mapping[str, tuple[Constraint, ...]] | None = None
    app_configs: Mapping[str, str] = field(default_factory=dict)
    launches_lost_at: float | None = None
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    standing_usd_per_hour: float = 0.0
    framework_demand: Mapping[str, FrameworkDemand] = field(default_factory=dict)
    adapter_failures: Mapping[str, Reason] = field(default_factory=dict)

    @property
    def agents_by_instance(self) -> dict[str, Agent]:
        """The registered agents by instance id; none without an elected master."""
        agents = self.cluster.agents if self.cluster is not None else ()
        return {agent.instance_id: agent for agent in agents}
