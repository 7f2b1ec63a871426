"""Frameworks, tasks and an agent's core with full defaults."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from mesaform.engine import link
from mesaform.engine.agent.core import AgentCore
from mesaform.engine.agent.events import (
    Connected,
    Effect,
    Event,
    Exited,
    KillContainer,
    Ran,
    Send,
    Started,
)
from mesaform.engine.master.parse import parse
from mesaform.mesos.messages import FrameworkInfo, TaskInfo, TaskStatus

AGENT_ID = "0000-S1"
ADDRESS = "127.61.0.5"


def framework(*capabilities: str, named: str = "fw", **more: object) -> FrameworkInfo:
    kinds = [{"type": name} for name in ("MULTI_ROLE", *capabilities)]
    return parse(
        {
            "user": "root",
            "name": "test",
            "id": {"value": named},
            "roles": ["*"],
            "capabilities": kinds,
            **more,
        },
        FrameworkInfo,
    )


def task(
    named: str = "t",
    command: str | Mapping[str, object] = "true",
    *,
    cpus: float = 0.1,
    mem: float = 32,
    **more: object,
) -> TaskInfo:
    scalars = {"cpus": cpus, "mem": mem}
    resources = [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}}
        for name, value in scalars.items()
    ]
    body = {"shell": True, "value": command} if isinstance(command, str) else command
    raw = {
        "name": named,
        "task_id": {"value": named},
        "agent_id": {"value": AGENT_ID},
        "resources": resources,
        "command": body,
        **more,
    }
    return parse(raw, TaskInfo)  # also tasks that break the constraints of their types


def grace(seconds: float) -> dict[str, object]:
    return {"grace_period": {"nanoseconds": int(seconds * 1e9)}}


class Scenario:
    """An agent's core with a time of its own, registered unless asked otherwise."""

    def __init__(self, *, connected: bool = True) -> None:
        counter = itertools.count(1)
        self.new_uuid: Callable[[], bytes] = lambda: next(counter).to_bytes(16, "big")
        self.core = AgentCore(ADDRESS, self.new_uuid)
        self.now = 1000.0
        if connected:
            self.happens(Connected(AGENT_ID))

    def happens(self, event: Event) -> list[Effect]:
        return self.core.handle(event, self.now)

    def launch(
        self, info: TaskInfo | None = None, owner: FrameworkInfo | None = None
    ) -> list[Effect]:
        return self.happens(link.Launch(owner or framework(), info or task()))

    def run(self, info: TaskInfo | None = None, owner: FrameworkInfo | None = None) -> str:
        """Run a task and acknowledge its updates; return its container id."""
        info, owner = info or task(), owner or framework()
        self.launch(info, owner)
        container_id = self.container_of(info.task_id.value)
        self.happens(Started(container_id, 4711))
        self.happens(Ran(container_id))
        self.acknowledge_all()
        return container_id

    def exits(self, container_id: str, wait_status: int | None, over_limit: str = "") -> TaskStatus:
        """End the container; return the last update."""
        updates = statuses(self.happens(Exited(container_id, wait_status, over_limit)))
        return updates[-1]

    def kill(self, task_id: str = "t", grace_s: float | None = None) -> list[Effect]:
        return self.happens(link.Kill("fw", task_id, grace_s))

    def container_of(self, task_id: str) -> str:
        return next(
            record.container_id for record in self.core.tasks.values() if record.task_id == task_id
        )

    def acknowledge_all(self) -> list[Effect]:
        effects: list[Effect] = []
        for key in list(self.core.tasks):
            while pending := self.core.pending(key):
                effects += self.happens(link.Acknowledge(*key, pending[0].uuid or b""))
        return effects


def statuses(effects: list[Effect]) -> list[TaskStatus]:
    return [effect.update.status for effect in effects if isinstance(effect, Send)]


def kills(effects: list[Effect]) -> list[tuple[str, float]]:
    return [
        (effect.container_id, effect.grace_s)
        for effect in effects
        if isinstance(effect, KillContainer)
    ]
