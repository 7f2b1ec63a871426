"""Adapter of Metronome: runs that are queued, with their job's resources. Pure.

`GET /v1/queue` lists the runs that wait by job, `GET /v1/jobs?embed=activeRuns` the jobs. Metronome
0.6 of DC/OS writes `jobId` and `runs[].runId`; its documentation has `job`. A job without resources
has 1 cpu, 128 MiB and no disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated

from msgspec import Meta, Raw, Struct

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.adapters.answers import (
    MAX_ENTRIES,
    Amount,
    Entry,
    Labels,
    Reading,
    Source,
    Subject,
    Text,
    bounded,
    constraint_of,
    decode,
    moment,
)
from mesaform.placement.constraints import Constraint
from mesaform.placement.task_labels import read_labels

QUEUE, JOBS = "/v1/queue", "/v1/jobs?embed=activeRuns"
OPERATORS = {"EQ": "IS", "IN": "LIKE"}
"""Operators of Metronome that Marathon names otherwise."""


class QueuedJob(Struct, frozen=True):
    """The runs of a job that wait."""

    jobId: Text = ""  # noqa: N815
    job: Text = ""
    runs: list[Raw] = []

    @property
    def name(self) -> str:
        return self.jobId or self.job


class PlacementConstraint(Struct, frozen=True):
    """A constraint of a job."""

    attribute: Text
    operator: Text
    value: Text | None = None


class Placement(Struct, frozen=True):
    """Where a job may run."""

    constraints: Annotated[list[PlacementConstraint], Meta(max_length=32)] = []


class Run(Struct, frozen=True):
    """What a run of a job needs."""

    cpus: Amount = 1.0
    mem: Amount = 128.0
    disk: Amount = 0
    gpus: Amount = 0
    placement: Placement = Placement()


class ActiveRun(Struct, frozen=True):
    """A run that has not ended; `tasks` is empty until it was launched."""

    createdAt: Text | None = None  # noqa: N815
    tasks: list[Raw] = []


class Job(Struct, frozen=True):
    """An entry of the list of jobs."""

    id: Text
    run: Run
    labels: Labels = {}
    activeRuns: list[ActiveRun] = []  # noqa: N815


Queue = Annotated[list[QueuedJob], Meta(max_length=MAX_ENTRIES)]
Jobs = Annotated[list[Job], Meta(max_length=MAX_ENTRIES)]


async def read(source: Source, _: Subject) -> Reading:
    """What is queued.

    Raises:
        AdapterError: there is no usable answer.

    """
    queue = decode(await source.get(QUEUE), Queue, QUEUE)
    jobs = decode(await source.get(JOBS), Jobs, JOBS)
    return reading_of(queue, {job.id: job for job in jobs})


def reading_of(queue: Sequence[QueuedJob], jobs: Mapping[str, Job]) -> Reading:
    """What is queued, of the jobs that exist."""
    wanted = bounded(_waiting(queue, jobs))
    evidence = Reason.of(
        ReasonCode.QUEUE_REPORTED,
        path=QUEUE,
        count=sum(shape.count for shape in wanted),
    )
    return Reading(wanted, (evidence,))


def _waiting(queue: Sequence[QueuedJob], jobs: Mapping[str, Job]) -> Iterator[Entry]:
    for item in queue:
        job = jobs.get(item.name)
        if job is not None:
            yield Entry(item.name, len(item.runs), partial(_wanted, item, job))


def _wanted(item: QueuedJob, job: Job) -> WantedShape:
    run, labels = job.run, read_labels(job.labels)
    return WantedShape(
        make(run.cpus, run.mem, run.disk, run.gpus),
        len(item.runs),
        item.name,
        constraints=(*map(_constraint, run.placement.constraints), *labels.constraints),
        since=_since(job),
        labels=labels,
    )


def _since(job: Job) -> float:
    """When the oldest run without a task was created; 0 if that is not known."""
    created = (moment(run.createdAt) for run in job.activeRuns if not run.tasks)
    return min((at for at in created if at), default=0.0)


def _constraint(item: PlacementConstraint) -> Constraint:
    value = item.value or ""
    if item.operator.upper() == "IN":
        value = value.strip("[]").replace(" ", "").replace(",", "|")
    operator = OPERATORS.get(item.operator.upper(), item.operator)
    return constraint_of(item.attribute, operator, value)
