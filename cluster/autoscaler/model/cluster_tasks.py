"""Tasks as the master's GET_TASKS answer lists them, as values."""

from __future__ import annotations

from dataclasses import dataclass

from mesaform.autoscaler.model.shape import Shape


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as GET_TASKS tells it. `app` is the services app of its id; `role` is that of its resources, empty where they tell none.

    `since` and `ended` are epoch seconds, 0 where the engine does not say; `runs_for_s` is what it said of itself.
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


@dataclass(frozen=True, slots=True)
class Tasks:
    """What holds resources, and what no longer does as far as the engine still tells of it."""

    running: tuple[Seen, ...] = ()
    over: tuple[Seen, ...] = ()
