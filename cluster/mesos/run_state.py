"""Running one command as one or many tasks: what to launch on which offer, what became of each, and the exit code. Pure.

Output of the tasks is not here (`sandbox`), nor is any I/O (`execute`).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.common.resources import Resources
from mesaform.mesos.messages import (
    TERMINAL_STATES,
    Capability,
    CommandInfo,
    Environment,
    EnvVariable,
    FrameworkInfo,
    Offer,
    TaskInfo,
    TaskStatus,
    from_wire,
    ident,
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

FAILOVER_TIMEOUT_S = 60.0
"""How long the tasks live on after this program died without a word."""

SHORT_REFUSE_S = 1.0
LONG_REFUSE_S = 3600.0
TIMED_OUT = 124
ENDED = TERMINAL_STATES | {"TASK_UNKNOWN"}
NEVER_RAN = frozenset({"TASK_DROPPED"})
NOT_ITS_DOING = {
    "REASON_AGENT_DRAINING": "its agent is being drained",
    "REASON_SLAVE_REMOVED": "its agent is lost",
    "REASON_SLAVE_REMOVED_BY_OPERATOR": "its agent was marked gone",
}
_EXITED = re.compile(r"exited with status (\d+)")
_SIGNALLED = re.compile(r"terminated with signal (.+?)(?: \(core dumped\))?$")
_SIGNALS = {text: number for number in signal.valid_signals() if (text := signal.strsignal(number))}


@dataclass(frozen=True, slots=True)
class Job:
    """What to run. One word of `command` is a shell line; several are an argv."""

    name: str
    command: tuple[str, ...]
    shape: Resources
    instances: int = 1
    role: str = "*"
    env: Mapping[str, str] = field(default_factory=dict)

    def framework(self) -> FrameworkInfo:
        """A framework that says what offers are of use to it, so that an autoscaler sees what is missing."""
        quantities = {name: {"value": value} for name, value in self.shape.scalars().items()}
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
            offer_filters={
                self.role: {
                    "min_allocatable_resources": {"quantities": [{"quantities": quantities}]}
                }
            },
        )

    def command_info(self) -> CommandInfo:
        variables = [EnvVariable(name=name, value=value) for name, value in self.env.items()]
        environment = Environment(variables=variables) if variables else None
        if len(self.command) == 1:
            return CommandInfo(shell=True, value=self.command[0], environment=environment)  # noqa: S604  a shell line was asked for
        return CommandInfo(
            shell=False,
            value=self.command[0],
            arguments=list(self.command),
            environment=environment,
        )


@dataclass(slots=True)
class Task:
    """One of the tasks. `exit_code` is set when it has ended."""

    id: str
    name: str
    agent_id: str = ""
    host: str = ""
    state: str = "waiting"
    message: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.exit_code is not None

    @property
    def launched(self) -> bool:
        return self.state != "waiting"


@dataclass(frozen=True, slots=True)
class Change:
    """A task's state changed; for people and for `--json`."""

    task: str
    state: str
    host: str
    message: str


class Execution:
    """The job under way. Events go in; calls come out; `changes` is drained by whoever reports."""

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
        self.stopping = False
        self.refused = 0  # offers that were looked at and did not fit, since the last that did
        self.largest = ""
        self._first_failure = 0
        self._attempts = 0

    @property
    def waiting(self) -> list[Task]:
        """Tasks that have no offer yet."""
        return [] if self.stopping else [task for task in self.tasks.values() if not task.launched]

    @property
    def live(self) -> list[Task]:
        """Tasks that were launched and have not ended."""
        return [task for task in self.tasks.values() if task.launched and not task.ended]

    @property
    def done(self) -> bool:
        return not self.waiting and not self.live

    @property
    def exit_code(self) -> int:
        """The first failure's code, in order of time; 0 when there was none."""
        return self._first_failure

    def why_waiting(self) -> str:
        """Why nothing is launched, for a person."""
        need = (
            f"{len(self.waiting)} of {len(self.tasks)} tasks wait for an offer of {self.job.shape}"
        )
        if not self.refused:
            return f"{need}; no agent has that much free, so none is offered"
        return f"{need}; {self.refused} offers were too small, the largest had {self.largest}"

    def handle(self, event: Event) -> list[Call]:
        """One event of the engine."""
        if event.subscribed is not None:
            known = [(task.id, task.agent_id) for task in self.live]
            return [reconcile(known)] if known else []
        if event.offers is not None:
            return self._offered(event.offers.offers)
        if event.update is not None:
            return self._updated(event.update.status)
        return []

    def stop(self) -> list[Call]:
        """Launch nothing more and kill what runs."""
        self.stopping = True
        return [kill(task.id, task.agent_id) for task in self.live]

    def _offered(self, offers: Sequence[Offer]) -> list[Call]:
        calls: list[Call] = []
        unused: list[str] = []
        for offer in offers:
            launched = self._fill(offer)
            if launched:
                refuse_s = SHORT_REFUSE_S if self.waiting else LONG_REFUSE_S
                calls.append(launch([offer.id.value], launched, refuse_s))
            else:
                unused.append(offer.id.value)
        if unused:
            calls.append(decline(unused, SHORT_REFUSE_S if self.waiting else LONG_REFUSE_S))
        return calls if self.waiting else [*calls, suppress()]

    def _fill(self, offer: Offer) -> list[TaskInfo]:
        usable = [item for item in offer.resources if (item.role or "*") == "*"]
        left = from_wire(usable)
        if self.waiting and not left.contains(self.job.shape):
            self.refused += 1
            self.largest = max(
                self.largest, str(Resources(left.milli)), key=lambda text: _amount(text, "cpus")
            )
        infos: list[TaskInfo] = []
        for task in self.waiting:
            if not left.contains(self.job.shape):
                break
            left = left - self.job.shape
            task.agent_id, task.host, task.state = (
                offer.agent_id.value,
                offer.hostname,
                "TASK_STAGING",
            )
            infos.append(self._info(task))
            self._report(task)
        if infos:
            self.refused, self.largest = 0, ""
        return infos

    def _info(self, task: Task) -> TaskInfo:
        return TaskInfo(
            name=task.name,
            task_id=ident(task.id),
            agent_id=ident(task.agent_id),
            resources=to_wire(self.job.shape, role="*", allocated_to=self.job.role),
            command=self.job.command_info(),
        )

    def _updated(self, status: TaskStatus) -> list[Call]:
        answer = acknowledge(status)
        calls = [answer] if answer is not None else []
        task = self.tasks.get(status.task_id.value)
        if task is None or task.ended or (status.state == task.state and status.state not in ENDED):
            return calls
        if status.state in NEVER_RAN and not self.stopping:
            self._again(task, status)
            return calls
        task.state, task.message = status.state, _in_words(status)
        if status.state in ENDED:
            task.exit_code = exit_code(status)
            self._first_failure = self._first_failure or task.exit_code
        self._report(task)
        return calls

    def _again(self, task: Task, status: TaskStatus) -> None:
        """The launch did not reach its agent: wait for another offer, under a fresh id, since ids are not used twice."""
        self._report(
            task, "waiting", f"not launched: {status.message or status.reason or status.state}"
        )
        self._attempts += 1
        del self.tasks[task.id]
        fresh = f"{task.id}.{self._attempts}"
        self.tasks[fresh] = Task(fresh, task.name)

    def _report(self, task: Task, state: str = "", message: str = "") -> None:
        self.changes.append(
            Change(task.name, state or task.state, task.host, message or task.message)
        )


def exit_code(status: TaskStatus) -> int:
    """A shell's idea of how a task ended: its own code, 128 + n for signal n, 1 for an end that was not its own."""
    text = status.message or ""
    if (match := _EXITED.search(text)) is not None:
        return int(match[1])
    if (match := _SIGNALLED.search(text)) is not None:
        name = match[1].strip()
        number = _SIGNALS.get(name) or (int(name) if name.isdigit() else 0)
        return 128 + number if number else 1
    return 0 if status.state == "TASK_FINISHED" else 1


def _in_words(status: TaskStatus) -> str:
    """The status' message, and what it leaves out: that the task was not to blame for its end."""
    why = NOT_ITS_DOING.get(status.reason or "") if status.state in ENDED else None
    return "; ".join(part for part in (status.message, why) if part)


def _amount(text: str, name: str) -> float:
    match = re.search(rf"{name}:([\d.]+)", text)
    return float(match[1]) if match else -1.0


def environment(pairs: Iterable[str]) -> dict[str, str]:
    """`K=V` words as a mapping.

    Raises:
        ValueError: a word has no `=` or no name; its text is the error's.

    """
    env: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise ValueError(pair)
        env[name] = value
    return env
