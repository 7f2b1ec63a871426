"""The planner as a policy of the simulated world: runs `plan` and performs its commands.

The daemon looks each `interval_s`; here a look is skipped when nothing happened and no timer of the
planner ran out (`Plan.next_pass_at`).

Tasks that keep their work (services) are the services framework's, which starts them again
elsewhere; the others are another framework's, so that the planner moves them only where a policy
names that framework (`consolidation.frameworks`). Nobody tells it when a task ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mesaform.autoscaler.interruption import controller
from mesaform.autoscaler.interruption.notice import ParsedNotice
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, QueueEntry, RunningTask
from mesaform.autoscaler.model.command import (
    Command,
    Deactivate,
    Drain,
    Launch,
    MarkGone,
    Reactivate,
    Terminate,
)
from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.notice import Notice
from mesaform.autoscaler.model.planner_state import Advertised, PlannerState
from mesaform.autoscaler.model.shape import shape_of
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.model.supply import attributes_of
from mesaform.autoscaler.planner import launch_backoff
from mesaform.autoscaler.planner.planner import Plan, apply_command, plan
from mesaform.autoscaler.reporting.reason_text import render_all
from mesaform.aws.ports import Machine, Offering
from mesaform.config.schema import ClusterSpec
from mesaform.simulator.weeks import Weeks
from mesaform.simulator.world import Behaviour, EventKind, Host, World, machine_of

WOKEN_AFTER_S = 0.5
"""How soon after more work waits the daemon looks (its poll of the services' queue)."""

WAKING = frozenset({"arrived", "noticed"})
"""Events that the daemon reacts to before its next pass."""

SERVICES, BATCH = "marathon", "batch"
"""The frameworks of tasks that keep their work, and of those that start over."""


class Mesaform:
    """See `Scaler`.

    Args:
        name: what the report calls it.
        spec: the policy.
        offerings: what each pool may buy.

    """

    def __init__(
        self, name: str, spec: ClusterSpec, offerings: Mapping[str, Sequence[Offering]]
    ) -> None:
        self.name = name
        self.behaviour = Behaviour(spec.placement, drains_on_notice=False)
        self._spec = spec
        self._offerings = {pool: tuple(offered) for pool, offered in offerings.items()}
        self._memory = PlannerState()
        self._intents: dict[str, Intent] = {}
        self._look_at = 0.0
        self._reported_ends = 0
        self._machines: dict[str, Machine] = {}
        self._agents: dict[str, tuple[int, Agent]] = {}
        self._weeks = Weeks() if spec.autoscaler.profile.enabled else None

    def on_event(self, happening: EventKind, now: float) -> None:
        interval_s = self._spec.autoscaler.interval_s
        self._look_at = min(
            self._look_at,
            now + (min(WOKEN_AFTER_S, interval_s) if happening in WAKING else interval_s),
        )

    def next_wakeup(self, _world: World, _now: float) -> float:
        return self._look_at

    def reconcile(self, world: World, now: float) -> None:
        self._absorb_notices(world, now)
        snapshot = self._snapshot(world)
        if self._weeks is not None:
            snapshot = replace(snapshot, profile=self._weeks.learn(snapshot, now))
        planned = plan(snapshot, now)
        self._memory = self._carry_out(world, planned, now)
        self._settle(world)
        soonest = now + self._spec.autoscaler.interval_s
        self._look_at = (
            math.inf if planned.next_pass_at is None else max(soonest, planned.next_pass_at)
        )

    def _absorb_notices(self, world: World, now: float) -> None:
        """As the daemon does with what its inbox has."""
        new = tuple(
            Notice("interruption", name, now, ends_at, "machine", "spot interruption")
            for name, ends_at in world.notices.items()
            if name not in self._memory.notices
        )
        if new:
            machines = [machine_of(world.hosts[notice.instance_id]) for notice in new]
            message = (ParsedNotice(new),)
            self._memory = controller.absorb(self._memory, message, machines, (), now)

    def _snapshot(self, world: World) -> Snapshot:
        names = world.hosts.keys()
        self._machines = {
            name: self._machines.get(name) or machine_of(world.hosts[name]) for name in names
        }
        agents = tuple(self._agent(world, host) for host in world.agents)
        self._agents = {name: kept for name, kept in self._agents.items() if name in names}
        queue = tuple(
            QueueEntry(
                group.app,
                group.shape,
                group.count,
                overdue=True,
                constraints=world.apps[group.app],
                since=group.since,
                labels=world.labels[group.app],
            )
            for group in world.waiting
        )
        return Snapshot(
            spec=self._spec,
            cluster=ClusterView(agents, ended=self._ended(world)),
            queue=queue,
            machines=tuple(self._machines.values()),
            offerings=self._offerings,
            intents=tuple(self._intents.values()),
            state=replace(self._memory, advertised=self._sizes(world.now)),
            app_constraints=world.apps,
        )

    def _sizes(self, now: float) -> dict[str, Advertised]:
        """What agents of each type have: exactly known here, to every policy alike.

        A cluster would learn it from its first machine.
        """
        return {
            f"{pool}/{offering.instance_type}": Advertised(shape_of(offering.resources), now)
            for pool, offered in self._offerings.items()
            for offering in offered
        }

    def _ended(self, world: World) -> tuple[Ended, ...]:
        """What ended since the last look.

        The planner only learns from it where it may move work, as the daemon reads it only then.
        """
        new = (
            tuple(world.ended[self._reported_ends :])
            if self._spec.autoscaler.consolidation.enabled
            else ()
        )
        self._reported_ends = len(world.ended)
        return new

    def _agent(self, world: World, host: Host) -> Agent:
        """A host as the elected master has it, made anew only when it changed."""
        kept = self._agents.get(host.name)
        if kept is not None and kept[0] == host.version:
            return kept[1]
        offering = host.offering
        attributes = attributes_of(
            self._spec, host.pool, offering.instance_type, offering.zone, offering.capacity
        )
        agent = Agent(
            agent_id=f"S-{host.name}",
            hostname=host.name,
            attributes={**attributes, "instance_id": host.name},
            total=host.total,
            allocated=host.used,
            active=not host.cordoned,
            deactivated=host.cordoned,
            tasks=len(host.tasks),
            apps=world.apps_on(host),
            registered_at=host.up_at,
            ports=host.ports,
            work=tuple(
                RunningTask(
                    str(number),
                    work.task.app,
                    SERVICES if work.task.keeps_work else BATCH,
                    work.task.shape,
                    since,
                )
                for number, since in host.tasks.items()
                for work in (world.work[number],)
            ),
        )
        self._agents[host.name] = (host.version, agent)
        return agent

    def _carry_out(self, world: World, planned: Plan, now: float) -> PlannerState:
        """As the daemon's actor does: remember removals, take back, buy, give back."""
        memory = planned.state
        for command in planned.commands:
            if command.instance_id and command.next_removal is not None:
                memory = apply_command(memory, command)
        for command in sorted(planned.commands, key=_urgency):
            if command.actions and isinstance(command.actions[0], Launch):
                memory = self._buy(world, memory, command.actions[0], command, now)
            elif command.actions:
                self._move(world, command)
                memory = apply_command(memory, command)
        return memory

    def _buy(
        self, world: World, memory: PlannerState, launch: Launch, command: Command, now: float
    ) -> PlannerState:
        request = launch_backoff.narrow(launch.request, memory.backoffs, now)
        if request is None:
            return memory
        result = world.buy(request, render_all(command.decision.reasons))
        if result.machines:
            ids = tuple(machine.instance_id for machine in result.machines)
            self._intents[request.token] = Intent(request, now, ids)
        return launch_backoff.state_after_result(memory, request, result, now)

    def _move(self, world: World, command: Command) -> None:
        why = render_all(command.decision.reasons)
        for action in command.actions:
            match action:
                case Deactivate(instance_id=name):
                    world.cordon(name)
                case Reactivate(instance_id=name):
                    world.uncordon(name)
                case Drain(instance_id=name) | MarkGone(instance_id=name):
                    world.drain(name, why)
                case Terminate(instance_id=name):
                    world.terminate(name, why)
                case _:
                    raise TypeError(
                        f"the simulator does not know the action {type(action).__name__}"
                    )

    def _settle(self, world: World) -> None:
        """Launches whose machines all registered or are gone are no longer open."""
        for token, intent in list(self._intents.items()):
            if all(
                name not in world.hosts or world.hosts[name].up
                for name in intent.instance_ids or ()
            ):
                del self._intents[token]


def _urgency(command: Command) -> int:
    first = command.actions[0] if command.actions else None
    return {Reactivate: 0, Launch: 1}.get(type(first), 2)
