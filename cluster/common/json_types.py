"""Types of decoded JSON. Standard library only."""

from __future__ import annotations

from typing import TypeAlias, Union

Json: TypeAlias = Union[bool, int, float, str, "list[Json]", "dict[str, Json]", None]
JsonObject: TypeAlias = dict[str, Json]


def as_object(value: object) -> JsonObject:
    """The value as a JSON object; an empty one when it is of another type."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Json]:
    """The value as a JSON array; an empty one when it is of another type."""
    return value if isinstance(value, list) else []
