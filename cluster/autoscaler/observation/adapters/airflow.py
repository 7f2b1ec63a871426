"""Adapter of Apache Airflow with AVENTER's provider for Mesos: its queue of tasks. Pure.

The executor of `avmesos_airflow_provider` serves `GET /v0/dags` on port 11000, with HTTP Basic: the
tasks that it has not launched, each with the `executor_config` of its operator in `MesosExecutor`.
Its memory is `mem_limit`, a number of MiB or a text such as `512m` or `2g`; the other resources are
`cpus` and `disk`. Resources that a task does not state are those of `[mesos]` in airflow.cfg, which
the API does not tell: configure them as `default_cpus` and so on where they differ from the
provider's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, make, text
from mesaform.autoscaler.observation.adapters.answers import (
    AdapterError,
    Amount,
    Entry,
    Reading,
    Source,
    Subject,
    Text,
    bounded,
    constraint_of,
    decode,
)

QUEUE = "/v0/dags"
MAX_TASKS = 20_000
DEFAULTS = (0.1, 256.0, 1000.0)
"""Cpus, MiB of memory and of disk that the provider assumes."""

_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([gm]?)")


class ExecutorConfig(Struct, frozen=True):
    """What a task states of its resources."""

    cpus: Amount | None = None
    mem_limit: Amount | Text | None = None
    disk: Amount | None = None
    instance_type: Text | None = None


class Task(Struct, frozen=True):
    """A task that is not launched yet."""

    dag_id: Text
    task_id: Text
    MesosExecutor: ExecutorConfig | None = None


Queue = Annotated[list[Task], Meta(max_length=MAX_TASKS)]


async def read(source: Source, subject: Subject) -> Reading:
    """What is queued.

    Raises:
        AdapterError: there is no usable answer.

    """
    return reading_of(decode(await source.get(QUEUE), Queue, QUEUE), subject)


def reading_of(tasks: Sequence[Task], subject: Subject) -> Reading:
    """What is queued; equal tasks are one shape."""
    counts = Counter((_shape(task, subject), _instance_type(task)) for task in tasks)
    wanted = bounded(
        Entry(_name(*key), count, partial(_wanted, *key, count)) for key, count in counts.items()
    )
    evidence = Reason.of(ReasonCode.QUEUE_REPORTED, path=QUEUE, count=len(tasks))
    return Reading(wanted, (evidence,))


def _wanted(shape: Shape, instance_type: str, count: int) -> WantedShape:
    pin = (constraint_of("instance_type", "IS", instance_type),) if instance_type else ()
    return WantedShape(shape, count, _name(shape, instance_type), constraints=pin)


def _name(shape: Shape, instance_type: str) -> str:
    return f"{text(shape)} on {instance_type}" if instance_type else text(shape)


def _instance_type(task: Task) -> str:
    return (task.MesosExecutor.instance_type or "") if task.MesosExecutor else ""


def _shape(task: Task, subject: Subject) -> Shape:
    """A task's resources."""
    config = task.MesosExecutor or ExecutorConfig()
    stated = (config.cpus, _memory_mib(config.mem_limit), config.disk)
    cpus, mem_mib, disk_mib = (
        _first(amount, configured, usual)
        for amount, configured, usual in zip(stated, subject.defaults, DEFAULTS, strict=True)
    )
    return make(cpus, mem_mib, disk_mib)


def _first(amount: float | None, configured: float | None, usual: float) -> float:
    if amount is not None:
        return amount
    return usual if configured is None else configured


def _memory_mib(limit: float | str | None) -> float | None:
    if not isinstance(limit, str):
        return limit
    match = _MEMORY.fullmatch(limit.strip().lower())
    if match is None or len(match.group(1)) > 12:
        raise AdapterError(f"{QUEUE}: mem_limit {limit[:40]} is no size")
    mib = float(match.group(1)) * (1024 if match.group(2) == "g" else 1)
    if mib > 1e7:
        raise AdapterError(f"{QUEUE}: mem_limit {limit[:40]} is too large")
    return mib
