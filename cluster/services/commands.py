"""Commands of the REST API: change apps, kill tasks, cancel and roll back deployments. No I/O.

Each command returns the effects that the shell carries out. An app has at most one deployment: a
second change needs `force`, which drops the first deployment and leaves its apps as they are
(Marathon 1.11).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from mesaform.common.records import RecordRefused
from mesaform.services.core import Core
from mesaform.services.definitions import InvalidApp
from mesaform.services.effects import AppLocked, AppMissing, Effect
from mesaform.services.model import Action, App, Deployment, Instance, timestamp
from mesaform.services.records import Record, encode

SCALE_FIELDS = ("instances", "version", "config_version")
"""Fields of an app whose change keeps the running instances."""

VERSION_STEP_S = 0.001
"""Resolution of version strings."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The deployment of a change (it may be complete already) and the effects to carry out."""

    deployment: Deployment
    effects: list[Effect]


class ApiCommands:
    """Commands from the REST API on the state of a core."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._state = core.state

    def put(
        self, apps: Sequence[App], deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Create or change apps in one deployment.

        A change of `instances` keeps the running instances; any other change replaces them.

        Raises:
            AppLocked: an app is being deployed and `force` is not set.
            InvalidApp: the change is too large to be stored.

        """
        deployment, changes = self._planned(apps, deployment_id, now)
        self._unlock([app.id for app in apps], force=force)
        for stored, kinds in changes:
            self._state.put_app(stored)
            if kinds != ["ScaleApplication"]:
                self._state.launch_delay(stored.id).reset()
        self._core.ask_for_offers()
        return self._begin(deployment, now)

    def _planned(
        self, apps: Sequence[App], deployment_id: str, now: float
    ) -> tuple[Deployment, list[tuple[App, list[str]]]]:
        """The deployment of a change, and each app as it is stored with its actions.

        Raises:
            InvalidApp: a record would be too large; nothing has changed.

        """
        version = self._next_version(apps, now)
        previous = {app.id: self._state.apps.get(app.id) for app in apps}
        changes = [_versioned(app, previous[app.id], version) for app in apps]
        actions = _actions(changes)
        deployment = Deployment(
            id=deployment_id,
            version=version,
            affected_apps=sorted(previous),
            steps=[[action] for action in actions],
            previous=previous,
            since=now,
        )
        records: list[Record] = [deployment, *(app for app, _ in changes)]
        try:
            for record in records:
                encode(record)
        except RecordRefused as error:
            raise InvalidApp({"/": [f"cannot be stored ({error}); change fewer apps"]}) from None
        return deployment, changes

    def restart(
        self, app_id: str, deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Replace every instance by a new one of the same definition.

        Raises:
            AppMissing: there is no such app.
            AppLocked: it is being deployed and `force` is not set.

        """
        app = self._app(app_id)
        self._unlock([app_id], force=force)
        version = self._next_version([app], now)
        self._state.put_app(replace(app, version=version, config_version=version))
        self._state.launch_delay(app_id).reset()
        self._core.ask_for_offers()
        deployment = _deployment(deployment_id, version, "RestartApplication", app, now)
        return self._begin(deployment, now)

    def delete(
        self, app_id: str, deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Delete an app; its instances are killed.

        Raises:
            AppMissing: there is no such app.
            AppLocked: it is being deployed and `force` is not set.

        """
        app = self._app(app_id)
        self._unlock([app_id], force=force)
        version = self._next_version([app], now)
        self._state.drop_app(app_id)
        return self._begin(_deployment(deployment_id, version, "StopApplication", app, now), now)

    def kill(self, instances: Iterable[Instance], now: float) -> list[Effect]:
        """Kill instances; their apps start others. Unreachable ones are dropped (`wipe=true`)."""
        for instance in instances:
            self._core.kill(instance, now)
        return self._core.settle(now)

    def kill_and_scale(
        self, instances: Sequence[Instance], deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Kill instances and reduce `instances` of their apps by as many.

        Raises:
            AppLocked: an app is being deployed and `force` is not set.

        """
        app_ids = {instance.app_id for instance in instances}
        self._unlock(sorted(app_ids), force=force)
        scaled = [
            _scaled(app, sum(instance.app_id == app.id for instance in instances))
            for app in self._state.apps.values()
            if app.id in app_ids
        ]
        self._planned(scaled, deployment_id, now)
        for instance in instances:
            self._core.kill(instance, now)
        return self.put(scaled, deployment_id, now, force=force)

    def reset_delay(self, app_id: str, now: float) -> list[Effect]:
        """Allow the next launch at once, whatever failed before.

        Raises:
            AppMissing: there is no such app.

        """
        self._app(app_id)
        self._state.launch_delay(app_id).reset()
        self._core.ask_for_offers()
        return self._core.settle(now)

    def cancel(self, deployment_id: str, now: float) -> list[Effect]:
        """Drop a deployment; its apps stay as they are now."""
        self._state.drop_deployment(deployment_id)
        return self._core.settle(now)

    def roll_back(self, deployment_id: str, new_id: str, now: float) -> Outcome:
        """Drop a deployment and restore the definitions from before it."""
        deployment = self._state.deployments[deployment_id]
        restored = [app for app in deployment.previous.values() if app is not None]
        self._planned(restored, new_id, now)
        self._state.drop_deployment(deployment_id)
        created = [app_id for app_id, app in deployment.previous.items() if app is None]
        for app_id in created:
            if app_id in self._state.apps:
                self._state.drop_app(app_id)
        return self.put(restored, new_id, now, force=True)

    def _app(self, app_id: str) -> App:
        app = self._state.apps.get(app_id)
        if app is None:
            raise AppMissing(app_id)
        return app

    def _unlock(self, app_ids: Sequence[str], *, force: bool) -> None:
        """Drop the deployments of these apps, or raise `AppLocked` without `force`."""
        locking_ids = {
            deployment.id for app_id in app_ids for deployment in self._state.deployments_of(app_id)
        }
        if locking_ids and not force:
            raise AppLocked(sorted(locking_ids))
        for deployment_id in locking_ids:
            self._state.drop_deployment(deployment_id)

    def _next_version(self, apps: Iterable[App], now: float) -> str:
        """A version later than those of these apps, also for two changes in a millisecond."""
        stored = [self._state.apps[app.id] for app in apps if app.id in self._state.apps]
        latest = max((app.version for app in stored), default="")
        version = timestamp(now)
        if version > latest:
            return version
        return timestamp(datetime.fromisoformat(latest).timestamp() + VERSION_STEP_S)

    def _begin(self, deployment: Deployment, now: float) -> Outcome:
        self._state.put_deployment(deployment)
        return Outcome(deployment, self._core.settle(now))


def _deployment(deployment_id: str, version: str, action: str, app: App, now: float) -> Deployment:
    """A deployment with one action on one app."""
    return Deployment(
        id=deployment_id,
        version=version,
        affected_apps=[app.id],
        steps=[[Action(action=action, app=app.id)]],
        previous={app.id: app},
        since=now,
    )


def _actions(changes: Iterable[tuple[App, list[str]]]) -> list[Action]:
    return [Action(action=kind, app=app.id) for app, kinds in changes for kind in kinds]


def _scaled(app: App, fewer: int) -> App:
    return replace(app, instances=max(0, app.instances - fewer))


def _versioned(app: App, before: App | None, version: str) -> tuple[App, list[str]]:
    """The app with its versions, and the actions of the change in Marathon's names."""
    if before is None:
        stored = replace(app, version=version, config_version=version)
        return stored, ["StartApplication", "ScaleApplication"]
    scale_fields = {name: getattr(before, name) for name in SCALE_FIELDS}
    if replace(app, **scale_fields) != before:
        return replace(app, version=version, config_version=version), ["RestartApplication"]
    kinds = ["ScaleApplication"] if app.instances != before.instances else []
    return replace(app, version=version, config_version=before.config_version), kinds
