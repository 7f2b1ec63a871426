"""Adapter of Marathon: what waits in its launch queue. Pure.

`GET /v2/queue` of Marathon 1.4 to 1.11: an entry is overdue once it waits for an offer, and not
overdue while it backs off after failures, which is no demand. It is read as the queue of the
services is, which serve the same API.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, make
from mesaform.autoscaler.observation.adapters.answers import (
    MAX_ENTRIES,
    Amount,
    Constraints,
    Count,
    Labels,
    Reading,
    Source,
    Subject,
    Text,
    bounded,
    constraint_of,
    constraints_of,
    decode,
    moment,
)
from mesaform.autoscaler.observation.adapters.answers import Entry as Waiting
from mesaform.placement.constraints import Constraint, host_port
from mesaform.placement.task_labels import read_labels

QUEUE = "/v2/queue"


class PortDefinition(Struct, frozen=True):
    """A port of an app; 0 stands for any."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 0


class Scalars(Struct, frozen=True):
    """The resources of a pod's container."""

    cpus: Amount = 0
    mem: Amount = 0
    disk: Amount = 0
    gpus: Amount = 0


class Endpoint(Struct, frozen=True):
    """A port of a pod's container; none stands for a port that is not on the host."""

    hostPort: Annotated[int, Meta(ge=0, le=65535)] | None = None  # noqa: N815


class Container(Struct, frozen=True):
    """A container of a pod."""

    resources: Scalars = Scalars()
    endpoints: list[Endpoint] = []


class PlacementConstraint(Struct, frozen=True):
    """A constraint of a pod."""

    fieldName: Text  # noqa: N815
    operator: Text
    value: Text = ""


class Placement(Struct, frozen=True):
    """Where a pod may run."""

    constraints: Annotated[list[PlacementConstraint], Meta(max_length=32)] = []


class Scheduling(Struct, frozen=True):
    """How a pod is placed."""

    placement: Placement = Placement()


class RunSpec(Struct, frozen=True):
    """An app or a pod. `cpus` and the like are an app's, `containers` a pod's."""

    id: Text
    cpus: Amount = 0
    mem: Amount = 0
    disk: Amount = 0
    gpus: Amount = 0
    role: Text | None = None
    labels: Labels = {}
    constraints: Constraints = []
    portDefinitions: list[PortDefinition] | None = None  # noqa: N815
    ports: list[Annotated[int, Meta(ge=0, le=65535)]] | None = None
    requirePorts: bool = False  # noqa: N815
    containers: list[Container] = []
    executorResources: Scalars | None = None  # noqa: N815
    scheduling: Scheduling = Scheduling()


class Delay(Struct, frozen=True):
    """Whether an entry waits for offers, and not for the end of a back-off."""

    overdue: bool = False


class Refusals(Struct, frozen=True):
    """How many of the last offers were refused for a reason."""

    reason: Text
    declined: Count = 0


class Summary(Struct, frozen=True):
    """What became of the offers."""

    rejectSummaryLastOffers: list[Refusals] = []  # noqa: N815


class Entry(Struct, frozen=True):
    """An entry of the queue."""

    count: Count = 0
    app: RunSpec | None = None
    pod: RunSpec | None = None
    role: Text | None = None
    since: Text | None = None
    delay: Delay = Delay()
    processedOffersSummary: Summary = Summary()  # noqa: N815


class Queue(Struct, frozen=True):
    """The answer of `/v2/queue`."""

    queue: Annotated[list[Entry], Meta(max_length=MAX_ENTRIES)]


async def read(source: Source, _: Subject) -> Reading:
    """What waits for offers.

    Raises:
        AdapterError: there is no usable answer.

    """
    return reading_of(decode(await source.get(QUEUE), Queue, QUEUE))


def reading_of(queue: Queue) -> Reading:
    """What waits for offers in a queue."""
    wanted = bounded(_waiting(queue))
    evidence = [
        Reason.of(
            ReasonCode.QUEUE_REPORTED,
            path=QUEUE,
            count=sum(shape.count for shape in wanted),
        )
    ]
    refusals = _refusals(queue)
    if refusals:
        evidence.append(Reason.of(ReasonCode.OFFERS_REFUSED, refusals=refusals))
    return Reading(wanted, tuple(evidence))


def _waiting(queue: Queue) -> Iterator[Waiting]:
    for item in queue.queue:
        spec = item.app or item.pod
        if spec is not None and item.delay.overdue:
            yield Waiting(spec.id, item.count, partial(_wanted, item, spec))


def _wanted(item: Entry, spec: RunSpec) -> WantedShape:
    labels = read_labels(spec.labels)
    return WantedShape(
        shape=shape_of(spec),
        count=item.count,
        name=spec.id,
        role=item.role or spec.role or "",
        constraints=(
            *_constraints(spec),
            *labels.constraints,
            *map(host_port, _fixed_ports(spec)),
        ),
        since=moment(item.since),
        labels=labels,
    )


def shape_of(spec: RunSpec) -> Shape:
    """An instance's resources. A pod's are the sum of its containers and its executor."""
    if not spec.containers:
        return make(spec.cpus, spec.mem, spec.disk, spec.gpus, len(_ports(spec)))
    parts = [container.resources for container in spec.containers]
    parts += [spec.executorResources] if spec.executorResources else []
    return make(
        sum(part.cpus for part in parts),
        sum(part.mem for part in parts),
        sum(part.disk for part in parts),
        sum(part.gpus for part in parts),
        len(_ports(spec)),
    )


def _ports(spec: RunSpec) -> list[int]:
    if spec.containers:
        return [
            point.hostPort
            for item in spec.containers
            for point in item.endpoints
            if point.hostPort is not None
        ]
    if spec.portDefinitions is not None:
        return [item.port for item in spec.portDefinitions]
    return spec.ports or []


def _fixed_ports(spec: RunSpec) -> list[int]:
    """Host ports that an instance has to get; an app's only with `requirePorts`."""
    is_fixed = spec.requirePorts or bool(spec.containers)
    return [port for port in _ports(spec) if port] if is_fixed else []


def _constraints(spec: RunSpec) -> tuple[Constraint, ...]:
    placed = spec.scheduling.placement.constraints
    of_pod = tuple(constraint_of(item.fieldName, item.operator, item.value) for item in placed)
    return constraints_of(spec.constraints) + of_pod


def _refusals(queue: Queue) -> tuple[str, ...]:
    """The refused offers of entries that wait, by reason: `InsufficientCpus 12`."""
    totals: dict[str, int] = {}
    for entry in queue.queue:
        rows = entry.processedOffersSummary.rejectSummaryLastOffers if entry.delay.overdue else ()
        for row in rows:
            totals[row.reason] = totals.get(row.reason, 0) + row.declined
    return tuple(f"{reason} {count}" for reason, count in sorted(totals.items()) if count)
