"""Commands: what the planner wants done, and why. Actions: the calls that a command consists of.

A command is the planner's unit of decision (Karpenter's `Command`); the daemon's executor carries
out its actions in order and reports its decision. Depends on decisions, removals and supply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler.model.decision import Decision, DemandCount, Kind
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import PolicyName, Removal
from mesaform.autoscaler.model.supply import AgentNode
from mesaform.aws.ports import LaunchRequest


@dataclass(frozen=True, slots=True)
class Launch:
    """Buy machines with one CreateFleet call."""

    request: LaunchRequest


@dataclass(frozen=True, slots=True)
class Deactivate:
    """Stop offers of an agent. Idempotent."""

    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Reactivate:
    """Take a deactivated or drained agent back into service. Idempotent."""

    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop the tasks of an agent.

    `grace_s` limits each task's time to stop, in seconds; None leaves each task the time that it
    was promised. An agent with `mark_gone` is marked gone once it is empty; others may be
    reactivated.
    """

    instance_id: str
    agent_id: str
    grace_s: float | None
    mark_gone: bool = True


@dataclass(frozen=True, slots=True)
class MarkGone:
    """Report an agent as gone, so that its tasks are started elsewhere at once. Final."""

    instance_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """End an instance by its id."""

    instance_id: str


RemovalAction = Deactivate | Reactivate | Drain | MarkGone | Terminate
Action = Launch | RemovalAction

_KINDS: Mapping[type[Action], Kind] = {
    Deactivate: "deactivate",
    Reactivate: "reactivate",
    Drain: "drain",
}


@dataclass(frozen=True, slots=True)
class Purchase:
    """Machines to buy with one CreateFleet call.

    `load` counts the pieces of demand, by index of the demand item, that the machines are for.
    `usd_per_hour` is the price of all machines at the offering named first.
    """

    request: LaunchRequest
    load: Mapping[int, int]
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Command:
    """One decision of a pass with the actions that carry it out.

    `candidates` are the machines that it removes or takes back. With a `replacement`, that purchase
    comes first and the candidates go once it has registered. `next_removal` is what is remembered
    of the candidate once the actions are done; None forgets its removal. Candidates of a command
    with a cool-down are not disturbed again for a while. `policy` is the policy that decided, if
    any.

    `assemble` sets `at`, `before_usd` and `after_usd` of the decision.
    """

    decision: Decision
    actions: tuple[Action, ...] = ()
    candidates: tuple[AgentNode, ...] = ()
    next_removal: Removal | None = None
    replacement: Purchase | None = None
    has_cooldown: bool = False
    policy: PolicyName = ""

    @property
    def instance_id(self) -> str:
        """The machine whose removal the command begins, advances or ends; else empty."""
        if self.replacement is not None or not self.candidates:
            return ""
        return self.candidates[0].name

    def at(self, now: float, usd_per_hour: float) -> Command:
        """The command with its time, and the cluster's rates (USD an hour) before and after it."""
        after_usd = round(usd_per_hour + self.decision.usd_per_hour, 6)
        decision = replace(self.decision, at=now, before_usd=usd_per_hour, after_usd=after_usd)
        return replace(self, decision=decision)


def removal_command(
    node: AgentNode,
    actions: tuple[RemovalAction, ...],
    next_removal: Removal | None,
    reasons: tuple[Reason, ...],
    *,
    kind: Kind | None = None,
    has_cooldown: bool = False,
) -> Command:
    """A step of one machine's removal. The kind of its decision follows from the actions."""
    machine, policy = node.machine, next_removal.policy if next_removal else ""
    is_termination = bool(actions) and isinstance(actions[-1], Terminate)
    agent_id = _agent_id(node, next_removal)
    decision = Decision(
        at=0.0,
        kind=kind or _kind_of(actions, next_removal),
        reasons=reasons,
        pool=node.pool,
        offering=f"{machine.instance_type}/{machine.zone}/{machine.capacity}",
        count=1,
        machines=(machine.instance_id,),
        usd_per_hour=-round(node.usd_per_hour, 6) if is_termination else 0.0,
        agents=(agent_id,) if agent_id else (),
        policy=policy,
    )
    return Command(
        decision,
        actions,
        (node,),
        next_removal,
        has_cooldown=has_cooldown,
        policy=policy,
    )


def _agent_id(node: AgentNode, next_removal: Removal | None) -> str:
    """The machine's agent; of one whose agent is gone, the agent that its removal knows."""
    if node.agent is not None:
        return node.agent.agent_id
    return next_removal.agent_id if next_removal else ""


def _kind_of(actions: tuple[RemovalAction, ...], next_removal: Removal | None) -> Kind:
    if isinstance(actions[-1], Terminate):
        return "terminate" if next_removal and next_removal.agent_id else "give_up"
    return _KINDS[type(actions[0])]


def launch_command(
    purchase: Purchase, reasons: tuple[Reason, ...], items: Sequence[DemandItem] = ()
) -> Command:
    """A purchase. `items` is the demand that the purchase's load refers to."""
    request, usd_per_hour = purchase.request, round(purchase.usd_per_hour, 6)
    demand = tuple(DemandCount(items[index].name, count) for index, count in purchase.load.items())
    decision = Decision(
        at=0.0,
        kind="buy",
        reasons=reasons,
        pool=request.pool,
        offering=request.offerings[0].key,
        count=request.count,
        demand=demand,
        usd_per_hour=usd_per_hour,
        planned_usd=usd_per_hour,
        token=request.token,
    )
    return Command(decision, (Launch(request),))
