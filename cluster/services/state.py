"""Everything that services knows, with the few ways in which it changes; each change records what must be stored. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesaform.mesos.scheduler_api import Call
from mesaform.services.effects import Effect, Send, Store
from mesaform.services.model import App, Deployment, Failure, Instance, Standing
from mesaform.services.queue import Backoff, Waiting


@dataclass(slots=True)
class State:
    """Stored: apps, instances, deployments. Not stored, and rebuilt or forgotten when leadership changes: the rest."""

    apps: dict[str, App] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    unsettled: set[str] = field(
        default_factory=set
    )  # apps of which something changed since they were last looked at
    _by_app: dict[str, dict[str, Instance]] = field(default_factory=dict)
    _tallies: dict[str, Counter[Standing]] = field(default_factory=dict)
    _effects: list[Effect] = field(default_factory=list)

    @classmethod
    def of(
        cls, apps: Iterable[App], instances: Iterable[Instance], deployments: Iterable[Deployment]
    ) -> State:
        """The state that these stored values make."""
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
        """An app's instances, also of one that was deleted."""
        return list(self._by_app.get(app_id, {}).values())

    def tally(self, app_id: str) -> Mapping[Standing, int]:
        """How many of an app's instances stand how."""
        return self._tallies.get(app_id, {})

    def take_unsettled(self) -> set[str]:
        """The apps to look at now."""
        taken, self.unsettled = self.unsettled, set()
        return taken

    def backoff(self, app_id: str) -> Backoff:
        return self.backoffs.setdefault(app_id, Backoff())

    def deployments_of(self, app_id: str) -> list[Deployment]:
        return [
            deployment
            for deployment in self.deployments.values()
            if app_id in deployment.affected_apps
        ]

    def put_app(self, app: App) -> None:
        self.apps[app.id] = app
        self.unsettled.add(app.id)
        self._effects.append(Store("apps", app.id, app))

    def drop_app(self, app_id: str) -> None:
        del self.apps[app_id]
        self.unsettled.add(app_id)
        for kept in (self.failures, self.backoffs, self.waiting):
            kept.pop(app_id, None)
        self._effects.append(Store("apps", app_id, None))

    def put_instance(self, instance: Instance) -> None:
        before = self.instances.get(instance.task_id)
        self._count(instance.app_id, before.standing if before else None, instance.standing)
        self.instances[instance.task_id] = instance
        self._by_app.setdefault(instance.app_id, {})[instance.task_id] = instance
        self._effects.append(Store("instances", instance.task_id, instance))

    def drop_instance(self, instance: Instance) -> None:
        self._count(instance.app_id, self.instances.pop(instance.task_id).standing, None)
        mine = self._by_app[instance.app_id]
        del mine[instance.task_id]
        if not mine:
            del self._by_app[instance.app_id]
        self._effects.append(Store("instances", instance.task_id, None))

    def _count(self, app_id: str, before: Standing | None, after: Standing | None) -> None:
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
        self.deployments[deployment.id] = deployment
        self.unsettled.update(deployment.affected_apps)
        self._effects.append(Store("deployments", deployment.id, deployment))

    def drop_deployment(self, deployment_id: str) -> None:
        del self.deployments[deployment_id]
        self._effects.append(Store("deployments", deployment_id, None))

    def send(self, call: Call) -> None:
        self._effects.append(Send(call))

    def take_effects(self) -> list[Effect]:
        """What is to be done since the last time this was asked, in order."""
        effects, self._effects = self._effects, []
        return effects
