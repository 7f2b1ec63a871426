"""Resource vectors: cpus, mem, disk, gpus and ports, and their arithmetic.

Scalars are integers in thousandths, the precision of Mesos, so that sums are exact.
Roles, reservations and volumes are not here: they belong to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Range = tuple[int, int]


def merge_ranges(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return sorted, disjoint, inclusive ranges of the same numbers; adjacent ones are joined."""
    merged: list[list[int]] = []
    for low, high in sorted(ranges):
        if low > high:
            continue
        if merged and low <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    return tuple((low, high) for low, high in merged)


def subtract_ranges(left: Iterable[Range], right: Iterable[Range]) -> tuple[Range, ...]:
    """The numbers of `left` that are not in `right`."""
    remaining = list(merge_ranges(left))
    for cut_low, cut_high in merge_ranges(right):
        pieces: list[Range] = []
        for low, high in remaining:
            if cut_high < low or cut_low > high:
                pieces.append((low, high))
                continue
            if low < cut_low:
                pieces.append((low, cut_low - 1))
            if cut_high < high:
                pieces.append((cut_high + 1, high))
        remaining = pieces
    return tuple(remaining)


@dataclass(frozen=True, slots=True)
class Resources:
    """Vector of resources.

    `milli` are scalars in thousandths (cpus, mem in MiB, disk in MiB, gpus); `ports` are inclusive
    ranges.

    Scalars of zero are not stored, so equal amounts are equal values.
    """

    milli: Mapping[str, int] = field(default_factory=dict)
    ports: tuple[Range, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        cpus: float = 0,
        mem_mib: float = 0,
        disk_mib: float = 0,
        gpus: float = 0,
        ports: Iterable[Range] = (),
    ) -> Resources:
        """A vector from plain numbers: cpus in cores, memory and disk in MiB."""
        return cls.from_scalars(
            {"cpus": cpus, "mem": mem_mib, "disk": disk_mib, "gpus": gpus}, ports
        )

    @classmethod
    def from_scalars(cls, scalars: Mapping[str, float], ports: Iterable[Range] = ()) -> Resources:
        """A vector from named scalars in whole units; any name is allowed, as in Mesos."""
        milli = {name: round(value * 1000) for name, value in scalars.items()}
        return cls(
            {name: value for name, value in sorted(milli.items()) if value}, merge_ranges(ports)
        )

    @property
    def cpus(self) -> float:
        return self.milli.get("cpus", 0) / 1000

    @property
    def mem_mib(self) -> float:
        return self.milli.get("mem", 0) / 1000

    @property
    def disk_mib(self) -> float:
        return self.milli.get("disk", 0) / 1000

    @property
    def gpus(self) -> float:
        return self.milli.get("gpus", 0) / 1000

    @property
    def port_count(self) -> int:
        return sum(high - low + 1 for low, high in self.ports)

    @property
    def is_empty(self) -> bool:
        return not self.milli and not self.ports

    def scalars(self) -> dict[str, float]:
        """The scalars in whole units, by name, without zeros."""
        return {name: value / 1000 for name, value in self.milli.items()}

    def contains(self, other: Resources) -> bool:
        """Whether `other` can be taken out of this vector."""
        if any(self.milli.get(name, 0) < value for name, value in other.milli.items()):
            return False
        return not subtract_ranges(other.ports, self.ports)

    def _combine(self, other: Resources, sign: int) -> dict[str, int]:
        names = sorted({*self.milli, *other.milli})
        sums = {name: self.milli.get(name, 0) + sign * other.milli.get(name, 0) for name in names}
        return {name: value for name, value in sums.items() if value}

    def __add__(self, other: Resources) -> Resources:
        return Resources(self._combine(other, 1), merge_ranges((*self.ports, *other.ports)))

    def __sub__(self, other: Resources) -> Resources:
        """Return the difference. Scalars may be negative; check `contains` to prevent that."""
        return Resources(self._combine(other, -1), subtract_ranges(self.ports, other.ports))

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.milli.items())), self.ports))

    def __str__(self) -> str:
        parts = [f"{name}:{value / 1000:g}" for name, value in self.milli.items()]
        if self.ports:
            parts.append("ports:[" + ",".join(f"{low}-{high}" for low, high in self.ports) + "]")
        return ";".join(parts) or "nothing"


EMPTY = Resources()
