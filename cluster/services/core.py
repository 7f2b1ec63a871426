"""Pure core of the Marathon-compatible scheduler: events and time in, effects out.

No clock, no randomness, no I/O. Commands of the REST API are in `commands`. Events and commands
both end in `settle`, which compares the wanted with the present state: a lost message, a crash or a
new leader needs no recovery of its own. An unexpected exception in the work for one app, task or
offer ends the work for that one (`State.faults`), and an app's owner sees it as its
`lastTaskFailure`. Behaviour follows Marathon 1.11 (launch queue, kill
selection, unreachable strategy, reconciliation every ten minutes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from msgspec.structs import replace

from mesaform.common.faults import Fault, contained
from mesaform.mesos.messages import TERMINAL_STATES, Offer, TaskInfo, TaskStatus
from mesaform.mesos.scheduler_api import (
    acknowledge,
    decline,
    kill,
    launch,
    reconcile,
    revive,
    suppress,
)
from mesaform.placement.preference import Strategy
from mesaform.placement.run_times import RunTimes
from mesaform.services.constraints import has_groups
from mesaform.services.effects import Effect
from mesaform.services.launch import app_id_of, task_id_for, task_info
from mesaform.services.matching import CONSTRAINT_REASON, FAULT_REASON, OpenOffer
from mesaform.services.model import App, Failure, Instance, UnreachableStrategy, timestamp
from mesaform.services.offer_choice import OfferChoice
from mesaform.services.queue import QueueEntry
from mesaform.services.scaling import Step, is_settled, plan, simple_step
from mesaform.services.state import State

SHORT_REFUSE_S = 1.0
"""Refusal of an unused offer while an app waits: short, so that the queue's reasons are recent."""
LONG_REFUSE_S = 3600.0
"""Refusal of an unused offer while no app waits; a revive ends it."""
KILL_RETRY_S = 10.0
RECONCILE_RETRY_S = 15.0
"""Between two questions about tasks of which the master has reported nothing."""
RECONCILE_INTERVAL_S = 600.0
"""Between two reconciliations of all tasks; the value of Marathon 1.11."""
STAGING_TIMEOUT_S = 300.0
"""After which a task that does not start is killed; Marathon's `task_launch_timeout`."""

BACKOFF_STATES = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_ERROR"})
"""Ends that the app causes. After any other end the instance is replaced without delay."""
ENDED_STATES = TERMINAL_STATES | {"TASK_UNKNOWN"}
EXPECTED_STATES = frozenset({"TASK_FINISHED", "TASK_KILLED"})
"""Ends that are not reported as failures."""

FAULT_MESSAGE = "This server failed in the work for the app; its log has the details"
UNHEALTHY_MESSAGE = "Killed by its agent, because its health checks failed"


@dataclass(slots=True)
class _Demand:
    """One app of the queue while offers are matched.

    `missing` instances are still wanted; `placed` has the fields of the agents of the others.
    """

    app: App
    missing: int
    placed: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Launch:
    """One instance that an offer takes, and its task."""

    instance: Instance
    task: TaskInfo


class Core:
    """The scheduler's decisions.

    `new_id` returns a new UUID for each task. `task_user` is the user of apps that name none.
    `placement` chooses among the offers that an instance fits.
    """

    def __init__(
        self,
        state: State,
        new_id: Callable[[], UUID],
        task_user: str = "",
        placement: Strategy = "spread",
    ) -> None:
        self.state = state
        self._task_user = task_user
        self._placement: Strategy = placement
        self._run_times = RunTimes()
        self._new_id = new_id
        # The last call: revive (true), suppress (false), or unknown (None).
        self._has_revived: bool | None = None
        # Tasks of which the master has reported nothing since the subscription.
        self._unreported: set[str] = set()
        self._reconciled_at = self._reconciled_all_at = 0.0

    # --- events

    def subscribed(self, now: float) -> list[Effect]:
        """Apply SUBSCRIBED: reconcile every task, revive or suppress again."""
        self._has_revived = None
        for entry in self.state.queue.values():
            entry.last_by_agent.clear()
        self._reconcile_all(now)
        return self.settle(now)

    def framework_removed(self, now: float) -> list[Effect]:
        """The master removed this framework and killed its tasks: start all instances anew."""
        for instance in list(self.state.instances.values()):
            self.state.drop_instance(instance)
        self._has_revived = None
        return self.settle(now)

    def call_failed(self) -> None:
        """A call did not arrive; whether offers are on is unknown."""
        self._has_revived = None

    def offers(self, offers: Iterable[Offer], now: float) -> list[Effect]:
        """Launch what fits, several instances per offer, and decline unused offers."""
        demands: dict[str, _Demand] = {}
        for app_id in sorted(self.state.queue):
            with self._contained_app(app_id, now):
                demands[app_id] = self._demand(app_id)
        answers: dict[str, list[_Launch]] = {}
        open_offers: list[OpenOffer] = []
        for offer in offers:
            answers[offer.id.value] = []
            with contained("offer", offer.id.value, self.state.faults):
                open_offers.append(OpenOffer(offer))
        for used, placed in self._match(open_offers, demands, now):
            answers[used.offer.id.value].append(placed)
        self._answer(answers)
        return self.settle(now)

    def agent_failed(self, agent_id: str) -> None:
        """Apply FAILURE of an agent: its reject reasons no longer apply.

        The master reports each of its tasks separately.
        """
        for entry in self.state.queue.values():
            entry.forget_agent(agent_id)

    def status(self, status: TaskStatus, now: float) -> list[Effect]:
        """Apply a task status; it is acknowledged after the change is stored."""
        task_id = status.task_id.value
        self._unreported.discard(task_id)
        with contained("task", task_id, self.state.faults):
            self._apply_status(status, now)
        if (acknowledgement := acknowledge(status)) is not None:
            self.state.send(acknowledgement)
        return self.settle(now)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: repeat kills and reconciliation, apply time-outs."""
        if now - self._reconciled_all_at >= RECONCILE_INTERVAL_S:
            self._reconcile_all(now)
        elif self._unreported and now - self._reconciled_at >= RECONCILE_RETRY_S:
            self._reconcile(now)
        for instance in list(self.state.instances.values()):
            with contained("task", instance.task_id, self.state.faults):
                self._apply_timeouts(instance, now)
        return self.settle(now)

    # --- the end of every event and command

    def settle(self, now: float) -> list[Effect]:
        """Kill surplus instances, queue missing ones, end complete deployments, revive or suppress.

        Only apps that changed are examined.
        """
        changed = self.state.take_unsettled()
        for app_id in sorted(changed):
            with self._contained_app(app_id, now):
                self._settle_app(app_id, now)
        self._end_deployments(changed)
        needs_offers = bool(self.state.queue)
        if needs_offers != self._has_revived:
            self._has_revived = needs_offers
            self.state.send(revive() if needs_offers else suppress())
        return self.state.take_effects()

    def ask_for_offers(self) -> None:
        """Revive at the next `settle`: a changed app may fit an offer that was declined."""
        self._has_revived = None

    def kill(self, instance: Instance, now: float) -> None:
        """Kill an instance. An unreachable one is dropped, and killed when its agent returns."""
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

    # --- settling

    def _settle_app(self, app_id: str, now: float) -> None:
        app = self.state.apps.get(app_id)
        step = self._step(app) if app else self._step_of_deleted(app_id)
        for instance in step.kills:
            self.kill(instance, now)
        if step.launches:
            self.state.queue.setdefault(app_id, QueueEntry(now))
        else:
            self.state.queue.pop(app_id, None)
        if app is None:
            self._run_times.forget(app_id)

    def _step(self, app: App) -> Step:
        """The app's next step. Counts suffice unless instances must be chosen."""
        step = simple_step(app, self.state.tally(app.id))
        return step if step is not None else plan(app, self.state.instances_of(app.id))

    def _step_of_deleted(self, app_id: str) -> Step:
        """Kill what is left of a deleted app, but not of one whose definition is set aside."""
        if self.state.is_unknown(app_id):
            return Step(0, ())
        instances = self.state.instances_of(app_id)
        return Step(0, tuple(item for item in instances if item.killing_since is None))

    def _end_deployments(self, changed: set[str]) -> None:
        """Drop the deployments whose apps have all settled."""
        for deployment in list(self.state.deployments.values()):
            affected = deployment.affected_apps
            if affected and changed.isdisjoint(affected):
                continue
            with contained("deployment", deployment.id, self.state.faults):
                if all(self._is_settled(app_id) for app_id in affected):
                    self.state.drop_deployment(deployment.id)

    @contextmanager
    def _contained_app(self, app_id: str, now: float) -> Iterator[None]:
        """End the work for one app at an unexpected exception, and report it as its failure."""
        faults: list[Fault] = []
        with contained("app", app_id, faults):
            yield
        for fault in faults:
            self.state.faults.append(fault)
            self._report_fault(fault, now)

    def _report_fault(self, fault: Fault, now: float) -> None:
        """Show a fault to the app's owner, and let the app wait before its next launch."""
        app = self.state.apps.get(fault.subject)
        if app is None:
            return
        self.state.failures[app.id] = Failure(
            app_id=app.id,
            host="",
            message=f"{FAULT_MESSAGE} ({fault.text})",
            state="TASK_ERROR",
            task_id="",
            timestamp=timestamp(now),
            version=app.version,
            slave_id="",
        )
        self.state.launch_delay(app.id).add_fault(now)

    def _is_settled(self, app_id: str) -> bool:
        app, tally = self.state.apps.get(app_id), self.state.tally(app_id)
        return is_settled(app, tally) if app else not tally

    # --- offers

    def _demand(self, app_id: str) -> _Demand:
        app = self.state.apps[app_id]
        instances = self.state.instances_of(app_id) if app.constraints else []
        placed = [
            instance.agent_fields
            for instance in instances
            if instance.is_counted and instance.config_version == app.config_version
        ]
        return _Demand(app, self._step(app).launches, placed)

    def _match(
        self, offers: Sequence[OpenOffer], demands: dict[str, _Demand], now: float
    ) -> list[tuple[OpenOffer, _Launch]]:
        """Place one instance of each waiting app in turn, longest wait first, until none fits."""
        launches: list[tuple[OpenOffer, _Launch]] = []
        candidates = self._launchable(demands, now) if offers else []
        choice = self._choice(offers, [demands[app_id].app for app_id in candidates], now)
        examined: set[tuple[str, str]] = set()
        while candidates:
            remaining = []
            for app_id in candidates:
                demand = demands[app_id]
                placed = self._place_next(demand, choice, examined, now)
                if placed is None:
                    continue
                launches.append(placed)
                demand.missing -= 1
                if demand.missing > 0:
                    remaining.append(app_id)
                else:
                    del self.state.queue[app_id]
            candidates = remaining
        return launches

    def _choice(self, offers: Sequence[OpenOffer], apps: Sequence[App], now: float) -> OfferChoice:
        """The offers as the waiting apps prefer them."""
        instances = self.state.instances.values() if apps else ()
        grouped = {app.id for app in apps if has_groups(app.constraints)}
        return OfferChoice(offers, instances, self._placement, self._run_times, now, grouped)

    def _place_next(
        self, demand: _Demand, choice: OfferChoice, examined: set[tuple[str, str]], now: float
    ) -> tuple[OpenOffer, _Launch] | None:
        """Place an instance on the best offer that it fits; None if it fits none.

        `examined` are the apps and offers whose result is recorded.
        """
        app = demand.app
        while (offer := choice.best(app.id)) is not None:
            result = self._try_to_place(demand, offer, now)
            if (app.id, offer.offer.id.value) not in examined:
                examined.add((app.id, offer.offer.id.value))
                self._record(app.id, offer, result, now)
            if not isinstance(result, str):
                choice.take(app.id, result.instance)
                return offer, result
            may_fit_later = result == CONSTRAINT_REASON and has_groups(app.constraints)
            choice.refuse(app.id, is_final=not may_fit_later)
        return None

    def _answer(self, launches: dict[str, list[_Launch]]) -> None:
        """Accept each offer with launches; decline the others in one call."""
        refuse_s = SHORT_REFUSE_S if self.state.queue else LONG_REFUSE_S
        unused = []
        for offer_id, tasks in launches.items():
            if tasks:
                self.state.send(launch([offer_id], [item.task for item in tasks], refuse_s))
            else:
                unused.append(offer_id)
        if unused:
            self.state.send(decline(unused, refuse_s))

    def _launchable(self, demands: dict[str, _Demand], now: float) -> list[str]:
        """The apps that may be launched now, in the order of their wait."""
        queue = self.state.queue
        return [
            app_id
            for app_id in sorted(queue, key=lambda app_id: (queue[app_id].since, app_id))
            if app_id in demands
            and demands[app_id].missing > 0
            and self.state.launch_delay(app_id).remaining_s(now) == 0
        ]

    def _record(self, app_id: str, offer: OpenOffer, result: _Launch | str, now: float) -> None:
        """Count the offer as used or as rejected by the app."""
        agent_id = offer.offer.agent_id.value
        if isinstance(result, str):
            self.state.queue[app_id].add_rejected(agent_id, result, now)
        else:
            self.state.queue[app_id].add_used(agent_id, now)

    def _try_to_place(self, demand: _Demand, offer: OpenOffer, now: float) -> _Launch | str:
        """See `_place`; a fault of the app is a reject reason."""
        with self._contained_app(demand.app.id, now):
            return self._place(demand, offer, now)
        return FAULT_REASON

    def _place(self, demand: _Demand, offer: OpenOffer, now: float) -> _Launch | str:
        """Take one instance from the offer, or return the reject reason."""
        app, task_uuid = demand.app, self._new_id()
        fit = offer.examine(app, demand.placed, task_uuid.int)
        if isinstance(fit, str):
            return fit
        instance = Instance(
            task_id=task_id_for(app.id, str(task_uuid)),
            app_id=app.id,
            version=app.version,
            config_version=app.config_version,
            agent_id=offer.offer.agent_id.value,
            host=offer.offer.hostname,
            agent_fields=offer.agent_fields,
            ports=list(fit.ports),
            staged_at=now,
        )
        launch_ = _Launch(instance, task_info(app, instance, fit, self._task_user))
        # Nothing is taken or stored before the task is complete.
        offer.take(fit)
        self.state.put_instance(instance)
        if app.constraints:
            demand.placed.append(instance.agent_fields)
        return launch_

    # --- statuses

    def _apply_status(self, status: TaskStatus, now: float) -> None:
        task_id = status.task_id.value
        instance = self.state.instances.get(task_id)
        has_ended = status.state in ENDED_STATES
        if instance is not None and has_ended:
            self._apply_end(instance, status, now)
        elif instance is not None:
            self._apply_progress(instance, status, now)
        elif not has_ended and not self.state.is_unknown(app_id_of(task_id)):
            self.state.send(kill(task_id, status.agent_id.value if status.agent_id else None))

    def _apply_progress(self, instance: Instance, status: TaskStatus, now: float) -> None:
        """Apply a status of a task that has not ended."""
        changed = _progressed(instance, status, now)
        if changed != instance:
            self.state.put_instance(changed)
        if status.state == "TASK_UNREACHABLE" and changed.killing_since is not None:
            self.state.drop_instance(changed)

    def _apply_end(self, instance: Instance, status: TaskStatus, now: float) -> None:
        """Apply a status of a task that has ended: drop it, delay launches, note failures."""
        self.state.drop_instance(instance)
        app = self.state.apps.get(instance.app_id)
        self._learn_run_time(instance, now)
        if app is None or instance.killing_since is not None:
            return
        is_unhealthy = _is_killed_as_unhealthy(status)
        if is_unhealthy or status.state in BACKOFF_STATES:
            self._delay_launches(app, instance, now)
        if is_unhealthy or status.state not in EXPECTED_STATES:
            self.state.failures[app.id] = _failure(instance, status, now)

    def _learn_run_time(self, instance: Instance, now: float) -> None:
        if instance.app_id in self.state.apps and instance.started_at is not None:
            self._run_times.learn(instance.app_id, max(0.0, now - instance.started_at))

    def _delay_launches(self, app: App, instance: Instance, now: float) -> None:
        """Delay the app's next launch, unless the instance has an old configuration."""
        if instance.config_version != app.config_version:
            return
        started_at = now if instance.started_at is None else instance.started_at
        self.state.launch_delay(app.id).add_failure(app, now - started_at, now)

    # --- time

    def _apply_timeouts(self, instance: Instance, now: float) -> None:
        if instance.killing_since is not None:
            if now - instance.killed_at >= KILL_RETRY_S:
                self.kill(instance, now)
        elif instance.unreachable_since is not None:
            self._apply_unreachable_strategy(instance, now - instance.unreachable_since)
        elif instance.state == "TASK_STAGING" and now - instance.staged_at >= STAGING_TIMEOUT_S:
            self.kill(instance, now)

    def _apply_unreachable_strategy(self, instance: Instance, unreachable_s: float) -> None:
        if self.state.is_unknown(instance.app_id):
            return
        app = self.state.apps.get(instance.app_id)
        strategy = app.unreachable_strategy if app else UnreachableStrategy()
        if not isinstance(strategy, UnreachableStrategy):
            return
        if unreachable_s >= strategy.expunge_after_seconds:
            self.state.drop_instance(instance)
        elif unreachable_s >= strategy.inactive_after_seconds and not instance.is_inactive:
            self.state.put_instance(replace(instance, is_inactive=True))

    def _reconcile_all(self, now: float) -> None:
        """Reconcile each known task, and implicitly each task that the master knows.

        A task that was dropped here is killed when the master reports it.
        """
        self._unreported = set(self.state.instances)
        self._reconciled_all_at = now
        self._reconcile(now)
        self.state.send(reconcile())

    def _reconcile(self, now: float) -> None:
        self._unreported &= set(self.state.instances)
        self._reconciled_at = now
        if self._unreported:
            pairs = [
                (task_id, self.state.instances[task_id].agent_id or None)
                for task_id in sorted(self._unreported)
            ]
            self.state.send(reconcile(pairs))


def _progressed(instance: Instance, status: TaskStatus, now: float) -> Instance:
    """The instance with the state, the times and the health of a status."""
    is_unreachable = status.state == "TASK_UNREACHABLE"
    unreachable_since = instance.unreachable_since or _unreachable_since(status, now)
    return replace(
        instance,
        agent_id=instance.agent_id or _agent_of(status),
        state=status.state,
        started_at=_started_at(instance, status, now),
        unreachable_since=unreachable_since if is_unreachable else None,
        is_inactive=instance.is_inactive and is_unreachable,
        is_healthy=instance.is_healthy if status.healthy is None else status.healthy,
    )


def _started_at(instance: Instance, status: TaskStatus, now: float) -> float | None:
    if instance.started_at is None and status.state == "TASK_RUNNING":
        return status.timestamp or now
    return instance.started_at


def _agent_of(status: TaskStatus) -> str:
    return status.agent_id.value if status.agent_id else ""


def _is_killed_as_unhealthy(status: TaskStatus) -> bool:
    """Whether the agent killed the task because its health checks failed."""
    return status.healthy is False and status.state == "TASK_KILLED"


def _failure(instance: Instance, status: TaskStatus, now: float) -> Failure:
    message = UNHEALTHY_MESSAGE if _is_killed_as_unhealthy(status) else status.message or ""
    return Failure(
        app_id=instance.app_id,
        host=instance.host,
        message=message,
        state=status.state,
        task_id=instance.task_id,
        timestamp=timestamp(status.timestamp or now),
        version=instance.version,
        slave_id=instance.agent_id,
    )


def _unreachable_since(status: TaskStatus, now: float) -> float:
    """When the agent became unreachable, in epoch seconds; `now` if the master does not say."""
    time = status.unreachable_time
    return now if time is None else time.nanoseconds / 1e9
