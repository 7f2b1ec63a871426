"""Agents with the tasks that run on them, from one pass to the next.

Most agents have the same tasks as in the pass before. Pure but for what it remembers. Depends on
the values of `autoscaler.model` and the parser of tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler.model.cluster_tasks import Seen
from mesaform.autoscaler.model.cluster_view import Agent, RunningTask
from mesaform.autoscaler.observation.mesos_task_parser import by_agent

Names = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Known:
    """An agent as it was read, its running tasks and the number of ended ones, and the result."""

    agent: Agent
    tasks: Sequence[Seen]
    ended: int
    result: Agent


class AgentTasks:
    """Assigns tasks to agents. The object of an agent that did not change is used again."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._names: Names | None = None

    def assign(
        self,
        agents: Iterable[Agent],
        running: Iterable[Seen],
        over: Iterable[Seen],
        names: Names | None,
    ) -> tuple[Agent, ...]:
        """The agents with their tasks; with `names` of frameworks by id, their work too."""
        before = self._known if names == self._names else {}
        on_agents = by_agent(running)
        ended = Counter(task.agent_id for task in over)
        self._known, self._names = {}, names
        results = []
        for agent in agents:
            agent_id = agent.agent_id
            tasks, over_count = on_agents.get(agent_id, []), ended[agent_id]
            known = before.get(agent_id)
            if (
                known is None
                or known.ended != over_count
                or known.tasks != tasks
                or known.agent != agent
            ):
                result = _with_tasks(agent, tasks, over_count, names)
                known = _Known(agent, tasks, over_count, result)
            self._known[agent_id] = known
            results.append(known.result)
        return tuple(results)


def _with_tasks(agent: Agent, tasks: Sequence[Seen], ended: int, names: Names | None) -> Agent:
    apps: dict[str, int] = {}
    by_framework: Counter[str] = Counter()
    configs: dict[str, dict[str, int]] = {}
    since: dict[str, dict[str, float]] = {}
    for task in tasks:
        by_framework[task.framework_id] += 1
        if task.app is not None:
            apps[task.app] = apps.get(task.app, 0) + 1
            if task.config:
                by_config = configs.setdefault(task.app, {})
                by_config[task.config] = by_config.get(task.config, 0) + 1
            if task.since:
                oldest = since.setdefault(task.app, {})
                oldest[task.config] = min(task.since, oldest.get(task.config, task.since))
    work = (
        ()
        if names is None
        else tuple(_work(task, names.get(task.framework_id, "")) for task in tasks)
    )
    return replace(
        agent,
        tasks=len(tasks),
        apps=apps,
        app_configs=configs,
        app_since=since,
        work=work,
        ended=ended,
        frameworks=by_framework,
    )


def _work(task: Seen, framework: str) -> RunningTask:
    return RunningTask(
        task_id=task.task_id,
        name=task.app or framework,
        framework=framework,
        shape=task.shape,
        since=task.since,
        protected=task.protected,
        ends_at=task.since + task.runs_for_s if task.since and task.runs_for_s else 0.0,
        constraints=task.constraints if task.app is None else (),
    )
