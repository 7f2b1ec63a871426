"""Adapter of Chronos: jobs that are queued, with their resources. Pure.

`GET /v1/scheduler/jobs` has each job's resources and constraints. `GET /v1/scheduler/graph/csv` has
its state in lines `node,NAME,LAST,STATE`; a job that waits for offers is `queued`. Chronos 2 serves
both without `/v1`. A job without resources gets those of Chronos' configuration
(`--mesos_task_cpu`, `--mesos_task_mem`, `--mesos_task_disk`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, make
from mesaform.autoscaler.observation.adapters.answers import (
    MAX_ENTRIES,
    AdapterError,
    Amount,
    Constraints,
    Entry,
    Reading,
    Source,
    Subject,
    Text,
    bounded,
    constraint_of,
    decode,
)
from mesaform.placement.constraints import Constraint

JOBS, GRAPH = "/v1/scheduler/jobs", "/v1/scheduler/graph/csv"
OLD_JOBS, OLD_GRAPH = "/scheduler/jobs", "/scheduler/graph/csv"
QUEUED = "queued"
DEFAULTS = (0.1, 128.0, 256.0)
"""Cpus, MiB of memory and of disk of a job that states none."""

OPERATORS = {"EQUALS": "IS", "LIKE": "LIKE", "UNLIKE": "UNLIKE"}
"""Operators of Chronos' constraints in Marathon's words."""

MAX_LINES = 100_000


class Job(Struct, frozen=True):
    """An entry of the list of jobs."""

    name: Text
    cpus: Amount = 0
    mem: Amount = 0
    disk: Amount = 0
    disabled: bool = False
    constraints: Constraints = []


Jobs = Annotated[list[Job], Meta(max_length=MAX_ENTRIES)]


async def read(source: Source, subject: Subject) -> Reading:
    """What is queued.

    Raises:
        AdapterError: there is no usable answer.

    """
    try:
        states, jobs = await source.get(GRAPH), await source.get(JOBS)
    except AdapterError:
        states, jobs = await source.get(OLD_GRAPH), await source.get(OLD_JOBS)
    return reading_of(decode(jobs, Jobs, JOBS), queued_names(states), subject)


def queued_names(text: bytes) -> frozenset[str]:
    """The jobs that wait for offers.

    Raises:
        AdapterError: this is not the graph of Chronos.

    """
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise AdapterError(f"{GRAPH} is no text") from None
    if len(lines) > MAX_LINES:
        raise AdapterError(f"{GRAPH} has more than {MAX_LINES} lines")
    queued = set()
    for line in lines:
        kind, _, rest = line.partition(",")
        if kind not in {"node", "link"}:
            raise AdapterError(f"{GRAPH} has the line {line[:80]!r}")
        name, _, state = rest.rpartition(",")
        if kind == "node" and state.strip() == QUEUED:
            queued.add(name.rpartition(",")[0])
    return frozenset(queued)


def reading_of(jobs: Sequence[Job], queued: frozenset[str], subject: Subject) -> Reading:
    """What is queued, of the jobs that are not disabled."""
    waiting = [job for job in jobs if job.name in queued and not job.disabled]
    wanted = bounded(Entry(job.name, 1, partial(_wanted, job, subject)) for job in waiting)
    evidence = Reason.of(ReasonCode.QUEUE_REPORTED, path=GRAPH, count=len(waiting))
    return Reading(wanted, (evidence,))


def _wanted(job: Job, subject: Subject) -> WantedShape:
    return WantedShape(_shape(job, subject), 1, job.name, constraints=_constraints(job))


def _shape(job: Job, subject: Subject) -> Shape:
    stated = zip((job.cpus, job.mem, job.disk), subject.defaults, DEFAULTS, strict=True)
    cpus, mem_mib, disk_mib = (
        amount or (usual if configured is None else configured)
        for amount, configured, usual in stated
    )
    return make(cpus, mem_mib, disk_mib)


def _constraints(job: Job) -> tuple[Constraint, ...]:
    return tuple(_constraint(parts) for parts in job.constraints)


def _constraint(parts: Sequence[str]) -> Constraint:
    if len(parts) != 3 or parts[1].upper() not in OPERATORS:
        raise AdapterError(f"the constraint {list(parts)} is not one of Chronos")
    field, operator, value = parts
    return constraint_of(field, OPERATORS[operator.upper()], value)
