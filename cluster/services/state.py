"""State of services and the operations that change it. No I/O.

Every change records the effect that stores it; `take_effects` returns them in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesaform.common.faults import Fault
from mesaform.mesos.scheduler_api import Call
from mesaform.services.effects import Effect, Send, Store
from mesaform.services.model import App, Condition, Deployment, Failure, Instance
from mesaform.services.queue import LaunchDelay, QueueEntry


@dataclass(slots=True)
class State:
    """Apps, instances and deployments are stored; the rest is lost when leadership changes.

    `unsettled` are the apps that changed since `take_unsettled`. `queue` has the apps that wait for
    offers. `set_aside_apps` are the ids of apps whose records were set aside: nothing is known of
    what they want, so their instances are left alone. Invariant: `_tallies[id]`
    counts the instances of `_by_app[id]` by condition.
    """

    apps: dict[str, App] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    launch_delays: dict[str, LaunchDelay] = field(default_factory=dict)
    queue: dict[str, QueueEntry] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    set_aside_apps: frozenset[str] = frozenset()
    faults: list[Fault] = field(default_factory=list)
    _by_app: dict[str, dict[str, Instance]] = field(default_factory=dict)
    _tallies: dict[str, Counter[Condition]] = field(default_factory=dict)
    _effects: list[Effect] = field(default_factory=list)

    @classmethod
    def of(
        cls, apps: Iterable[App], instances: Iterable[Instance], deployments: Iterable[Deployment]
    ) -> State:
        """The state with these stored values; it has no effects."""
        state = cls()
        for app in apps:
            state.put_app(app)
        for instance in instances:
            state.put_instance(instance)
        for deployment in deployments:
            state.put_deployment(deployment)
        state.take_effects()
        return state

    def instances_of(self, app_id: str) -> list[Instance]:
        """An app's instances; those of a deleted app as well."""
        return list(self._by_app.get(app_id, {}).values())

    def tally(self, app_id: str) -> Mapping[Condition, int]:
        """The number of an app's instances by condition."""
        return self._tallies.get(app_id, {})

    def take_unsettled(self) -> set[str]:
        """The ids of the apps that changed since the last call."""
        unsettled, self.unsettled = self.unsettled, set()
        return unsettled

    def launch_delay(self, app_id: str) -> LaunchDelay:
        """The app's launch delay, created on first use."""
        return self.launch_delays.setdefault(app_id, LaunchDelay())

    def deployments_of(self, app_id: str) -> list[Deployment]:
        """The deployments that affect an app."""
        return [
            deployment
            for deployment in self.deployments.values()
            if app_id in deployment.affected_apps
        ]

    def put_app(self, app: App) -> None:
        """Create or replace an app."""
        self.apps[app.id] = app
        self.unsettled.add(app.id)
        self._effects.append(Store("apps", app.id, app))

    def drop_app(self, app_id: str) -> None:
        """Delete an app; its instances remain until they end."""
        del self.apps[app_id]
        self.unsettled.add(app_id)
        self.failures.pop(app_id, None)
        self.launch_delays.pop(app_id, None)
        self.queue.pop(app_id, None)
        self._effects.append(Store("apps", app_id, None))

    def put_instance(self, instance: Instance) -> None:
        """Create or replace an instance."""
        before = self.instances.get(instance.task_id)
        self._count(instance.app_id, before.condition if before else None, instance.condition)
        self.instances[instance.task_id] = instance
        self._by_app.setdefault(instance.app_id, {})[instance.task_id] = instance
        self._effects.append(Store("instances", instance.task_id, instance))

    def drop_instance(self, instance: Instance) -> None:
        """Delete an instance."""
        self._count(instance.app_id, self.instances.pop(instance.task_id).condition, None)
        siblings = self._by_app[instance.app_id]
        del siblings[instance.task_id]
        if not siblings:
            del self._by_app[instance.app_id]
        self._effects.append(Store("instances", instance.task_id, None))

    def _count(self, app_id: str, before: Condition | None, after: Condition | None) -> None:
        """Move one instance of the tally from one condition to another."""
        if before == after:
            return
        self.unsettled.add(app_id)
        tally = self._tallies.setdefault(app_id, Counter())
        if after is not None:
            tally[after] += 1
        if before is not None:
            tally[before] -= 1
            if not tally[before]:
                del tally[before]
        if not tally:
            del self._tallies[app_id]

    def put_deployment(self, deployment: Deployment) -> None:
        """Add a deployment."""
        self.deployments[deployment.id] = deployment
        self.unsettled.update(deployment.affected_apps)
        self._effects.append(Store("deployments", deployment.id, deployment))

    def drop_deployment(self, deployment_id: str) -> None:
        """Delete a deployment."""
        del self.deployments[deployment_id]
        self._effects.append(Store("deployments", deployment_id, None))

    def send(self, call: Call) -> None:
        """Make a call at the leading master."""
        self._effects.append(Send(call))

    def is_unknown(self, app_id: str) -> bool:
        """Whether the app exists and its definition cannot be read."""
        return app_id in self.set_aside_apps and app_id not in self.apps

    def take_faults(self) -> list[Fault]:
        """The contained faults since the last call."""
        faults, self.faults = self.faults, []
        return faults

    def take_effects(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects
