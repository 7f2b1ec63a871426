"""Resource vectors as tuples of integers. Packing compares and subtracts them many thousand times.

Ports are a number: the engine chooses which ports a task gets.
"""

from __future__ import annotations

from mesaform.common.resources import Resources

Shape = tuple[int, int, int, int, int]
"""cpus, mem (MiB), disk (MiB) and gpus in thousandths, and the number of ports."""

NOTHING: Shape = (0, 0, 0, 0, 0)
NAMES = ("cpus", "MiB memory", "MiB disk", "gpus", "ports")
MANY = 1_000_000_000
GIB = 1024 * 1000
"""In thousandths of a MiB."""


def shape_of(resources: Resources) -> Shape:
    milli = resources.milli
    return (
        milli.get("cpus", 0),
        milli.get("mem", 0),
        milli.get("disk", 0),
        milli.get("gpus", 0),
        resources.port_count,
    )


def make(
    cpus: float = 0, mem_mib: float = 0, disk_mib: float = 0, gpus: float = 0, ports: int = 0
) -> Shape:
    """A shape from whole units."""
    return (
        round(cpus * 1000),
        round(mem_mib * 1000),
        round(disk_mib * 1000),
        round(gpus * 1000),
        ports,
    )


def plus(a: Shape, b: Shape) -> Shape:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4])


def minus(a: Shape, b: Shape) -> Shape:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4])


def maximum(a: Shape, b: Shape) -> Shape:
    """The larger amount of each dimension."""
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]), max(a[4], b[4]))


def minimum(a: Shape, b: Shape) -> Shape:
    """The smaller amount of each dimension."""
    return (min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]), min(a[4], b[4]))


def times(a: Shape, count: int) -> Shape:
    return (a[0] * count, a[1] * count, a[2] * count, a[3] * count, a[4] * count)


def contains(capacity: Shape, load: Shape) -> bool:
    return (
        capacity[0] >= load[0]
        and capacity[1] >= load[1]
        and capacity[2] >= load[2]
        and capacity[3] >= load[3]
        and capacity[4] >= load[4]
    )


def how_often(load: Shape, capacity: Shape) -> int:
    """How many of `load` go into `capacity`; `MANY` for a load of nothing."""
    most = MANY
    for have, want in zip(capacity, load, strict=True):
        if want and have // want < most:
            most = have // want
    return max(0, most)


def named(amount: int, dimension: int) -> str:
    """An amount of one dimension, for people: `200 GiB memory`, `4 cpus`."""
    if dimension in {1, 2} and amount >= GIB:
        return f"{amount / GIB:.4g} GiB {NAMES[dimension].partition(' ')[2]}"
    return f"{_whole(amount, NAMES[dimension])} {NAMES[dimension]}"


def text(shape: Shape) -> str:
    """For people: `1 cpus, 128 MiB memory`."""
    return (
        ", ".join(
            f"{_whole(amount, name)} {name}"
            for amount, name in zip(shape, NAMES, strict=True)
            if amount
        )
        or "nothing"
    )


def _whole(amount: int, name: str) -> str:
    return str(amount) if name == "ports" else f"{amount / 1000:g}"
