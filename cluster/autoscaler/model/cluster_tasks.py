"""Tasks as the master's GET_TASKS answer lists them, as values."""

from __future__ import annotations

from dataclasses import dataclass

from mesaform.autoscaler.model.shape import Shape
from mesaform.placement.constraints import Constraint


@dataclass(frozen=True, slots=True)
class Seen:
    """A task of the answer.

    `app` is the services app in its id. `role` is that of its resources, empty without one. `since`
    and `ended` are epoch seconds, 0 where the master does not say. `runs_for_s` is the value of its
    label `mesaform/runs-for-s`, `config` that of `CONFIG_LABEL`. `constraints` are those of its
    labels.
    """

    task_id: str
    agent_id: str
    framework_id: str
    app: str | None
    shape: Shape
    role: str = ""
    since: float = 0.0
    ended: float = 0.0
    protected: bool = False
    runs_for_s: float = 0.0
    config: str = ""
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks that hold resources, and ended tasks that the master still lists.

    `unreadable` tasks may hold resources of any agent.
    """

    running: tuple[Seen, ...] = ()
    over: tuple[Seen, ...] = ()
    unreadable: int = 0
