"""Choice of the host ports of an instance. Pure.

With `requirePorts` a definition's own port is the host port, and 0 asks for any port (Marathon
1.11, docs/ports.md of its repository).
"""

from __future__ import annotations

from collections.abc import Sequence

from mesaform.common.resources import Range, subtract_ranges


def fixed_ports(defined: Sequence[int], *, is_required: bool) -> tuple[int, ...]:
    """The host ports that an instance takes in any case, ascending.

    `defined` are the ports of the app's definitions, `is_required` is its `requirePorts`.
    """
    return tuple(sorted({port for port in defined if port})) if is_required else ()


def choose_ports(
    defined: Sequence[int], offered: Sequence[Range], seed: int, *, is_required: bool
) -> tuple[int, ...] | None:
    """A host port for each definition, or None if not enough are offered.

    `seed` is any number. It varies the choice of the ports that are not fixed.
    """
    fixed = fixed_ports(defined, is_required=is_required)
    fixed_ranges = [(port, port) for port in fixed]
    if subtract_ranges(fixed_ranges, offered):
        return None
    dynamic_count = sum(port not in fixed for port in defined)
    dynamic = _pick(subtract_ranges(offered, fixed_ranges), dynamic_count, seed)
    if dynamic is None:
        return None
    remaining = iter(dynamic)
    return tuple(port if port in fixed else next(remaining) for port in defined)


def _pick(free: Sequence[Range], count: int, seed: int) -> list[int] | None:
    """`count` different ports of the ranges, from a position that the seed selects."""
    free_count = sum(high - low + 1 for low, high in free)
    if free_count < count:
        return None
    return [_nth(free, (seed + index) % free_count) for index in range(count)]


def _nth(ranges: Sequence[Range], index: int) -> int:
    """The port at this position in the ranges."""
    for low, high in ranges:
        if index <= high - low:
            return low + index
        index -= high - low + 1
    raise IndexError(index)
