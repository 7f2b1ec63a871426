"""What the core wants done. The shell stores first and speaks second, so that nothing is launched that would be forgotten. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.mesos.scheduler_api import Call
from mesaform.services.model import App, Deployment, Instance

Kind = Literal["apps", "instances", "deployments"]


@dataclass(frozen=True, slots=True)
class Store:
    """Keep `value` under `key`, or drop what is there when `value` is None."""

    kind: Kind
    key: str
    value: App | Instance | Deployment | None


@dataclass(frozen=True, slots=True)
class Send:
    """Make this call on the engine."""

    call: Call


Effect = Store | Send


class AppLocked(Exception):
    """Another deployment of the same app is under way; `force` overrides it."""

    def __init__(self, deployment_ids: list[str]) -> None:
        super().__init__("the app is being deployed")
        self.deployment_ids = deployment_ids


class AppMissing(Exception):
    """There is no such app."""

    def __init__(self, app_id: str) -> None:
        super().__init__(app_id)
        self.app_id = app_id
