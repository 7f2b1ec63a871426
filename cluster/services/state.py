"""Everything that services knows, with the few ways in which it changes; each change records what must be stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.mesos.scheduler_messages import Call
from cluster.services.effects import Effect, Send, Store
from cluster.services.model import App, Deployment, Failure, Instance
from cluster.services.queue import Backoff, Waiting


@dataclass(slots=True)
class State:
    """Stored: apps, instances, deployments. Not stored, and rebuilt or forgotten when leadership changes: the rest."""

    apps: dict[str, App] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    _by_app: dict[str, dict[str, Instance]] = field(default_factory=dict)
    _effects: list[Effect] = field(default_factory=list)

    @classmethod
    def of(cls, apps: Iterable[App], instances: Iterable[Instance], deployments: Iterable[Deployment]) -> State:
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

    def app_ids(self) -> set[str]:
        """Every app that is defined or still has instances."""
        return {*self.apps, *self._by_app}

    def backoff(self, app_id: str) -> Backoff:
        return self.backoffs.setdefault(app_id, Backoff())

    def deployments_of(self, app_id: str) -> list[Deployment]:
        return [deployment for deployment in self.deployments.values() if app_id in deployment.affected_apps]

    def put_app(self, app: App) -> None:
        self.apps[app.id] = app
        self._effects.append(Store("apps", app.id, app))

    def drop_app(self, app_id: str) -> None:
        del self.apps[app_id]
        for kept in (self.failures, self.backoffs, self.waiting):
            kept.pop(app_id, None)
        self._effects.append(Store("apps", app_id, None))

    def put_instance(self, instance: Instance) -> None:
        self.instances[instance.task_id] = instance
        self._by_app.setdefault(instance.app_id, {})[instance.task_id] = instance
        self._effects.append(Store("instances", instance.task_id, instance))

    def drop_instance(self, instance: Instance) -> None:
        del self.instances[instance.task_id]
        mine = self._by_app[instance.app_id]
        del mine[instance.task_id]
        if not mine:
            del self._by_app[instance.app_id]
        self._effects.append(Store("instances", instance.task_id, None))

    def put_deployment(self, deployment: Deployment) -> None:
        self.deployments[deployment.id] = deployment
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
