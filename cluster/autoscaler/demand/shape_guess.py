"""The size to try for a framework that shows none: larger than all that it refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, make, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.aws.ports import Offering

LEAST = make(cpus=0.01, mem_mib=32)
"""What the smallest machine holds: the least that is offered."""


def larger_than(refused: Shape, snapshot: Snapshot) -> Shape | None:
    """A shape whose cheapest machine is the next one to try after `refused`; None without one.

    It has more cpus and more memory than what was refused, so that few machines find the size. If
    no type has both, it has more of one.
    """
    if refused == NOTHING:
        return LEAST
    cpus, mem = refused[0] + 1, refused[1] + 1
    for shape in ((cpus, mem, 0, 0, 0), (0, mem, 0, 0, 0), (cpus, 0, 0, 0, 0)):
        if cheapest_usd(shape, snapshot) is not None:
            return shape
    return None


def cheapest_usd(shape: Shape, snapshot: Snapshot) -> float | None:
    """The price of the cheapest machine that holds a shape; None if none does."""
    return min(
        (
            offering.usd_per_hour
            for offering in _offered(snapshot)
            if contains(shape_of(offering.resources), shape)
        ),
        default=None,
    )


def _offered(snapshot: Snapshot) -> Iterator[Offering]:
    """What pools buy, of the capacity type that their machines are sized by."""
    for pool in snapshot.spec.agents:
        capacity = "spot" if pool.spot_share >= 1 else "on-demand"
        for offering in snapshot.offerings.get(pool.name, ()):
            if offering.capacity == capacity:
                yield offering
