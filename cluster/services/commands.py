"""What people ask for: create, change, restart and delete apps, kill tasks, cancel deployments. Pure; each returns the effects.

One deployment an app at a time: a second change needs `force`, which ends the first one where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from mesaform.services.core import Core
from mesaform.services.effects import AppLocked, AppMissing, Effect
from mesaform.services.model import Action, App, Deployment, Instance, timestamp

SCALE_FIELDS = ("instances", "version", "config_version")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The deployment that a change began (it may be done already) and what is to be done now."""

    deployment: Deployment
    effects: list[Effect]


class ApiCommands:
    """The core's other entrance."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._state = core.state

    def put(
        self, apps: Sequence[App], deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Create or change apps together. A change of `instances` only keeps the running ones; any other replaces them.

        Raises:
            AppLocked: one of them is being deployed and `force` is not set.

        """
        self._unlock([app.id for app in apps], force=force)
        version = self._next_version(apps, now)
        previous = {app.id: self._state.apps.get(app.id) for app in apps}
        actions: list[tuple[str, str]] = []
        for app in apps:
            stored, kinds = _versioned(app, previous[app.id], version)
            actions += [(kind, app.id) for kind in kinds]
            self._state.put_app(stored)
            if "ScaleApplication" not in kinds or len(kinds) > 1:
                self._state.backoff(app.id).reset()
        self._core.ask_for_offers()
        return self._begin(deployment_id, version, actions, previous, now)

    def restart(
        self, app_id: str, deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Replace every instance by a new one of the same definition."""
        app = self._app(app_id)
        self._unlock([app_id], force=force)
        version = self._next_version([app], now)
        self._state.put_app(replace(app, version=version, config_version=version))
        self._state.backoff(app_id).reset()
        self._core.ask_for_offers()
        return self._begin(
            deployment_id, version, [("RestartApplication", app_id)], {app_id: app}, now
        )

    def delete(
        self, app_id: str, deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Forget an app; its instances are killed."""
        app = self._app(app_id)
        self._unlock([app_id], force=force)
        version = self._next_version([app], now)
        self._state.drop_app(app_id)
        return self._begin(
            deployment_id, version, [("StopApplication", app_id)], {app_id: app}, now
        )

    def kill(
        self, instances: Iterable[Instance], now: float, *, wipe: bool = False
    ) -> list[Effect]:
        """Kill these; their app starts others. `wipe` also forgets those that cannot be reached, which killing always does here."""
        del wipe
        for instance in instances:
            self._core.kill(instance, now)
        return self._core.settle(now)

    def kill_and_scale(
        self, instances: Sequence[Instance], deployment_id: str, now: float, *, force: bool = False
    ) -> Outcome:
        """Kill these and want as many fewer."""
        app_ids = {instance.app_id for instance in instances}
        self._unlock(sorted(app_ids), force=force)
        fewer = [
            replace(
                app,
                instances=max(
                    0, app.instances - sum(instance.app_id == app.id for instance in instances)
                ),
            )
            for app in self._state.apps.values()
            if app.id in app_ids
        ]
        for instance in instances:
            self._core.kill(instance, now)
        return self.put(fewer, deployment_id, now, force=force)

    def reset_delay(self, app_id: str, now: float) -> list[Effect]:
        """Launch again at once, whatever failed before."""
        self._app(app_id)
        self._state.backoff(app_id).reset()
        self._core.ask_for_offers()
        return self._core.settle(now)

    def cancel(self, deployment_id: str, now: float) -> list[Effect]:
        """Stop waiting for a deployment; apps stay as they are now."""
        self._state.drop_deployment(deployment_id)
        return self._core.settle(now)

    def roll_back(self, deployment_id: str, new_id: str, now: float) -> Outcome:
        """End a deployment and bring back what was there before it."""
        old = self._state.deployments[deployment_id]
        self._state.drop_deployment(deployment_id)
        restored = [app for app in old.previous.values() if app is not None]
        for app_id, app in old.previous.items():
            if app is None and app_id in self._state.apps:
                self._state.drop_app(app_id)
        outcome = self.put(restored, new_id, now, force=True)
        return Outcome(outcome.deployment, outcome.effects)

    def _app(self, app_id: str) -> App:
        app = self._state.apps.get(app_id)
        if app is None:
            raise AppMissing(app_id)
        return app

    def _unlock(self, app_ids: Sequence[str], *, force: bool) -> None:
        locking = {
            deployment.id for app_id in app_ids for deployment in self._state.deployments_of(app_id)
        }
        if locking and not force:
            raise AppLocked(sorted(locking))
        for deployment_id in locking:
            self._state.drop_deployment(deployment_id)

    def _next_version(self, apps: Iterable[App], now: float) -> str:
        """A version later than any that these apps have, also when two changes come within a millisecond."""
        latest = max(
            (self._state.apps[app.id].version for app in apps if app.id in self._state.apps),
            default="",
        )
        version = timestamp(now)
        return (
            version
            if version > latest
            else timestamp(datetime.fromisoformat(latest).timestamp() + 0.001)
        )

    def _begin(
        self,
        deployment_id: str,
        version: str,
        actions: Sequence[tuple[str, str]],
        previous: dict[str, App | None],
        now: float,
    ) -> Outcome:
        steps = [[Action(action=kind, app=app_id)] for kind, app_id in actions]
        deployment = Deployment(
            id=deployment_id,
            version=version,
            affected_apps=sorted(previous),
            steps=steps,
            previous=previous,
            since=now,
        )
        self._state.put_deployment(deployment)
        return Outcome(deployment, self._core.settle(now))


def _versioned(app: App, before: App | None, version: str) -> tuple[App, list[str]]:
    """The app with its versions set, and the actions that the change needs, in Marathon's names."""
    if before is None:
        return replace(app, version=version, config_version=version), [
            "StartApplication",
            "ScaleApplication",
        ]
    as_before = {name: getattr(before, name) for name in SCALE_FIELDS}
    if replace(app, **as_before) != before:
        return replace(app, version=version, config_version=version), ["RestartApplication"]
    kinds = ["ScaleApplication"] if app.instances != before.instances else []
    return replace(app, version=version, config_version=before.config_version), kinds
