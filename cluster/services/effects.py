"""Effects of the core: what the shell stores and sends. No I/O.

The shell stores before it sends, so that no launched task is unknown to the next leader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.mesos.scheduler_api import Call
from mesaform.services.model import App, Deployment, Instance

Kind = Literal["apps", "instances", "deployments"]


@dataclass(frozen=True, slots=True)
class Store:
    """Store `value` under `key`; None deletes the stored value."""

    kind: Kind
    key: str
    value: App | Instance | Deployment | None


@dataclass(frozen=True, slots=True)
class Send:
    """Make this call at the leading master."""

    call: Call


Effect = Store | Send


class AppLocked(Exception):
    """Another deployment of the app is in progress; `force` ends it."""

    def __init__(self, deployment_ids: list[str]) -> None:
        super().__init__("the app is being deployed")
        self.deployment_ids = deployment_ids


class AppMissing(Exception):
    """There is no app with this id."""

    def __init__(self, app_id: str) -> None:
        super().__init__(app_id)
        self.app_id = app_id
