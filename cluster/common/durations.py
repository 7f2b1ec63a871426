"""Durations as people and Mesos write them. Standard library and `common.errors` only.

Two notations are read: `1h30m` of Mesaform's command line and cluster file, and `15secs` of
Mesos' flags (stout's `Duration::parse`, 3rdparty/stout/include/stout/duration.hpp).
"""

from __future__ import annotations

import re

from mesaform.common.errors import BadInput

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MESOS_UNIT_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "secs": 1.0,
    "mins": 60.0,
    "hrs": 3600.0,
    "days": 86400.0,
    "weeks": 604800.0,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_MESOS = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_MESOS_UNIT_S)})")
_LARGEST_FIRST = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def parse_duration_s(text: str, where: str = "") -> float:
    """Seconds of `90s`, `30m`, `1h30m`, `2d` or `1w`.

    Raises:
        BadInput: the text is not a duration.

    """
    if _WHOLE.fullmatch(text) is None:
        raise BadInput(
            f"{text!r} is not a duration", where=where, fix="write 90s, 30m, 1h30m or 2d"
        )
    return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))


def parse_mesos_duration_s(text: str, where: str = "") -> float:
    """Seconds of `15secs`, `10mins` or `500ms`, as Mesos' flags take them.

    Raises:
        BadInput: the text is not a duration in Mesos' notation.

    """
    match = _MESOS.fullmatch(text.strip())
    if match is None:
        raise BadInput(
            f"{text!r} is not a duration",
            where=where,
            fix="write a number and a unit, such as 15secs or 10mins",
        )
    return float(match[1]) * _MESOS_UNIT_S[match[2]]


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: `45 s`, `2 min 5 s`, `3 h 20 min`, `1 d 4 h`."""
    seconds = max(0.0, seconds)
    for size, unit, smaller_size, smaller_unit in _LARGEST_FIRST:
        if seconds >= size:
            rest = int(seconds % size // smaller_size)
            return f"{int(seconds // size)} {unit} {rest} {smaller_unit}"
    return f"{seconds:.0f} s"


def format_short_duration(seconds: float) -> str:
    """A duration in one unit with three significant digits: `45 s`, `2.5 min`, `1.33 d`."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= size * 1.5 or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
