"""Adapter of the HTTP hook `GET /demand`, which any framework can serve. Pure.

The format is documented in docs/frameworks.md; docs/demand.schema.json is made from these types.
Unknown fields are an error, so that a misspelt one is noticed.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.adapters.answers import (
    Amount,
    Constraints,
    Count,
    Entry,
    Labels,
    Moment,
    Reading,
    Source,
    Subject,
    bounded,
    constraints_of,
    decode,
)
from mesaform.placement.task_labels import read_labels

DEMAND = "/demand"
NO_CONTROL_CHARACTERS = r"^(?![\s\S]*[\x00-\x1f\x7f])"


class Item(Struct, forbid_unknown_fields=True, frozen=True):
    """Equal pieces of work that wait: tasks that the framework would launch on the next offer.

    `waiting_since` is in seconds since the epoch. `constraints` are lists of field, operator and
    value with the operators of Marathon. `labels` are those of `placement.task_labels`.
    """

    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_CONTROL_CHARACTERS)]
    count: Annotated[int, Meta(ge=1, le=100_000)]
    cpus: Annotated[float, Meta(gt=0, le=1e6)]
    mem_mib: Amount
    disk_mib: Amount = 0
    gpus: Amount = 0
    ports: Annotated[int, Meta(ge=0, le=1000)] = 0
    role: Annotated[str, Meta(max_length=255)] = ""
    constraints: Constraints = []
    labels: Labels = {}
    waiting_since: Moment = 0


class Demand(Struct, forbid_unknown_fields=True, frozen=True):
    """What a framework wants in addition to what it has. No items: it has what it wants.

    `tasks` is how many tasks it counts as launched and not ended; it avoids that a task that starts
    while demand is read counts as waiting.
    """

    version: Literal[1]
    demand: Annotated[list[Item], Meta(max_length=200)]
    tasks: Count | None = None


async def read(source: Source, _: Subject) -> Reading:
    """What the framework states.

    Raises:
        AdapterError: there is no usable answer.

    """
    return reading_of(decode(await source.get(DEMAND), Demand, DEMAND))


def reading_of(demand: Demand) -> Reading:
    """What the framework states."""
    wanted = bounded(Entry(item.name, item.count, partial(_wanted, item)) for item in demand.demand)
    evidence = Reason.of(
        ReasonCode.QUEUE_REPORTED,
        path=DEMAND,
        count=sum(shape.count for shape in wanted),
    )
    return Reading(wanted, (evidence,), demand.tasks)


def _wanted(item: Item) -> WantedShape:
    labels = read_labels(item.labels)
    return WantedShape(
        make(item.cpus, item.mem_mib, item.disk_mib, item.gpus, item.ports),
        item.count,
        item.name,
        item.role,
        constraints_of(item.constraints) + labels.constraints,
        item.waiting_since,
        labels=labels,
    )


def schema() -> dict[str, Any]:
    """The JSON schema of an answer."""
    return msgspec.json.schema(Demand)
