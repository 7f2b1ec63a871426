"""Attributes of agents: their type by their text, and the text that constraints compare. Pure.

Mesos derives an attribute's type from its text (`values::parse` in src/common/values.cpp of Apache
Mesos): a number is a scalar, `[1-5]` is ranges, everything else here is text. Marathon 1.11
compares attributes of every type as text (`getValueString` in Constraints.scala).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from mesaform.common.resources import Range

REGION = "@region"
ZONE = "@zone"
"""Fields of an agent's fault domain; no attribute has such a name."""


_RANGE = re.compile(r"([0-9]{1,20})\s*-\s*([0-9]{1,20})")
_RANGES = re.compile(r"\[(?:[\s,]*[0-9]{1,20}\s*-\s*[0-9]{1,20}\s*(?=[,\]]))*[\s,]*\]")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")


def number_of(text: str) -> float | None:
    """The number that Mesos reads a text as; None for text, which negative numbers are as well."""
    try:
        if _HEXADECIMAL.fullmatch(text):
            return float(int(text, 16))
        number = float(text) if "_" not in text else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def ranges_of(text: str) -> tuple[Range, ...] | None:
    """The ranges of `[1-5,7-9]`, inclusive; None for another form."""
    if not _RANGES.fullmatch(text):
        return None
    ranges = [(int(low), int(high)) for low, high in _RANGE.findall(text)]
    return tuple(ranges) if all(low <= high for low, high in ranges) else None


def scalar_text(value: float) -> str:
    """A scalar with at most three decimals and no zeros behind them: `2`, `0.5`, `1234567`.

    It is rounded half to even, as by Java's `DecimalFormat("0.###")`.
    """
    return f"{value:.3f}".rstrip("0").rstrip(".")


def ranges_text(ranges: Iterable[Range]) -> str:
    """Ranges in the order of their beginnings: `[1-5,7-9]`."""
    return "[" + ",".join(f"{low}-{high}" for low, high in sorted(ranges)) + "]"


def set_text(items: Iterable[str]) -> str:
    """The items of a set in order: `{a,b}`."""
    return "{" + ",".join(sorted(items)) + "}"


def comparison_text(text: str) -> str:
    """What constraints compare of an attribute that an agent is configured with as `text`.

    `0.30` and `.3` are `0.3`, because Mesos keeps a number; `[7-9, 1-5]` is `[1-5,7-9]`.
    """
    text = text.strip()
    ranges, number = ranges_of(text), number_of(text)
    if ranges is not None:
        return ranges_text(ranges)
    return text if number is None else scalar_text(number)
