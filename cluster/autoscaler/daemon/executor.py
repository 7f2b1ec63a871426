"""Executor of plans: the order of journal writes and actions that makes every crash repairable.

The start of a removal is written to the journal before it is executed, a reactivation after it. A
launch is written before CreateFleet and again with its answer. What is still unclear after a crash
is repeated by the next pass with the same token or instance id. Depends on the planner, the ports
of AWS and the operator API of Mesos.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from mesaform.autoscaler.model.command import (
    Action,
    Command,
    Deactivate,
    Drain,
    Launch,
    MarkGone,
    Reactivate,
    Terminate,
)
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.autoscaler.model.supply import LISTING_LAG_S, LIVE
from mesaform.autoscaler.planner import launch_backoff
from mesaform.autoscaler.planner.planner import Plan, apply_command
from mesaform.aws import capacity_errors
from mesaform.aws.ports import Fleet, LaunchResult, Machine
from mesaform.common.errors import MesaformError, NotAuthenticated, NotFound, Permanent, Retryable
from mesaform.common.faults import Fault
from mesaform.common.records import RecordRefused
from mesaform.topology.names import Tag

ABANDON_AFTER_S = 900.0
"""Age after which a launch without an answer and without listed machines is resolved.

Its demand was planned again by then.
"""


class Engine(Protocol):
    """The operator calls that a removal needs; `mesaform.mesos.operator` implements them."""

    async def deactivate(self, agent_id: str) -> None: ...
    async def reactivate(self, agent_id: str) -> None: ...
    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None: ...
    async def mark_gone(self, agent_id: str) -> None: ...


class JournalPort(Protocol):
    """The part of `Journal` that the executor needs."""

    async def save(self, planner_state: PlannerState) -> None: ...
    async def record(self, intent: Intent) -> None: ...
    async def bought(self, intent: Intent, instance_ids: tuple[str, ...]) -> Intent: ...
    async def resolve(self, token: str) -> None: ...
    async def save_if_changed(self, planner_state: PlannerState) -> None: ...


class PlanExecutor:
    """Executes plans for one term of leadership.

    Args:
        cluster: its name.
        fleet: the cloud.
        engine: the elected master.
        journal: stores intents and the planner state. `LeadershipLost` passes through.
        report: called with each decision after its execution, failed ones included.
        clock: seconds since the epoch.

    """

    def __init__(
        self,
        cluster: str,
        fleet: Fleet,
        engine: Engine,
        journal: JournalPort,
        report: Callable[[Decision], None],
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._fleet = fleet
        self._engine = engine
        self._journal = journal
        self._report = report
        self._clock = clock
        self.faults: list[Fault] = []

    async def recover(
        self, planner_state: PlannerState, intents: Sequence[Intent], machines: Iterable[Machine]
    ) -> tuple[PlannerState, list[Intent]]:
        """Resolve launches of earlier passes and leaders; return the planner state and the rest."""
        by_token: dict[str, list[Machine]] = {}
        states: dict[str, str] = {}
        for machine in machines:
            by_token.setdefault(machine.tags.get(Tag.LAUNCH, ""), []).append(machine)
            states[machine.instance_id] = machine.state
        open_: list[Intent] = []
        for intent in intents:
            left: Intent | None = intent
            try:
                listed = by_token.get(intent.request.token, [])
                planner_state, left = await self._resolved(planner_state, intent, listed, states)
            except MesaformError:
                raise
            except Exception as error:  # the next pass tries again; the other launches go on
                self.faults.append(Fault("launch", intent.request.token, error))
            if left is not None:
                open_.append(left)
        return planner_state, open_

    async def _resolved(
        self,
        planner_state: PlannerState,
        intent: Intent,
        listed: list[Machine],
        states: dict[str, str],
    ) -> tuple[PlannerState, Intent | None]:
        """Resolve a launch; return the planner state, and the launch if it stays open."""
        known: Intent | None = intent
        if intent.instance_ids is None:
            planner_state, known = await self._reissue(planner_state, intent, listed)
        if known is None or known.instance_ids is None:
            return planner_state, known
        if not self._is_settled(known, known.instance_ids, planner_state, states):
            return planner_state, known
        await self._journal.resolve(known.request.token)
        return planner_state, None

    async def execute(self, plan: Plan) -> PlannerState:
        """Execute a plan and return the planner state: reactivations, launches, then removals."""
        planner_state = plan.state
        for command in plan.commands:
            if command.instance_id and command.next_removal is not None:
                planner_state = apply_command(planner_state, command)
        await self._journal.save_if_changed(planner_state)
        together, commands = _terminations(plan.commands)
        for command in sorted(commands, key=_urgency):
            try:
                planner_state = await self._carry_out(planner_state, command)
            except MesaformError as error:
                if not isinstance(error, RecordRefused):
                    raise
                self._not_carried_out(command, error)
            except Exception as error:  # the other commands go on
                self._not_carried_out(command, error)
        planner_state = await self._terminate(planner_state, together)
        await self._journal.save_if_changed(planner_state)
        return planner_state

    def _not_carried_out(self, command: Command, error: Exception) -> None:
        """Report a defect, or a record that the journal does not take; the others go on."""
        self.faults.append(Fault("command", command.decision.kind, error))
        self._report(_not_executed(command.decision, repr(error)[:300]))

    async def _carry_out(self, planner_state: PlannerState, command: Command) -> PlannerState:
        if not command.actions:
            self._report(command.decision)
            return planner_state
        if isinstance(command.actions[0], Launch):
            return await self._launch(planner_state, command.actions[0], command.decision)
        return await self._move(planner_state, command)

    async def _terminate(
        self, planner_state: PlannerState, commands: Sequence[Command]
    ) -> PlannerState:
        """Terminate machines in one call.

        When EC2 refuses the call, each machine is terminated by a call of its own, so that one
        machine does not block the others.
        """
        names = [command.instance_id for command in commands]
        try:
            if len(names) > 1:
                await asyncio.to_thread(self._fleet.terminate, self._cluster, names)
        except Retryable as error:
            for command in commands:
                self._report(_not_executed(command.decision, error.what))
            return planner_state
        except MesaformError:
            names = []
        for command in commands:
            if len(names) > 1:
                self._report(command.decision)
                planner_state = apply_command(planner_state, command)
            else:
                planner_state = await self._move(planner_state, command)
        return planner_state

    async def _launch(
        self, planner_state: PlannerState, launch: Launch, decision: Decision
    ) -> PlannerState:
        request = launch_backoff.narrow(launch.request, planner_state.backoffs, self._clock())
        if request is None:
            reasons = (Reason.of(ReasonCode.NO_CAPACITY_EARLIER), *decision.reasons)
            self._report(_without_launch(decision, "no_capacity", reasons))
            return planner_state
        intent = Intent(
            request, self._clock(), None, decision.reasons[0] if decision.reasons else None
        )
        await self._journal.record(intent)
        return await self._buy(planner_state, intent, decision)

    async def _buy(
        self, planner_state: PlannerState, intent: Intent, decision: Decision
    ) -> PlannerState:
        request, now = intent.request, self._clock()
        try:
            result = await asyncio.to_thread(self._fleet.launch, request)
        except Retryable as error:
            # Machines may have been bought: the intent stays and the next pass repeats the call.
            failed = Reason.of(ReasonCode.API_ERROR, error=error.what)
            repeated = Reason.of(ReasonCode.LAUNCH_REPEATED)
            self._report(replace(decision, kind="launch_failed", reasons=(failed, repeated)))
            return planner_state
        except MesaformError as error:
            await self._journal.resolve(request.token)
            failed = Reason.of(ReasonCode.API_ERROR, error=_line(error))
            self._report(_without_launch(decision, "launch_failed", (failed,)))
            return launch_backoff.state_after_refusal(planner_state, request, _line(error), now)
        planner_state = launch_backoff.state_after_result(planner_state, request, result, now)
        if not result.machines:
            await self._journal.resolve(request.token)
            refused = Reason.of(ReasonCode.NO_CAPACITY, scopes=_scopes(result))
            self._report(_without_launch(decision, "no_capacity", (refused, *decision.reasons)))
            return planner_state
        ids = tuple(machine.instance_id for machine in result.machines)
        await self._journal.bought(intent, ids)
        usd = sum(_price(intent, machine) for machine in result.machines)
        reasons = decision.reasons
        if result.without_capacity:
            elsewhere = Reason.of(ReasonCode.BOUGHT_ELSEWHERE, scopes=_scopes(result))
            reasons = (*reasons, elsewhere)
        bought = replace(
            decision, reasons=reasons, machines=ids, count=len(ids), usd_per_hour=round(usd, 6)
        )
        self._report(replace(bought, after_usd=round(decision.before_usd + usd, 6)))
        return planner_state

    async def _reissue(
        self, planner_state: PlannerState, intent: Intent, listed: list[Machine]
    ) -> tuple[PlannerState, Intent | None]:
        """Resolve a launch whose answer is unknown, by its tag or by a call with the same token.

        Returns the planner state, and the intent or None if the launch bought nothing.
        """
        if len(listed) >= intent.request.count:
            return planner_state, await self._recovered(intent, listed, ReasonCode.LAUNCH_LISTED)
        if self._clock() - intent.at > ABANDON_AFTER_S:
            await self._journal.resolve(intent.request.token)
            return planner_state, None
        try:
            result = await asyncio.to_thread(self._fleet.launch, intent.request)
        except NotAuthenticated:  # the call was not made
            return planner_state, intent
        except Permanent as error:
            await self._journal.resolve(intent.request.token)
            return launch_backoff.state_after_refusal(
                planner_state, intent.request, _line(error), self._clock()
            ), None
        except MesaformError:
            return planner_state, intent
        planner_state = launch_backoff.state_after_result(
            planner_state, intent.request, result, self._clock()
        )
        if not result.machines:
            await self._journal.resolve(intent.request.token)
            return planner_state, None
        return planner_state, await self._recovered(
            intent, result.machines, ReasonCode.LAUNCH_REPEATED
        )

    async def _recovered(
        self, intent: Intent, machines: Sequence[Machine], how: ReasonCode
    ) -> Intent:
        """Journal and report the machines of a launch whose answer was lost.

        The leader that decided the launch could not report it. Each instance type is a decision.
        """
        now, ids = self._clock(), tuple(machine.instance_id for machine in machines)
        known = await self._journal.bought(intent, ids)
        lost = Reason.of(ReasonCode.LAUNCH_ANSWER_LOST, ordered_s=now - intent.at)
        reasons = (*((intent.reason,) if intent.reason else ()), lost, Reason.of(how))
        by_type: dict[str, list[Machine]] = {}
        for machine in machines:
            by_type.setdefault(machine.instance_type, []).append(machine)
        for group in by_type.values():
            self._report(_recovered_purchase(intent, group, reasons, now))
        return known

    def _is_settled(
        self,
        intent: Intent,
        ids: tuple[str, ...],
        planner_state: PlannerState,
        states: dict[str, str],
    ) -> bool:
        """Whether every machine of a launch registered, is gone, or never appeared."""
        late = self._clock() - intent.at > LISTING_LAG_S

        def settled(name: str) -> bool:
            if name not in states:
                return late
            return name in planner_state.registered_at or states[name] not in LIVE

        return all(settled(name) for name in ids)

    async def _move(self, planner_state: PlannerState, command: Command) -> PlannerState:
        try:
            for action in command.actions:
                await self._do(action)
        except MesaformError as error:
            self._report(_not_executed(command.decision, error.what))
            return planner_state
        self._report(command.decision)
        return apply_command(planner_state, command)

    async def _do(self, action: Action) -> None:
        match action:
            case Deactivate(agent_id=agent_id):
                await self._engine.deactivate(agent_id)
            case Reactivate(agent_id=agent_id):
                await self._engine.reactivate(agent_id)
            case Drain(agent_id=agent_id, grace_s=grace_s, mark_gone=mark_gone):
                await self._engine.drain(agent_id, grace_s, mark_gone=mark_gone)
            case MarkGone(agent_id=agent_id):
                try:
                    await self._engine.mark_gone(agent_id)
                except NotFound:
                    return
            case Launch():
                message = "launches are carried out by _launch"
                raise TypeError(message)
            case _:
                await asyncio.to_thread(self._fleet.terminate, self._cluster, [action.instance_id])


def _line(error: MesaformError) -> str:
    """What an error says and what to do, in one line."""
    return f"{error.what} ({error.fix})" if error.fix else error.what


def _not_executed(decision: Decision, error: str) -> Decision:
    """Return the decision of a command that failed, so that the price stays."""
    reason = Reason.of(ReasonCode.NOT_EXECUTED, error=error)
    return replace(decision, reasons=(*decision.reasons, reason), usd_per_hour=0.0)


def _terminations(commands: Sequence[Command]) -> tuple[list[Command], list[Command]]:
    """Split commands into those that only terminate a machine, and all others."""
    ends = [
        command
        for command in commands
        if len(command.actions) == 1 and isinstance(command.actions[0], Terminate)
    ]
    return ends, [
        command
        for command in commands
        if len(command.actions) != 1 or not isinstance(command.actions[0], Terminate)
    ]


def _urgency(command: Command) -> int:
    first = command.actions[0] if command.actions else None
    if command.decision.kind == "notice":
        return -1  # reports come before actions
    return {Reactivate: 0, Launch: 1}.get(type(first), 2)


def _price(intent: Intent, machine: Machine) -> float:
    offerings = intent.request.offerings
    same = [
        o
        for o in offerings
        if o.instance_type == machine.instance_type and o.capacity == machine.capacity
    ]
    return (same or offerings)[0].usd_per_hour


def _recovered_purchase(
    intent: Intent, machines: Sequence[Machine], reasons: tuple[Reason, ...], now: float
) -> Decision:
    """Return the decision of a purchase of one type whose launch answer was lost."""
    first = machines[0]
    return Decision(
        at=now,
        kind="buy",
        reasons=reasons,
        pool=intent.request.pool,
        offering=f"{first.instance_type}/{first.zone}/{first.capacity}",
        count=len(machines),
        machines=tuple(machine.instance_id for machine in machines),
        usd_per_hour=round(sum(_price(intent, machine) for machine in machines), 6),
        token=intent.request.token,
    )


def _without_launch(
    decision: Decision,
    kind: Literal["launch_failed", "no_capacity"],
    reasons: tuple[Reason, ...],
) -> Decision:
    """Return the decision of a launch that bought nothing, so that the price stays."""
    return replace(
        decision,
        kind=kind,
        reasons=reasons,
        usd_per_hour=0.0,
        after_usd=decision.before_usd,
    )


def _scopes(result: LaunchResult) -> tuple[str, ...]:
    """The offerings, zones and quotas that lacked capacity."""
    return tuple(map(capacity_errors.describe, result.without_capacity))
