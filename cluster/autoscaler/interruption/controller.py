"""What announced ends of machines lead to: what is remembered, what counts as demand, which steps a machine takes until its end. Pure.

A machine whose end is announced gets no more work at once; its tasks count as demand before any queue shows them, so that what replaces
it is bought at once; it drains when they have somewhere to go, and in any case early enough for them to stop in order. Work that says
it will be done before the end is left alone. An end that is planned far ahead, or only likely, is the policies' business
(`policies.announced`) until it is near.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from mesaform.autoscaler.interruption import risk
from mesaform.autoscaler.interruption.notice import SEVERITY, ParsedNotice, more_severe
from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.command import (
    Deactivate,
    Drain,
    MarkGone,
    Move,
    Reactivate,
    Terminate,
)
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.demand_item import DemandItem as Demanded
from mesaform.autoscaler.model.notice import (
    NEAR_S,
    STOP_MARGIN_S,
    Notice,
    has_time_to_finish,
    is_near,
    reason_of,
    tasks_to_move,
)
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import NOTICE_POLICIES, Removal
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.model.supply import LIVE, AgentNode, Supply
from mesaform.autoscaler.packing import Placement
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag

SETTLE_S = 1.0
ASK_AGAIN_S = 10.0
OVERDUE_S = 60.0
"""How long after its announced end a machine of ours that still runs is given back."""

ADVICE_HOLDS_S = 7200.0
PASSED_S = 3600.0
"""How long after its time a notice is forgotten when the machine still runs; an advice, how long after it came."""

PLACES = frozenset({"settled", "idle"})


# what is remembered


def absorb(
    memory: PlannerState,
    messages: Iterable[ParsedNotice],
    machines: Iterable[Machine],
    intents: Iterable[Intent],
    now: float,
) -> PlannerState:
    """The memory with what was heard. Of machines that are not the cluster's nothing is kept; hearing it again changes nothing."""
    live = {
        machine.instance_id: machine
        for machine in machines
        if machine.tags.get(Tag.ROLE) in {"agent", "master"}
    }
    ordered = {name for intent in intents for name in intent.instance_ids or ()}
    notices, risks = dict(memory.notices), memory.risks
    for message in messages:
        for notice in message.notices:
            name, machine = notice.instance_id, live.get(notice.instance_id)
            if (
                (machine is None and name not in ordered)
                or (machine is not None and machine.state not in LIVE)
                or _is_over(notice, now)
            ):
                continue
            before = notices.get(name)
            notices[name] = more_severe(before, notice)
            if machine is not None and (
                before is None or SEVERITY[notice.kind] > SEVERITY[before.kind]
            ):
                risks = risk.counted(risks, _offering(machine), notice.kind, now)
        for name in message.withdrawn:
            if name in notices and notices[name].kind == "scheduled":
                del notices[name]
    return (
        memory
        if notices == memory.notices and risks == memory.risks
        else replace(memory, notices=notices, risks=risks)
    )


def kept(snapshot: Snapshot, now: float) -> dict[str, Notice]:
    """The notices that still stand: their machine runs, or its agent is still counted on, and their time has not long passed."""
    counted_on = (
        {agent.instance_id for agent in snapshot.cluster.agents}
        if snapshot.cluster
        else set(snapshot.state.notices)
    )
    gone = {machine.instance_id for machine in snapshot.machines if machine.state not in LIVE}
    listed = {machine.instance_id for machine in snapshot.machines}
    notices = {}
    for name, notice in snapshot.state.notices.items():
        is_there = name not in gone and (name in listed or now - notice.at < PASSED_S)
        if not _is_over(notice, now) and (is_there or name in counted_on):
            notices[name] = notice
    return notices


def after_pass(
    memory: PlannerState, snapshot: Snapshot, announcements: Iterable[Decision], now: float
) -> PlannerState:
    """The memory without notices that no longer stand; those that were told are marked so."""
    reported = {name for decision in announcements for name in decision.machines}
    return replace(
        memory,
        notices={
            name: replace(notice, is_reported=notice.is_reported or name in reported)
            for name, notice in kept(snapshot, now).items()
        },
    )


def _is_over(notice: Notice, now: float) -> bool:
    return now > (notice.ends_at + PASSED_S if notice.ends_at else notice.at + ADVICE_HOLDS_S)


def _offering(machine: Machine) -> str:
    return f"{machine.instance_type}/{machine.zone}/{machine.capacity}"


# what is done


def with_replacement(units: Sequence[Demanded], placement: Placement, supply: Supply) -> set[str]:
    """Machines whose displaced work all has a place on machines that are up."""
    kinds = {node.name: node.kind for node in supply.nodes}
    ready: dict[str, bool] = {}
    for index, unit in enumerate(units):
        if unit.source == "displaced":
            placed = sum(
                count
                for name, count in placement.placed.get(index, {}).items()
                if kinds[name] in PLACES
            )
            ready[unit.leaves] = ready.get(unit.leaves, True) and placed >= unit.count
    return {name for name, is_ready in ready.items() if is_ready}


def steps(snapshot: Snapshot, supply: Supply, placed: Collection[str], now: float) -> list[Move]:
    """What must not wait: the next step of each machine whose end is near, and of those that ended with an agent still counted on."""
    notices = snapshot.state.notices
    moves = []
    for unit in supply.agent_nodes:
        notice, removal = notices.get(unit.machine.instance_id), unit.removal
        if unit.machine.instance_id in supply.quarantined:
            continue
        if notice is not None and is_near(notice, now):
            moves += _near(unit, notice, snapshot, placed, now)
        elif removal is not None and notice is None and _can_come_back(unit, removal):
            moves += _spared(unit, removal)
    return moves + _ended(snapshot)


def _near(
    unit: AgentNode, notice: Notice, snapshot: Snapshot, placed: Collection[str], now: float
) -> list[Move]:
    removal, agent, name = unit.removal, unit.agent, unit.machine.instance_id
    reason = reason_of(notice, now)
    if removal is not None and removal.phase == "terminating":
        return []
    if unit.is_autoscaled and now > notice.ends_at + OVERDUE_S:
        becomes = Removal(
            agent.agent_id if agent else "",
            "terminating",
            now,
            reason,
            requested_at=now,
            policy="interruption",
        )
        gone: tuple[MarkGone | Terminate, ...] = (MarkGone(name, agent.agent_id),) if agent else ()
        return [
            Move(
                unit,
                (*gone, Terminate(name)),
                becomes,
                (reason, Reason.of(ReasonCode.INSTANCE_STILL_RUNS)),
            )
        ]
    if agent is None:
        return []
    if removal is None or removal.policy != "interruption":
        return [_taken_over(unit, agent, removal, reason, now)]
    if removal.phase == "deactivated":
        return _until_drained(unit, agent, removal, notice, snapshot, placed, now)
    if (
        removal.phase == "draining"
        and not agent.drain_state
        and not agent.is_empty
        and now - removal.since >= ASK_AGAIN_S
    ):
        return [
            Move(
                unit,
                (_drain(unit, agent, notice, now),),
                replace(removal, since=now),
                (reason, Reason.of(ReasonCode.DRAIN_REPEATED)),
            )
        ]
    return []


def _taken_over(
    unit: AgentNode, agent: Agent, removal: Removal | None, reason: Reason, now: float
) -> Move:
    """The first step, whatever was under way: no more work. What drains already goes on draining."""
    phase = "draining" if removal is not None and agent.drain_state else "deactivated"
    becomes = Removal(
        agent.agent_id,
        "draining" if phase == "draining" else "deactivated",
        now,
        reason,
        policy="interruption",
    )
    return Move(unit, (Deactivate(unit.machine.instance_id, agent.agent_id),), becomes, (reason,))


def _until_drained(
    unit: AgentNode,
    agent: Agent,
    removal: Removal,
    notice: Notice,
    snapshot: Snapshot,
    placed: Collection[str],
    now: float,
) -> list[Move]:
    """Drain when its tasks have somewhere to go, or when they must stop now to stop in order."""
    name, reason = unit.machine.instance_id, reason_of(notice, now)
    if now - removal.since < SETTLE_S:
        return []
    if agent.active and not agent.deactivated:
        return [
            Move(
                unit,
                (Deactivate(name, agent.agent_id),),
                replace(removal, since=now),
                (reason, Reason.of(ReasonCode.DEACTIVATION_REPEATED)),
            )
        ]
    moving = tasks_to_move(agent, notice)
    if agent.is_empty or (agent.work and not moving):
        return []
    soon = [work.ends_at for work in agent.work if has_time_to_finish(work, notice)]
    if now < last_call(notice, snapshot.spec.autoscaler.drain_grace_s, soon) and (
        soon or name not in placed
    ):
        return []
    is_placed = name in placed
    why = ReasonCode.TASKS_HAVE_CAPACITY if is_placed else ReasonCode.TASKS_MUST_STOP
    return [
        Move(
            unit,
            (_drain(unit, agent, notice, now),),
            replace(removal, phase="draining", since=now),
            (reason, Reason.of(why)),
        )
    ]


def last_call(notice: Notice, grace_s: float, soon: Iterable[float] = ()) -> float:
    """When a drain must begin: `grace_s` before the end, or a third of the notice if that is less; later for work that is soon done."""
    grace_s = min(grace_s, max(0.0, notice.ends_at - notice.at) / 3)
    return max(
        [
            notice.ends_at - STOP_MARGIN_S - grace_s,
            *(min(at, notice.ends_at - 2 * STOP_MARGIN_S) for at in soon),
        ]
    )


def _drain(unit: AgentNode, agent: Agent, notice: Notice, now: float) -> Drain:
    """Each task's own time to stop, cut to what is left. The agent is not marked gone: the end may yet not come."""
    return Drain(
        unit.machine.instance_id,
        agent.agent_id,
        max(1.0, round(notice.ends_at - STOP_MARGIN_S - now, 1)),
        mark_gone=False,
    )


def _can_come_back(unit: AgentNode, removal: Removal) -> bool:
    """Whether what the announcement began is undone when it no longer stands: what drains for another reason goes on."""
    return removal.policy in NOTICE_POLICIES and (
        removal.policy == "interruption" or removal.phase == "deactivated" or not unit.is_autoscaled
    )


def _spared(unit: AgentNode, removal: Removal) -> list[Move]:
    """The end did not come: the agent works again, as soon as the engine allows it."""
    agent = unit.agent
    if agent is None or agent.drain_state == "DRAINING" or removal.phase == "terminating":
        return []
    return [
        Move(
            unit,
            (Reactivate(unit.machine.instance_id, agent.agent_id),),
            None,
            (Reason.of(ReasonCode.NOTICE_WITHDRAWN),),
            cooldown=True,
        )
    ]


def planned(snapshot: Snapshot, supply: Supply, placed: Collection[str], now: float) -> list[Move]:
    """The second step of machines that a policy began to empty because of an announcement: drained once what replaces them is up."""
    settings, moves = snapshot.spec.autoscaler, []
    for unit in supply.agent_nodes:
        removal, agent, name = unit.removal, unit.agent, unit.machine.instance_id
        notice = snapshot.state.notices.get(name)
        if (
            removal is None
            or agent is None
            or notice is None
            or is_near(notice, now)
            or removal.phase != "deactivated"
        ):
            continue
        if (
            removal.policy not in NOTICE_POLICIES - {"interruption"}
            or now - removal.since < SETTLE_S
        ):
            continue
        if agent.is_empty or name in placed:
            why = ReasonCode.AGENT_EMPTY if agent.is_empty else ReasonCode.REPLACEMENT_READY
            drain = Drain(
                name,
                agent.agent_id,
                settings.drain_grace_s if settings.drain_timeout_kills else None,
                mark_gone=False,
            )
            moves.append(
                Move(
                    unit,
                    (drain,),
                    replace(removal, phase="draining", since=now),
                    (reason_of(notice, now), Reason.of(why)),
                )
            )
        elif now - removal.since > settings.boot_timeout_s + settings.drain_timeout_s:
            missing = Reason.of(ReasonCode.REPLACEMENT_MISSING, wait_s=now - removal.since)
            reasons = (reason_of(notice, now), missing)
            moves.append(
                Move(unit, (Reactivate(name, agent.agent_id),), None, reasons, cooldown=True)
            )
    return moves


def _ended(snapshot: Snapshot) -> list[Move]:
    """Machines that have ended as announced: the engine is told, so that their tasks start elsewhere without waiting for its pings.

    One of ours that was only stopped is given back: its disk would be paid for ever. One of Terraform's may be started again, and an
    agent that was marked gone could not come back: the engine finds out by itself.
    """
    agents = (
        {agent.instance_id: agent for agent in snapshot.cluster.agents} if snapshot.cluster else {}
    )
    moves = []
    for machine in snapshot.machines:
        agent, notice = (
            agents.get(machine.instance_id),
            snapshot.state.notices.get(machine.instance_id),
        )
        unit = AgentNode(machine, agent, "gone", None, 0.0)
        if (
            notice is None
            or agent is None
            or machine.state
            not in ({"terminated", "stopped"} if unit.is_autoscaled else {"terminated"})
        ):
            continue
        reasons = [Reason.of(ReasonCode.ENDED_AS_ANNOUNCED, state=machine.state, event=notice.what)]
        if agent.tasks:
            reasons.append(Reason.of(ReasonCode.TASKS_LOST, tasks=agent.tasks))
        ends = (Terminate(machine.instance_id),) if machine.state == "stopped" else ()
        moves.append(
            Move(
                unit,
                (*ends, MarkGone(machine.instance_id, agent.agent_id)),
                None,
                tuple(reasons),
                kind="instance_terminated",
            )
        )
    return moves


def timers(snapshot: Snapshot, memory: PlannerState) -> Iterator[float]:
    """When what was announced leads to another step though nothing happens."""
    settings = snapshot.spec.autoscaler
    for notice in memory.notices.values():
        yield notice.ends_at + PASSED_S if notice.ends_at else notice.at + ADVICE_HOLDS_S
        if notice.ends_at:
            yield notice.ends_at - settings.interruption.retire_ahead_s
            yield notice.ends_at - NEAR_S
            yield last_call(notice, settings.drain_grace_s)
            yield notice.ends_at + OVERDUE_S
    for agent in snapshot.cluster.agents if snapshot.cluster else ():
        notice_of = memory.notices.get(agent.instance_id)
        yield from (work.ends_at for work in agent.work if has_time_to_finish(work, notice_of))
    for removal in memory.removals.values():
        if removal.is_waiting_for_notice:
            yield removal.since + max(
                ASK_AGAIN_S, settings.boot_timeout_s + settings.drain_timeout_s
            )
