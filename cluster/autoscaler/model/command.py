"""Actions on the cloud and the cluster, and the commands that hold them with their reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesaform.autoscaler.model.decision import Decision, Kind
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.supply import AgentNode
from mesaform.aws.ports import LaunchRequest


@dataclass(frozen=True, slots=True)
class Purchase:
    """One CreateFleet call to be, with the pieces of each unit (by index) that its machines are for."""

    request: LaunchRequest
    load: Mapping[int, int]
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Deactivate:
    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Reactivate:
    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Drain:
    """`grace_s` None leaves each task the time that it was promised to stop. Without `mark_gone` the agent may be taken back."""

    instance_id: str
    agent_id: str
    grace_s: float | None
    mark_gone: bool = True


@dataclass(frozen=True, slots=True)
class MarkGone:
    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Terminate:
    instance_id: str


Removing = Deactivate | Reactivate | Drain | MarkGone | Terminate


@dataclass(frozen=True, slots=True)
class Move:
    """A step of a machine's removal: what is done, what is remembered of it (None: forget it), and why.

    `spared` machines are not disturbed again for a while. `kind` names the decision where what is done does not tell.
    """

    unit: AgentNode
    actions: tuple[Removing, ...]
    next_removal: Removal | None
    reasons: tuple[Reason, ...]
    cooldown: bool = False
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    request: LaunchRequest


Action = Launch | Deactivate | Reactivate | Drain | MarkGone | Terminate


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do with the decision behind it. `removal` is what to remember about the machine once it is done."""

    decision: Decision
    actions: tuple[Action, ...] = ()
    instance_id: str = ""
    removal: Removal | None = None
