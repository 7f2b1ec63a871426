"""The scheduler's decisions: events of the engine and time go in, effects come out. Pure: no clock, no randomness, no I/O.

What people ask for is in `changes`. Both end in `settle`, which compares what is wanted with what is there; so a lost
message, a crash or a new leader is repaired by the next look, not by remembering what was under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from msgspec.structs import replace

from mesaform.mesos.messages import TERMINAL_STATES, Offer, TaskStatus
from mesaform.mesos.scheduler_api import (
    acknowledge,
    decline,
    kill,
    launch,
    reconcile,
    revive,
    suppress,
)
from mesaform.services.effects import Effect
from mesaform.services.launch import task_id_for, task_info
from mesaform.services.matching import Fit, OpenOffer
from mesaform.services.model import App, Failure, Instance, UnreachableStrategy, timestamp
from mesaform.services.queue import Waiting
from mesaform.services.scaling import Step, plan, settled, simple_step
from mesaform.services.state import State

SHORT_REFUSE_S = 1.0
"""While something waits, an offer that does not fit comes back this soon, so that the queue's reasons are about now."""
LONG_REFUSE_S = 3600.0
KILL_AGAIN_S = 10.0
RECONCILE_AGAIN_S = 15.0
RECONCILE_ALL_EVERY_S = 600.0
STAGING_TIMEOUT_S = 300.0

# Ends that are the app's own doing; any other end (its agent drained or gone, a lost launch) is replaced at once.
BACKOFF_STATES = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_ERROR"})
GONE_STATES = TERMINAL_STATES | {"TASK_UNKNOWN"}


@dataclass(slots=True)
class _Line:
    """One app of the queue while offers are looked at: how many instances it still wants, and where the others are."""

    app: App
    left: int
    placed: list[dict[str, str]]


class Core:
    """Decides. `new_id` gives a fresh UUID for each task; it is given from outside so that decisions can be repeated."""

    def __init__(self, state: State, new_id: Callable[[], UUID]) -> None:
        self.state = state
        self._new_id = new_id
        self._offers_on: bool | None = (
            None  # what the engine was told last: revived or suppressed; None: unknown
        )
        self._unheard: set[str] = (
            set()
        )  # tasks of which the master has said nothing since SUBSCRIBED
        self._reconciled_at = self._reconciled_all_at = 0.0

    # ---- events

    def subscribed(self, now: float) -> list[Effect]:
        """A new subscription: ask after every task, and say anew whether offers are wanted."""
        self._offers_on = None
        for waiting in self.state.waiting.values():
            waiting.last_by_agent.clear()
        self._reconcile_all(now)
        return self.settle(now)

    def framework_removed(self, now: float) -> list[Effect]:
        """The engine forgot this framework and killed its tasks: everything is to be started anew."""
        for instance in list(self.state.instances.values()):
            self.state.drop_instance(instance)
        self._offers_on = None
        return self.settle(now)

    def not_said(self) -> None:
        """Some call did not get through; whether offers are on is not known any more."""
        self._offers_on = None

    def offers(self, offers: Iterable[Offer], now: float) -> list[Effect]:
        """Launch what fits, several to an offer; refuse the rest, for a short time while something still waits."""
        opened = [OpenOffer(offer) for offer in offers]
        lines = {app_id: self._line(app_id) for app_id in self.state.waiting}
        launched = [self._fill(offer, lines, now) for offer in opened]
        refuse_s = SHORT_REFUSE_S if self.state.waiting else LONG_REFUSE_S
        unused = []
        for offer, tasks in zip(opened, launched, strict=True):
            if tasks:
                self.state.send(
                    launch([offer.offer.id.value], [task_info(*task) for task in tasks], refuse_s)
                )
            else:
                unused.append(offer.offer.id.value)
        if unused:
            self.state.send(decline(unused, refuse_s))
        return self.settle(now)

    def agent_failed(self, agent_id: str) -> None:
        """An agent was removed: what it rejected is no reason any more. Its tasks are told of one by one."""
        for waiting in self.state.waiting.values():
            waiting.forget_agent(agent_id)

    def status(self, status: TaskStatus, now: float) -> list[Effect]:
        """One task's news, acknowledged after it is stored."""
        task_id = status.task_id.value
        self._unheard.discard(task_id)
        instance = self.state.instances.get(task_id)
        if instance is None:
            if status.state not in GONE_STATES:
                self.state.send(kill(task_id, status.agent_id.value if status.agent_id else None))
        elif status.state in GONE_STATES:
            self._ended(instance, status, now)
        else:
            self._lives(instance, status, now)
        if (answer := acknowledge(status)) is not None:
            self.state.send(answer)
        return self.settle(now)

    def tick(self, now: float) -> list[Effect]:
        """Time passed: kill again, reconcile again, give up on what is unreachable or never started."""
        if now - self._reconciled_all_at >= RECONCILE_ALL_EVERY_S:
            self._reconcile_all(now)
        elif self._unheard and now - self._reconciled_at >= RECONCILE_AGAIN_S:
            self._reconcile(now)
        for instance in list(self.state.instances.values()):
            self._age(instance, now)
        return self.settle(now)

    # ---- what people do is in `changes`; it ends here, as every event does

    def settle(self, now: float) -> list[Effect]:
        """Kill what is too much, queue what is missing, end deployments that are done, turn offers on or off.

        Only apps of which something changed are looked at.
        """
        changed = self.state.take_unsettled()
        for app_id in sorted(changed):
            self._settle_app(app_id, now)
        for deployment in list(self.state.deployments.values()):
            touched = not deployment.affected_apps or not changed.isdisjoint(
                deployment.affected_apps
            )
            if touched and all(self._done(app_id) for app_id in deployment.affected_apps):
                self.state.drop_deployment(deployment.id)
        wanted = bool(self.state.waiting)
        if wanted != self._offers_on:
            self._offers_on = wanted
            self.state.send(revive() if wanted else suppress())
        return self.state.take_effects()

    def ask_for_offers(self) -> None:
        """Something new is wanted: what was refused a moment ago may fit it."""
        self._offers_on = None

    def kill(self, instance: Instance, now: float) -> None:
        """Ask for an instance's end; one that cannot be reached is forgotten, and killed if it ever comes back."""
        if instance.state == "TASK_UNREACHABLE":
            self.state.drop_instance(instance)
            return
        self.state.put_instance(
            replace(instance, killing_since=instance.killing_since or now, killed_at=now)
        )
        self.state.send(kill(instance.task_id, instance.agent_id))

    def missing(self, app_id: str) -> int:
        """How many instances of an app wait for offers."""
        app = self.state.apps.get(app_id)
        return self._step(app).launches if app else 0

    # ---- parts

    def _settle_app(self, app_id: str, now: float) -> None:
        app = self.state.apps.get(app_id)
        step = self._step(app) if app else None
        for instance in (
            step.kills
            if step
            else [item for item in self.state.instances_of(app_id) if item.killing_since is None]
        ):
            self.kill(instance, now)
        if step and step.launches:
            self.state.waiting.setdefault(app_id, Waiting(now))
        else:
            self.state.waiting.pop(app_id, None)

    def _step(self, app: App) -> Step:
        """The app's next step. Most news leave nothing to choose, and then counting is enough."""
        step = simple_step(app, self.state.tally(app.id))
        return step if step is not None else plan(app, self.state.instances_of(app.id))

    def _done(self, app_id: str) -> bool:
        app, tally = self.state.apps.get(app_id), self.state.tally(app_id)
        return settled(app, tally) if app else not tally

    def _line(self, app_id: str) -> _Line:
        app = self.state.apps[app_id]
        placed = (
            [instance.places for instance in self.state.instances_of(app_id) if instance.counts]
            if app.constraints
            else []
        )
        return _Line(app, self._step(app).launches, placed)

    def _fill(
        self, offer: OpenOffer, lines: dict[str, _Line], now: float
    ) -> list[tuple[App, Instance, Fit]]:
        """One instance of each waiting app in turn, longest waiting first, until nothing more fits."""
        launched: list[tuple[App, Instance, Fit]] = []
        agent_id = offer.offer.agent_id.value
        turn = sorted(
            self.state.waiting, key=lambda app_id: (self.state.waiting[app_id].since, app_id)
        )
        turn = [
            app_id
            for app_id in turn
            if lines[app_id].left > 0 and self.state.backoff(app_id).left_s(now) == 0
        ]
        used: set[str] = set()
        while turn:
            for app_id in list(turn):
                line = lines[app_id]
                outcome = self._place(line, offer, now)
                if isinstance(outcome, str):
                    turn.remove(app_id)
                    if app_id not in used:
                        self.state.waiting[app_id].rejected(agent_id, outcome, now)
                    continue
                if app_id not in used:
                    used.add(app_id)
                    self.state.waiting[app_id].used(agent_id, now)
                launched.append(outcome)
                line.left -= 1
                if line.left <= 0:
                    turn.remove(app_id)
                    del self.state.waiting[app_id]
        return launched

    def _place(self, line: _Line, offer: OpenOffer, now: float) -> tuple[App, Instance, Fit] | str:
        app, unique = line.app, self._new_id()
        outcome = offer.examine(app, line.placed, unique.int)
        if isinstance(outcome, str):
            return outcome
        offer.take(outcome)
        instance = Instance(
            task_id=task_id_for(app.id, str(unique)),
            app_id=app.id,
            version=app.version,
            config_version=app.config_version,
            agent_id=offer.offer.agent_id.value,
            host=offer.offer.hostname,
            places=offer.places,
            ports=list(outcome.ports),
            staged_at=now,
        )
        self.state.put_instance(instance)
        if app.constraints:
            line.placed.append(instance.places)
        return app, instance, outcome

    def _lives(self, instance: Instance, status: TaskStatus, now: float) -> None:
        since = None
        if status.state == "TASK_UNREACHABLE":
            lost_at = status.unreachable_time
            since = instance.unreachable_since or (lost_at.nanoseconds / 1e9 if lost_at else now)
        started = instance.started_at
        if started is None and status.state == "TASK_RUNNING":
            started = status.timestamp or now
        changed = replace(
            instance,
            state=status.state,
            started_at=started,
            unreachable_since=since,
            inactive=instance.inactive and since is not None,
            healthy=instance.healthy if status.healthy is None else status.healthy,
        )
        if changed != instance:
            self.state.put_instance(changed)
        if status.state == "TASK_UNREACHABLE" and changed.killing_since is not None:
            self.state.drop_instance(changed)

    def _ended(self, instance: Instance, status: TaskStatus, now: float) -> None:
        self.state.drop_instance(instance)
        app = self.state.apps.get(instance.app_id)
        if app is None or instance.killing_since is not None:
            return
        unhealthy = status.healthy is False and status.state == "TASK_KILLED"
        if (
            status.state in BACKOFF_STATES or unhealthy
        ) and instance.config_version == app.config_version:
            ran_s = now - instance.started_at if instance.started_at is not None else 0.0
            self.state.backoff(app.id).failed(app, ran_s, now)
        if unhealthy or status.state not in {"TASK_FINISHED", "TASK_KILLED"}:
            self.state.failures[app.id] = Failure(
                app_id=app.id,
                host=instance.host,
                message="Killed by its agent, because its health checks failed"
                if unhealthy
                else status.message or "",
                state=status.state,
                task_id=instance.task_id,
                timestamp=timestamp(status.timestamp or now),
                version=instance.version,
                slave_id=instance.agent_id,
            )

    def _age(self, instance: Instance, now: float) -> None:
        if instance.killing_since is not None:
            if now - instance.killed_at >= KILL_AGAIN_S:
                self.kill(instance, now)
        elif instance.unreachable_since is not None:
            self._age_unreachable(instance, now - instance.unreachable_since)
        elif instance.state == "TASK_STAGING" and now - instance.staged_at >= STAGING_TIMEOUT_S:
            self.kill(instance, now)

    def _age_unreachable(self, instance: Instance, for_s: float) -> None:
        app = self.state.apps.get(instance.app_id)
        strategy = app.unreachable_strategy if app else UnreachableStrategy()
        if not isinstance(strategy, UnreachableStrategy):
            return
        if for_s >= strategy.expunge_after_seconds:
            self.state.drop_instance(instance)
        elif for_s >= strategy.inactive_after_seconds and not instance.inactive:
            self.state.put_instance(replace(instance, inactive=True))

    def _reconcile_all(self, now: float) -> None:
        """Ask after each task that is known, and for each that the master knows: one given up here is killed when it is heard of."""
        self._unheard = set(self.state.instances)
        self._reconciled_all_at = now
        self._reconcile(now)
        self.state.send(reconcile())

    def _reconcile(self, now: float) -> None:
        self._unheard &= set(self.state.instances)
        self._reconciled_at = now
        if self._unheard:
            pairs = [
                (task_id, self.state.instances[task_id].agent_id)
                for task_id in sorted(self._unheard)
            ]
            self.state.send(reconcile(pairs))
