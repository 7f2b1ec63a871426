"""State machine of one job: one command as one or many tasks.

It decides what to launch on which offer, records how each task ends, and gives the exit code of
the whole. It does no I/O: `run_framework` connects it to a master, `sandbox` reads the output.
Depends on `messages` and `scheduler_api`.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.common.architecture import implied_constraints
from mesaform.common.resources import Range, Resources
from mesaform.mesos.attributes import attribute_texts
from mesaform.mesos.messages import (
    TERMINAL_STATES,
    Capability,
    CommandInfo,
    Environment,
    EnvVariable,
    FrameworkInfo,
    Label,
    Labels,
    Offer,
    TaskInfo,
    TaskStatus,
    from_wire,
    ident,
    offer_filters,
    to_wire,
)
from mesaform.mesos.scheduler_api import (
    Call,
    Event,
    acknowledge,
    decline,
    kill,
    launch,
    reconcile,
    suppress,
)
from mesaform.placement.constraints import Constraint, InstanceCounts, room
from mesaform.placement.task_labels import read_labels

FAILOVER_TIMEOUT_S = 60.0
"""Seconds for which the tasks survive a crash of this program."""

SHORT_REFUSE_S = 1.0
LONG_REFUSE_S = 3600.0
TIMED_OUT = 124  # the exit code of timeout(1)
ENDED_STATES = TERMINAL_STATES | {"TASK_UNKNOWN"}
NOT_LAUNCHED_STATES = frozenset({"TASK_DROPPED"})
EXTERNAL_CAUSES = {
    "REASON_AGENT_DRAINING": "its agent is being drained",
    "REASON_SLAVE_REMOVED": "its agent is lost",
    "REASON_SLAVE_REMOVED_BY_OPERATOR": "its agent was marked gone",
}
_EXITED = re.compile(r"exited with status (\d+)")
_SIGNALLED = re.compile(r"terminated with signal (.+?)(?: \(core dumped\))?$")
_SIGNALS = {text: number for number in signal.valid_signals() if (text := signal.strsignal(number))}


@dataclass(frozen=True, slots=True)
class _Place:
    """An offer's agent as constraints see it."""

    hostname: str
    attributes: Mapping[str, str]
    ports: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    A `command` of one element is a shell line; several elements are an argv. `shape` is what each
    task needs, `user` as whom it runs; None: the cluster's default. `labels` are those of the
    framework and the tasks; some say which agents are used (`placement.task_labels`). Tasks whose
    labels pin no architecture stay off agents that require a pin.
    """

    name: str
    command: tuple[str, ...]
    shape: Resources
    instances: int = 1
    role: str = "*"
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def may_use(self, offer: Offer) -> bool:
        """Whether the labels allow an offer's agent."""
        rules = read_labels(self.labels).constraints
        implied = implied_constraints([(rule.field, rule.operator, rule.value) for rule in rules])
        rules += tuple(Constraint(*parts) for parts in implied)
        place = _Place(offer.hostname, attribute_texts(offer.attributes, offer.domain))
        return room("", rules, place, InstanceCounts()) > 0

    def framework(self) -> FrameworkInfo:
        """The framework of this job.

        Its `offer_filters` declare the smallest useful offer, from which the autoscaler computes
        what is missing, and its labels which machines it needs.
        """
        return FrameworkInfo(
            user="root",
            name=self.name,
            roles=[self.role],
            failover_timeout=FAILOVER_TIMEOUT_S,
            checkpoint=True,
            capabilities=[
                Capability(type=name)
                for name in ("MULTI_ROLE", "PARTITION_AWARE", "TASK_KILLING_STATE")
            ],
            offer_filters={self.role: offer_filters([self.shape.scalars()])},
            labels=self.wire_labels(),
        )

    def wire_labels(self) -> Labels | None:
        """The labels as a message; None without any."""
        pairs = [Label(key=name, value=value) for name, value in self.labels.items()]
        return Labels(labels=pairs) if pairs else None

    def command_info(self) -> CommandInfo:
        """The command of each task."""
        variables = [EnvVariable(name=name, value=value) for name, value in self.env.items()]
        environment = Environment(variables=variables) if variables else None
        if len(self.command) == 1:
            return CommandInfo(  # noqa: S604  a shell line was asked for
                shell=True, value=self.command[0], environment=environment, user=self.user
            )
        return CommandInfo(
            shell=False,
            value=self.command[0],
            arguments=list(self.command),
            environment=environment,
            user=self.user,
        )


@dataclass(slots=True)
class Task:
    """One of the tasks. `exit_code` is None until it has ended."""

    id: str
    name: str
    agent_id: str = ""
    host: str = ""
    state: str = "waiting"
    message: str = ""
    exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether no update can follow."""
        return self.exit_code is not None

    @property
    def is_launched(self) -> bool:
        """Whether an offer was accepted for it."""
        return self.state != "waiting"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a task's state, for the report."""

    task: str
    state: str
    host: str
    message: str


class Execution:
    """A job in progress: `handle(event) -> calls`.

    `changes` collects what the reporter has not shown yet; the reporter clears it.
    """

    def __init__(self, job: Job, unique: str) -> None:
        self.job = job
        width = len(str(job.instances - 1))
        names = (
            [job.name]
            if job.instances == 1
            else [f"{job.name}-{index:0{width}}" for index in range(job.instances)]
        )
        self.tasks = {f"{name}.{unique}": Task(f"{name}.{unique}", name) for name in names}
        self.changes: list[Change] = []
        self.is_stopping = False
        self.refused = 0  # offers that were too small, since the last one that fit
        self.largest = ""  # the largest of those, as text
        self._first_failure = 0
        self._attempts = 0

    @property
    def waiting(self) -> list[Task]:
        """Tasks that have no offer yet."""
        if self.is_stopping:
            return []
        return [task for task in self.tasks.values() if not task.is_launched]

    @property
    def live(self) -> list[Task]:
        """Tasks that were launched and have not ended."""
        return [task for task in self.tasks.values() if task.is_launched and not task.has_ended]

    @property
    def is_done(self) -> bool:
        """Whether every task has ended, or will never be launched."""
        return not self.waiting and not self.live

    @property
    def exit_code(self) -> int:
        """The exit code of the task that failed first; 0 when none failed."""
        return self._first_failure

    def why_waiting(self) -> str:
        """The reason why tasks wait, as text for a person."""
        need = (
            f"{len(self.waiting)} of {len(self.tasks)} tasks wait for an offer of {self.job.shape}"
        )
        if not self.refused:
            return f"{need}; no agent has that much free, so none is offered"
        return f"{need}; {self.refused} offers were too small, the largest had {self.largest}"

    def handle(self, event: Event) -> list[Call]:
        """The calls that answer one event of the master."""
        if event.subscribed is not None:
            known = [(task.id, task.agent_id) for task in self.live]
            return [reconcile(known)] if known else []
        if event.offers is not None:
            return self._offered(event.offers.offers)
        if event.update is not None:
            return self._updated(event.update.status)
        return []

    def stop(self) -> list[Call]:
        """Launch nothing more; the calls kill every live task."""
        self.is_stopping = True
        return [kill(task.id, task.agent_id) for task in self.live]

    def _offered(self, offers: Sequence[Offer]) -> list[Call]:
        calls: list[Call] = []
        unused: list[str] = []
        for offer in offers:
            infos = self._fill(offer)
            if infos:
                calls.append(launch([offer.id.value], infos, self._refuse_s))
            else:
                unused.append(offer.id.value)
        if unused:
            calls.append(decline(unused, self._refuse_s))
        return calls if self.waiting else [*calls, suppress()]

    @property
    def _refuse_s(self) -> float:
        return SHORT_REFUSE_S if self.waiting else LONG_REFUSE_S

    def _fill(self, offer: Offer) -> list[TaskInfo]:
        """Place as many waiting tasks on the offer as fit."""
        if not self.job.may_use(offer):
            return []
        free = _unreserved(offer)
        waiting = self.waiting
        if waiting and not free.contains(self.job.shape):
            self._count_refused(free)
            return []
        infos: list[TaskInfo] = []
        for task in waiting:
            if not free.contains(self.job.shape):
                break
            free = free - self.job.shape
            task.agent_id, task.host = offer.agent_id.value, offer.hostname
            task.state = "TASK_STAGING"
            infos.append(self._info(task))
            self._report(task)
        if infos:
            self.refused, self.largest = 0, ""
        return infos

    def _count_refused(self, free: Resources) -> None:
        self.refused += 1
        text = str(Resources(free.milli))
        self.largest = max(self.largest, text, key=lambda text: _amount(text, "cpus"))

    def _info(self, task: Task) -> TaskInfo:
        return TaskInfo(
            name=task.name,
            task_id=ident(task.id),
            agent_id=ident(task.agent_id),
            resources=to_wire(self.job.shape, role="*", allocated_to=self.job.role),
            command=self.job.command_info(),
            labels=self.job.wire_labels(),
        )

    def _updated(self, status: TaskStatus) -> list[Call]:
        acknowledgement = acknowledge(status)
        task = self.tasks.get(status.task_id.value)
        if task is not None and not task.has_ended:
            self._update(task, status)
        return [acknowledgement] if acknowledgement is not None else []

    def _update(self, task: Task, status: TaskStatus) -> None:
        has_ended = status.state in ENDED_STATES
        if status.state == task.state and not has_ended:
            return  # a repetition
        if status.state in NOT_LAUNCHED_STATES and not self.is_stopping:
            self._relaunch(task, status)
            return
        task.state, task.message = status.state, _describe(status)
        if has_ended:
            task.exit_code = exit_code(status)
            self._first_failure = self._first_failure or task.exit_code
        self._report(task)

    def _relaunch(self, task: Task, status: TaskStatus) -> None:
        """Wait for another offer after a launch that did not reach its agent.

        The new attempt has a new id, because Mesos does not allow an id twice.
        """
        self._report(
            task, "waiting", f"not launched: {status.message or status.reason or status.state}"
        )
        self._attempts += 1
        del self.tasks[task.id]
        new_id = f"{task.id}.{self._attempts}"
        self.tasks[new_id] = Task(new_id, task.name)

    def _report(self, task: Task, state: str = "", message: str = "") -> None:
        self.changes.append(
            Change(task.name, state or task.state, task.host, message or task.message)
        )


def _unreserved(offer: Offer) -> Resources:
    return from_wire([part for part in offer.resources if (part.role or "*") == "*"])


def exit_code(status: TaskStatus) -> int:
    """The exit code of an ended task, as a shell gives it.

    It is the command's own code, 128 + n for signal n, and 1 where the status states neither. The
    texts are those of Mesos' command executor (src/common/status_utils.hpp, WSTRINGIFY).
    """
    text = status.message or ""
    if (match := _EXITED.search(text)) is not None:
        return int(match[1])
    if (match := _SIGNALLED.search(text)) is not None:
        name = match[1].strip()
        number = _SIGNALS.get(name) or (int(name) if name.isdigit() else 0)
        return 128 + number if number else 1
    return 0 if status.state == "TASK_FINISHED" else 1


def _describe(status: TaskStatus) -> str:
    """The status' message, and the external cause of an end."""
    cause = EXTERNAL_CAUSES.get(status.reason or "") if status.state in ENDED_STATES else None
    return "; ".join(part for part in (status.message, cause) if part)


def _amount(text: str, name: str) -> float:
    match = re.search(rf"{name}:([\d.]+)", text)
    return float(match[1]) if match else -1.0


def environment(pairs: Iterable[str]) -> dict[str, str]:
    """The mapping of `K=V` texts.

    Raises:
        ValueError: a text has no `=` or no name. The error's text is that text.

    """
    env: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise ValueError(pair)
        env[name] = value
    return env
