"""The interruption controller: what follows from the cloud's notices about instances. Pure.

It keeps the notices that apply (`absorb`, `kept`, `after_pass`) and plans the steps of machines
whose end is near (`steps`) or planned (`planned`). A machine with a notice is deactivated at once;
its tasks count as demand before a queue shows them, so that capacity is bought at once; it drains
when its tasks fit elsewhere, at the latest when they have to stop. Tasks that end before the
machine are not moved. `disruption.retirement` begins with ends that are far ahead or only likely.
Depends on `model` and `packing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler.interruption import risk
from mesaform.autoscaler.interruption.notice import SEVERITY, ParsedNotice, more_severe
from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.command import (
    Command,
    Deactivate,
    Drain,
    MarkGone,
    Reactivate,
    Terminate,
    removal_command,
)
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.notice import (
    NEAR_S,
    STOP_MARGIN_S,
    Notice,
    Risk,
    has_time_to_finish,
    is_near,
    reason_of,
    tasks_to_move,
)
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import NOTICE_POLICIES, Removal, RemovalPhase
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.model.supply import LIVE, AgentNode, Supply
from mesaform.autoscaler.packing import Placement
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag

SETTLE_S = 1.0
"""Time between a deactivation and the next step (s): pending offers are answered by then."""

ASK_AGAIN_S = 10.0
"""Time after which a drain that did not begin is requested again, in seconds."""

OVERDUE_S = 60.0
"""Time after its announced end when an autoscaled machine that still runs is terminated (s)."""

ADVICE_HOLDS_S = 7200.0
"""Time that a rebalance recommendation is kept, in seconds."""

PASSED_S = 3600.0
"""Time that a notice is kept after its end when the machine still runs, in seconds."""

PLACES = frozenset({"settled", "idle"})
"""Kinds of nodes that are up."""


def absorb(
    memory: PlannerState,
    messages: Iterable[ParsedNotice],
    machines: Iterable[Machine],
    intents: Iterable[Intent],
    now: float,
) -> PlannerState:
    """The state with the notices of these messages. A repeated message changes nothing.

    Notices of machines that are not the cluster's, that have ended or that are over are dropped.
    """
    known = _cluster_machines(machines)
    launched = _launched(intents)
    notices, risks = dict(memory.notices), memory.risks
    for message in messages:
        for notice in message.notices:
            machine = known.get(notice.instance_id)
            if _applies(notice, machine, launched, now):
                risks = _add(notices, risks, notice, machine, now)
        _withdraw(notices, message.withdrawn)
    has_changed = (notices, risks) != (memory.notices, memory.risks)
    return replace(memory, notices=notices, risks=risks) if has_changed else memory


def _launched(intents: Iterable[Intent]) -> set[str]:
    """Instances of launches that are not settled."""
    return {name for intent in intents for name in intent.instance_ids or ()}


def _cluster_machines(machines: Iterable[Machine]) -> dict[str, Machine]:
    """Agents and masters by instance id."""
    return {
        machine.instance_id: machine
        for machine in machines
        if machine.tags.get(Tag.ROLE) in {"agent", "master"}
    }


def _add(
    notices: dict[str, Notice],
    risks: dict[str, Risk],
    notice: Notice,
    machine: Machine | None,
    now: float,
) -> dict[str, Risk]:
    """Add a notice to `notices`; the risks, with one more if the notice is news."""
    before = notices.get(notice.instance_id)
    notices[notice.instance_id] = more_severe(before, notice)
    if machine is None or not _is_more_severe(notice, before):
        return risks
    return risk.counted(risks, _offering(machine), notice.kind, now)


def _applies(
    notice: Notice, machine: Machine | None, launched: Collection[str], now: float
) -> bool:
    """Whether a notice is about a live machine of the cluster and not over."""
    is_live = notice.instance_id in launched if machine is None else machine.state in LIVE
    return is_live and not _is_over(notice, now)


def _is_more_severe(notice: Notice, before: Notice | None) -> bool:
    return before is None or SEVERITY[notice.kind] > SEVERITY[before.kind]


def _withdraw(notices: dict[str, Notice], withdrawn: Iterable[str]) -> None:
    """Forget scheduled events that AWS cancelled or completed."""
    for name in withdrawn:
        if name in notices and notices[name].kind == "scheduled":
            del notices[name]


def kept(snapshot: Snapshot, now: float) -> dict[str, Notice]:
    """The notices that still apply: not over, of a machine that runs or has a registered agent."""
    notices = snapshot.state.notices
    registered = set(notices)
    if snapshot.cluster is not None:
        registered = {agent.instance_id for agent in snapshot.cluster.agents}
    states = {machine.instance_id: machine.state for machine in snapshot.machines}
    return {
        name: notice
        for name, notice in notices.items()
        if not _is_over(notice, now)
        and (name in registered or _may_run(notice, states.get(name), now))
    }


def _may_run(notice: Notice, state: str | None, now: float) -> bool:
    """Whether a machine runs, or may run though EC2 does not list it yet."""
    return now - notice.at < PASSED_S if state is None else state in LIVE


def notices_after(
    snapshot: Snapshot, announcements: Iterable[Decision], now: float
) -> dict[str, Notice]:
    """The notices that still apply; those in `announcements` are marked as reported."""
    reported = {name for decision in announcements for name in decision.machines}
    return {
        name: replace(notice, is_reported=notice.is_reported or name in reported)
        for name, notice in kept(snapshot, now).items()
    }


def _is_over(notice: Notice, now: float) -> bool:
    return now > (notice.ends_at + PASSED_S if notice.ends_at else notice.at + ADVICE_HOLDS_S)


def _offering(machine: Machine) -> str:
    return f"{machine.instance_type}/{machine.zone}/{machine.capacity}"


def with_replacement(units: Sequence[DemandItem], placement: Placement, supply: Supply) -> set[str]:
    """Machines whose displaced tasks all fit on machines that are up."""
    up = {node.name for node in supply.nodes if node.kind in PLACES}
    displaced = [(index, item) for index, item in enumerate(units) if item.source == "displaced"]
    waiting = {
        item.leaves
        for index, item in displaced
        if _pieces_on(placement.placed.get(index, {}), up) < item.count
    }
    return {item.leaves for _, item in displaced} - waiting


def _pieces_on(placed: Mapping[str, int], nodes: Collection[str]) -> int:
    """How many pieces are placed on some nodes."""
    return sum(count for name, count in placed.items() if name in nodes)


def steps(snapshot: Snapshot, supply: Supply, placed: Collection[str], now: float) -> list[Command]:
    """The urgent steps: of machines whose end is near, and of those that ended with an agent.

    `placed` are the machines whose tasks fit on machines that are up.
    """
    notices = snapshot.state.notices
    moves = []
    for unit in supply.agent_nodes:
        notice, removal = notices.get(unit.machine.instance_id), unit.removal
        if unit.machine.instance_id in supply.quarantined:
            continue
        if notice is not None and is_near(notice, now):
            moves += _near(_Ending(unit, notice, snapshot, placed, now))
        elif removal is not None and notice is None and _can_come_back(unit, removal):
            moves += _spared(unit, removal)
    return moves + _ended(snapshot)


@dataclass(frozen=True, slots=True)
class _Ending:
    """A machine whose end is near."""

    unit: AgentNode
    notice: Notice
    snapshot: Snapshot
    placed: Collection[str]
    now: float

    @property
    def name(self) -> str:
        return self.unit.machine.instance_id

    @property
    def reason(self) -> Reason:
        return reason_of(self.notice, self.now)

    @property
    def is_overdue(self) -> bool:
        """Whether an autoscaled machine runs on after its announced end."""
        return self.unit.is_autoscaled and self.now > self.notice.ends_at + OVERDUE_S

    def drain(self, agent: Agent) -> Drain:
        """Tasks keep their own time to stop, cut to what is left; the end may not come yet."""
        grace_s = max(1.0, round(self.notice.ends_at - STOP_MARGIN_S - self.now, 1))
        return Drain(self.name, agent.agent_id, grace_s, mark_gone=False)


def _near(ending: _Ending) -> list[Command]:
    """The next step of a machine whose end is near."""
    removal, agent = ending.unit.removal, ending.unit.agent
    if removal is not None and removal.phase == "terminating":
        return []
    if ending.is_overdue:
        return [_terminate_overdue(ending)]
    if agent is None:
        return []
    if removal is None or removal.policy != "interruption":
        return [_take_over(ending, agent)]
    next_step = _NEXT_STEPS.get(removal.phase)
    return next_step(ending, agent, removal) if next_step is not None else []


def _terminate_overdue(ending: _Ending) -> Command:
    """The end of a machine that runs longer than announced."""
    agent = ending.unit.agent
    removal = Removal(
        agent.agent_id if agent else "",
        "terminating",
        ending.now,
        ending.reason,
        requested_at=ending.now,
        policy="interruption",
    )
    gone = (MarkGone(ending.name, agent.agent_id),) if agent else ()
    reasons = (ending.reason, Reason.of(ReasonCode.INSTANCE_STILL_RUNS))
    return removal_command(ending.unit, (*gone, Terminate(ending.name)), removal, reasons)


def _take_over(ending: _Ending, agent: Agent) -> Command:
    """The first step in any state: deactivate. A drain in progress goes on."""
    is_draining = ending.unit.removal is not None and bool(agent.drain_state)
    removal = Removal(
        agent.agent_id,
        "draining" if is_draining else "deactivated",
        ending.now,
        ending.reason,
        policy="interruption",
    )
    action = Deactivate(ending.name, agent.agent_id)
    return removal_command(ending.unit, (action,), removal, (ending.reason,))


def _after_deactivation(ending: _Ending, agent: Agent, removal: Removal) -> list[Command]:
    """Drain when the tasks fit elsewhere, or when they have to stop now to stop in order."""
    if ending.now - removal.since < SETTLE_S:
        return []
    if agent.active and not agent.deactivated:
        reasons = (ending.reason, Reason.of(ReasonCode.DEACTIVATION_REPEATED))
        action = Deactivate(ending.name, agent.agent_id)
        return [
            removal_command(ending.unit, (action,), replace(removal, since=ending.now), reasons)
        ]
    if not _must_drain(ending, agent):
        return []
    is_placed = ending.name in ending.placed
    why = ReasonCode.TASKS_HAVE_CAPACITY if is_placed else ReasonCode.TASKS_MUST_STOP
    return [
        removal_command(
            ending.unit,
            (ending.drain(agent),),
            replace(removal, phase="draining", since=ending.now),
            (ending.reason, Reason.of(why)),
        )
    ]


def _must_drain(ending: _Ending, agent: Agent) -> bool:
    """Whether a deactivated agent drains now."""
    notice = ending.notice
    has_tasks_to_move = not agent.work or bool(tasks_to_move(agent, notice))
    if agent.is_empty or not has_tasks_to_move:
        return False
    finishing = [work.ends_at for work in agent.work if has_time_to_finish(work, notice)]
    grace_s = ending.snapshot.spec.autoscaler.drain_grace_s
    if ending.now >= last_call(notice, grace_s, finishing):
        return True
    return not finishing and ending.name in ending.placed


def _repeat_drain(ending: _Ending, agent: Agent, removal: Removal) -> list[Command]:
    """A drain whose call was lost is requested again."""
    has_begun = bool(agent.drain_state) or agent.is_empty
    if has_begun or ending.now - removal.since < ASK_AGAIN_S:
        return []
    reasons = (ending.reason, Reason.of(ReasonCode.DRAIN_REPEATED))
    drain = ending.drain(agent)
    return [removal_command(ending.unit, (drain,), replace(removal, since=ending.now), reasons)]


_NEXT_STEPS: Mapping[RemovalPhase, Callable[[_Ending, Agent, Removal], list[Command]]] = {
    "deactivated": _after_deactivation,
    "draining": _repeat_drain,
}
"""By phase of a removal that an interruption began."""


def last_call(notice: Notice, grace_s: float, finishing: Iterable[float] = ()) -> float:
    """When a drain has to begin (epoch s).

    `grace_s` before the end, or a third of the warning time if that is less; later for tasks that
    end by themselves at the times `finishing`.
    """
    grace_s = min(grace_s, max(0.0, notice.ends_at - notice.at) / 3)
    return max(
        [
            notice.ends_at - STOP_MARGIN_S - grace_s,
            *(min(at, notice.ends_at - 2 * STOP_MARGIN_S) for at in finishing),
        ]
    )


def _can_come_back(unit: AgentNode, removal: Removal) -> bool:
    """Whether a removal ends when its notice no longer applies. Other drains go on."""
    return removal.policy in NOTICE_POLICIES and (
        removal.policy == "interruption" or removal.phase == "deactivated" or not unit.is_autoscaled
    )


def _spared(unit: AgentNode, removal: Removal) -> list[Command]:
    """The end did not come: the agent is reactivated as soon as the engine allows it."""
    agent = unit.agent
    if agent is None or agent.drain_state == "DRAINING" or removal.phase == "terminating":
        return []
    return [_reactivate(unit, agent, (Reason.of(ReasonCode.NOTICE_WITHDRAWN),))]


def _reactivate(unit: AgentNode, agent: Agent, reasons: tuple[Reason, ...]) -> Command:
    action = Reactivate(unit.machine.instance_id, agent.agent_id)
    return removal_command(unit, (action,), None, reasons, has_cooldown=True)


def planned(
    snapshot: Snapshot, supply: Supply, placed: Collection[str], now: float
) -> list[Command]:
    """The second step of removals that `disruption.retirement` began.

    A machine drains once its replacement is up, and is reactivated if none comes.
    """
    moves = []
    for unit in supply.agent_nodes:
        removal, agent = unit.removal, unit.agent
        notice = snapshot.state.notices.get(unit.machine.instance_id)
        if removal is None or agent is None or notice is None or is_near(notice, now):
            continue
        if _is_settled_retirement(removal, now):
            moves += _after_retirement(_Ending(unit, notice, snapshot, placed, now), agent, removal)
    return moves


def _is_settled_retirement(removal: Removal, now: float) -> bool:
    """Whether a removal that retirement or rebalance began is deactivated for long enough."""
    is_planned = removal.policy in NOTICE_POLICIES - {"interruption"}
    return is_planned and removal.phase == "deactivated" and now - removal.since >= SETTLE_S


def _after_retirement(ending: _Ending, agent: Agent, removal: Removal) -> list[Command]:
    settings, wait_s = ending.snapshot.spec.autoscaler, ending.now - removal.since
    if agent.is_empty or ending.name in ending.placed:
        why = ReasonCode.AGENT_EMPTY if agent.is_empty else ReasonCode.REPLACEMENT_READY
        grace_s = settings.drain_grace_s if settings.drain_timeout_kills else None
        drain = Drain(ending.name, agent.agent_id, grace_s, mark_gone=False)
        draining = replace(removal, phase="draining", since=ending.now)
        return [removal_command(ending.unit, (drain,), draining, (ending.reason, Reason.of(why)))]
    if wait_s > settings.boot_timeout_s + settings.drain_timeout_s:
        missing = Reason.of(ReasonCode.REPLACEMENT_MISSING, wait_s=wait_s)
        return [_reactivate(ending.unit, agent, (ending.reason, missing))]
    return []


ENDED_STATES: Mapping[bool, frozenset[str]] = {
    True: frozenset({"terminated", "stopped"}),
    False: frozenset({"terminated"}),
}
"""States in which a machine counts as ended, by whether it is autoscaled.

A stopped machine of Terraform may be started again, and an agent marked gone could not come back.
"""


def _ended(snapshot: Snapshot) -> list[Command]:
    """Mark the agents of machines that ended as announced as gone, so that tasks start elsewhere.

    An autoscaled machine that was only stopped is terminated: its disk would cost on.
    """
    agents = snapshot.agents_by_instance
    moves = []
    for machine in snapshot.machines:
        agent = agents.get(machine.instance_id)
        notice = snapshot.state.notices.get(machine.instance_id)
        unit = AgentNode(machine, agent, "gone", None, 0.0)
        if notice is None or agent is None:
            continue
        if machine.state in ENDED_STATES[unit.is_autoscaled]:
            moves.append(_mark_gone(unit, agent, notice))
    return moves


def _mark_gone(unit: AgentNode, agent: Agent, notice: Notice) -> Command:
    """Mark the agent of a machine that has ended as gone."""
    machine = unit.machine
    reasons = [Reason.of(ReasonCode.ENDED_AS_ANNOUNCED, state=machine.state, event=notice.what)]
    if agent.tasks:
        reasons.append(Reason.of(ReasonCode.TASKS_LOST, tasks=agent.tasks))
    terminations = (Terminate(machine.instance_id),) if machine.state == "stopped" else ()
    return removal_command(
        unit,
        (*terminations, MarkGone(machine.instance_id, agent.agent_id)),
        None,
        tuple(reasons),
        kind="instance_terminated",
    )


def timers(snapshot: Snapshot, memory: PlannerState) -> Iterator[float]:
    """When notices lead to another step without an event (epoch s)."""
    settings = snapshot.spec.autoscaler
    for notice in memory.notices.values():
        yield from _timers_of(notice, snapshot)
    for agent in snapshot.cluster.agents if snapshot.cluster else ():
        notice_of = memory.notices.get(agent.instance_id)
        yield from (work.ends_at for work in agent.work if has_time_to_finish(work, notice_of))
    longest_s = max(ASK_AGAIN_S, settings.boot_timeout_s + settings.drain_timeout_s)
    for removal in memory.removals.values():
        if removal.is_waiting_for_notice:
            yield removal.since + longest_s


def _timers_of(notice: Notice, snapshot: Snapshot) -> Iterator[float]:
    settings = snapshot.spec.autoscaler
    if not notice.ends_at:
        yield notice.at + ADVICE_HOLDS_S
        return
    yield notice.ends_at + PASSED_S
    yield notice.ends_at - settings.interruption.retire_ahead_s
    yield notice.ends_at - NEAR_S
    yield last_call(notice, settings.drain_grace_s)
    yield notice.ends_at + OVERDUE_S
