"""Adapter of Apache Spark: what a driver on Mesos wants, by its REST API. Pure.

Facts are from Spark 3.5: the REST API of its "Monitoring" page as a driver of 3.5.9 answers it, and
the coarse-grained scheduler of its module for Mesos. That scheduler takes an executor from every
offer that has `spark.executor.cores` cpus and the executor's memory, until it has `spark.cores.max`
cpus or, in dynamic allocation, the executors that its allocation manager wants. Without
`spark.executor.cores` an executor takes all whole cpus of an offer. Memory is
`spark.executor.memory` and `spark.mesos.executor.memoryOverhead`, by default a tenth, at least
384 MiB.

The work is the tasks of active stages that are not complete; of pending stages while none is
active. Executors beyond that work are not wanted, although Spark would take them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from msgspec import Meta, Struct

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, make
from mesaform.autoscaler.observation.adapters.answers import (
    MAX_CONSTRAINT_TEXT,
    MAX_CONSTRAINTS,
    AdapterError,
    Count,
    Reading,
    Source,
    Subject,
    Text,
    Whole,
    constraint_of,
    decode,
    limited,
    moment,
)
from mesaform.placement.constraints import Constraint, host_port

API = "/api/v1/applications"
OVERHEAD_SHARE = 0.1
OVERHEAD_MIN_MIB = 384
DEFAULT_MEMORY = "1g"
DEFAULT_IDLE_TIMEOUT = "60s"

_SIZE = re.compile(r"([0-9]+)\s*([bkmgtp]?)b?", re.IGNORECASE)
_UNITS_MIB = {"": 2.0**-20, "b": 2.0**-20, "k": 2.0**-10, "m": 1.0, "g": 1024.0, "t": 2.0**20}
_TIME = re.compile(r"([0-9]+)\s*(ms|us|s|m|min|h|d)?")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Attempt(Struct, frozen=True):
    """An attempt of an application: `duration` is its age in ms while it runs."""

    duration: Whole = 0
    completed: bool = False


class Application(Struct, frozen=True):
    """An entry of `/applications`. On Mesos the id is the framework's."""

    id: Text
    name: Text = ""
    attempts: list[Attempt] = []


class Environment(Struct, frozen=True):
    """The part of `/environment` that is read: pairs of property and value."""

    sparkProperties: list[Annotated[list[str], Meta(min_length=2, max_length=2)]]  # noqa: N815


class Executor(Struct, frozen=True):
    """An entry of `/executors`, which lists the driver as well."""

    id: Text
    isActive: bool = True  # noqa: N815
    totalCores: Count = 0  # noqa: N815


class Stage(Struct, frozen=True):
    """An entry of `/stages`."""

    status: Text
    numTasks: Count = 0  # noqa: N815
    numCompleteTasks: Count = 0  # noqa: N815
    numCompletedIndices: Count = 0  # noqa: N815
    submissionTime: Text | None = None  # noqa: N815

    @property
    def remaining(self) -> int:
        """Tasks that are not complete. Speculative copies complete no further index."""
        return max(0, self.numTasks - (self.numCompletedIndices or self.numCompleteTasks))


@dataclass(frozen=True, slots=True)
class Settings:
    """A driver's configuration, as far as it decides what it takes of offers.

    `executor_cores` is None where an executor takes all cpus of an offer. `max_cores` and
    `max_executors` are None without a limit.
    """

    executor_cores: int | None
    memory_mib: int
    task_cpus: int = 1
    max_cores: int | None = None
    is_dynamic: bool = False
    min_executors: int = 0
    initial_executors: int = 0
    max_executors: int | None = None
    allocation_ratio: float = 1.0
    idle_timeout_s: float = 60.0
    registered_ratio: float = 0.0
    extra_cores: int = 0
    constraints: tuple[Constraint, ...] = ()
    port: int = 0

    @property
    def tasks_per_executor(self) -> int:
        """Tasks that run on an executor at a time; of one cpu where its size is not fixed."""
        return max(1, (self.executor_cores or 1) // self.task_cpus)

    @property
    def shape(self) -> Shape:
        """An executor, or one cpu with an executor's memory."""
        return make(
            cpus=self.executor_cores or 1, mem_mib=self.memory_mib, ports=1 if self.port else 0
        )


@dataclass(frozen=True, slots=True)
class Driver:
    """What a driver says of its present state. `age_s` is the application's age."""

    executors: int
    cores: int
    active: Sequence[Stage]
    pending: Sequence[Stage]
    age_s: float = 0.0


async def read(source: Source, subject: Subject) -> Reading:
    """What a driver wants.

    Raises:
        AdapterError: the driver gives no answer, or not one of this framework.

    """
    application = _own(decode(await source.get(API), list[Application], API), subject)
    base = f"{API}/{quote(application.id, safe='')}"
    environment = decode(
        await source.get(f"{base}/environment"), Environment, f"{API}/…/environment"
    )
    settings = settings_of(dict(environment.sparkProperties))
    executors = decode(await source.get(f"{base}/executors"), list[Executor], f"{API}/…/executors")
    active = await _stages(source, base, "active")
    pending = [] if active else await _stages(source, base, "pending")
    own = [item for item in executors if item.id != "driver" and item.isActive]
    cores = sum(max(0, item.totalCores - settings.extra_cores) for item in own)
    age_s = application.attempts[-1].duration / 1000 if application.attempts else 0.0
    return reading_of(settings, Driver(len(own), cores, active, pending, age_s))


def _own(applications: Sequence[Application], subject: Subject) -> Application:
    """The framework's own application; a driver lists no other."""
    for application in applications:
        if application.id == subject.framework_id:
            return application
    raise AdapterError(f"{API} lists no application with this framework's id")


async def _stages(source: Source, base: str, status: str) -> list[Stage]:
    body = await source.get(f"{base}/stages?status={status}")
    return decode(body, list[Stage], f"{API}/…/stages")


def settings_of(properties: Mapping[str, str]) -> Settings:
    """The configuration of a driver from its Spark properties.

    Raises:
        AdapterError: a value is not one that Spark would accept.

    """
    memory_mib = _size_mib(properties.get("spark.executor.memory", DEFAULT_MEMORY))
    default_overhead = max(OVERHEAD_MIN_MIB, int(OVERHEAD_SHARE * memory_mib))
    overhead_mib = _whole(properties, "spark.mesos.executor.memoryOverhead", default_overhead)
    cores = _whole(properties, "spark.executor.cores", 0) or None
    dynamic = "spark.dynamicAllocation."
    min_executors = _whole(properties, f"{dynamic}minExecutors", 0)
    initial = (
        min_executors,
        _whole(properties, f"{dynamic}initialExecutors", 0),
        _whole(properties, "spark.executor.instances", 0),
    )
    return Settings(
        executor_cores=cores,
        memory_mib=memory_mib + overhead_mib,
        task_cpus=max(1, _whole(properties, "spark.task.cpus", 1)),
        max_cores=_optional(properties, "spark.cores.max"),
        is_dynamic=properties.get(f"{dynamic}enabled", "").strip().lower() == "true",
        min_executors=min_executors,
        initial_executors=max(initial),
        max_executors=_optional(properties, f"{dynamic}maxExecutors"),
        allocation_ratio=_ratio(properties, f"{dynamic}executorAllocationRatio", 1.0),
        idle_timeout_s=_time_s(
            properties.get(f"{dynamic}executorIdleTimeout", DEFAULT_IDLE_TIMEOUT)
        ),
        registered_ratio=_ratio(properties, "spark.scheduler.minRegisteredResourcesRatio", 0.0),
        extra_cores=_whole(properties, "spark.mesos.extra.cores", 0),
        constraints=constraints_of(properties.get("spark.mesos.constraints", "")),
        port=_whole(properties, "spark.blockManager.port", 0),
    )


def reading_of(settings: Settings, driver: Driver) -> Reading:
    """What a driver wants in addition to its executors."""
    stages = driver.active or driver.pending
    tasks = sum(stage.remaining for stage in stages)
    if settings.executor_cores is None:
        have, target = driver.cores, _target_cores(settings, driver, tasks)
    else:
        have, target = driver.executors, _target_executors(settings, driver, tasks)
    missing = max(0, target - have)
    evidence = _evidence(settings, driver, tasks, target, missing)
    if not missing:
        return Reading((), evidence, driver.executors)
    constraints = settings.constraints + ((host_port(settings.port),) if settings.port else ())
    since = min((at for stage in stages if (at := moment(stage.submissionTime))), default=0.0)
    wanted = WantedShape(
        shape=settings.shape,
        count=missing,
        constraints=constraints,
        since=since,
        divisible=settings.executor_cores is None,
    )
    return Reading((limited(wanted),), evidence, driver.executors)


def _target_cores(settings: Settings, driver: Driver, tasks: int) -> int:
    """Cpus that a driver can use whose executors take all cpus of an offer.

    Its allocation manager counts such executors as having one cpu. Its limits count executors.
    """
    target = max(tasks * settings.task_cpus, math.ceil(_registered_cores(settings)))
    if settings.is_dynamic:
        most = settings.max_executors
        if most is not None and driver.executors >= most:
            return driver.cores
        least = _within_dynamic_bounds(settings, driver, 0)
        target = max(target, driver.cores + least - driver.executors)
    return target if settings.max_cores is None else min(target, settings.max_cores)


def _target_executors(settings: Settings, driver: Driver, tasks: int) -> int:
    """Executors of a fixed size that a driver can use."""
    cores = settings.executor_cores or 1
    ratio = settings.allocation_ratio if settings.is_dynamic else 1.0
    target = math.ceil(tasks * ratio / settings.tasks_per_executor)
    if settings.is_dynamic:
        target = _within_dynamic_bounds(settings, driver, target)
    else:
        target = max(target, math.ceil(_registered_cores(settings) / cores))
    if settings.max_cores is None:
        return target
    return min(target, settings.max_cores // cores)


def _within_dynamic_bounds(settings: Settings, driver: Driver, target: int) -> int:
    """The allocation manager's target. The initial one holds until the first stage, or for long."""
    is_initial = not driver.active and not driver.pending
    is_initial = is_initial and driver.age_s < settings.idle_timeout_s
    target = max(target, settings.min_executors)
    if is_initial:
        target = max(target, settings.initial_executors)
    return target if settings.max_executors is None else min(target, settings.max_executors)


def _registered_cores(settings: Settings) -> float:
    """Cpus for which a driver waits before it starts work; 0 on Mesos unless it is configured."""
    return (settings.max_cores or 0) * settings.registered_ratio


def _evidence(
    settings: Settings, driver: Driver, tasks: int, target: int, missing: int
) -> tuple[Reason, ...]:
    limit = "" if settings.max_cores is None else str(settings.max_cores)
    code = ReasonCode.SPARK_WAITS if missing else ReasonCode.SPARK_SATISFIED
    unit = "cpus" if settings.executor_cores is None else "executors"
    return (
        Reason.of(
            code,
            tasks=tasks,
            stages=len(driver.active) or len(driver.pending),
            executors=driver.executors,
            cores=driver.cores,
            target=target,
            unit=unit,
            max_cores=limit,
        ),
    )


def constraints_of(text: str) -> tuple[Constraint, ...]:
    """Constraints of `spark.mesos.constraints`: `zone:a,b;rack:1;ssd:`.

    A value of several is enough; no value asks for the attribute. Spark compares a scalar attribute
    as "at least"; here its value has to be equal.

    Raises:
        AdapterError: they are too long, or one is none.

    """
    if len(text) > MAX_CONSTRAINT_TEXT:
        raise AdapterError(f"spark.mesos.constraints has {len(text)} characters")
    parts = [part.strip() for part in text.split(";") if part.strip()]
    return tuple(_constraint(*part.split(":", 1)) for part in parts[: MAX_CONSTRAINTS + 1])


def _constraint(name: str, values: str = "") -> Constraint:
    chosen = [value for value in values.split(",") if value]
    if not chosen:
        return constraint_of(name, "LIKE", ".*")
    if len(chosen) == 1:
        return constraint_of(name, "IS", chosen[0])
    return constraint_of(name, "LIKE", "|".join(re.escape(value) for value in chosen))


def _size_mib(text: str) -> int:
    """A size such as `512m` or `1g` in MiB, rounded down; a number alone is bytes."""
    match = _SIZE.fullmatch(text.strip())
    unit = match.group(2).lower() if match else "p"
    if match is None or unit not in _UNITS_MIB or len(match.group(1)) > 15:
        raise AdapterError(f"spark.executor.memory {text[:40]} is no size")
    return _limited(int(match.group(1)) * _UNITS_MIB[unit], "spark.executor.memory")


def _time_s(text: str) -> float:
    """A time such as `60s` in seconds; 0 if it is none that Spark accepts."""
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or len(match.group(1)) > 12:
        return 0.0
    return int(match.group(1)) * _UNITS_S.get(match.group(2) or "", 86_400.0)


def _whole(properties: Mapping[str, str], name: str, default: int) -> int:
    text = properties.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise AdapterError(f"{name} {text[:40]} is no whole number")
    return _limited(float(text), name)


def _optional(properties: Mapping[str, str], name: str) -> int | None:
    return _whole(properties, name, 0) if properties.get(name, "").strip() else None


def _limited(value: float, name: str) -> int:
    """A whole number of at most 31 bits, as Spark keeps it."""
    if value >= 2**31:
        raise AdapterError(f"{name} {value:.0f} is too large")
    return int(value)


def _ratio(properties: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(properties.get(name, "").strip() or default)
    except ValueError:
        raise AdapterError(f"{name} is no number") from None
    return value if 0 <= value <= 1 else default
