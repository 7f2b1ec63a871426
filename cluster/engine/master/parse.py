"""Parser of JSON into message structs, by the rules of Mesos' JSON-to-protobuf conversion.

Unknown fields and null are ignored. Numbers may be strings. Bytes are base64. An unknown enum value
counts as absent. A value of the wrong kind is an error in Mesos' own words (3rdparty/stout
protobuf.hpp). Every document becomes one struct or one `BadMessage`.
"""

from __future__ import annotations

import base64
import binascii
import math
import string
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import TypeVar, Union, cast

import msgspec

from mesaform.mesos import messages, operator_api, scheduler_api

M = TypeVar("M", bound=messages.Message)

_TASK_STATES = frozenset(
    {
        "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_FINISHED",
        "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_UNREACHABLE",
        "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
    }
)  # fmt: skip
_VALUE_TYPES = frozenset({"SCALAR", "RANGES", "SET", "TEXT"})
_OPERATIONS = frozenset(
    {
        "LAUNCH", "LAUNCH_GROUP", "RESERVE", "UNRESERVE", "CREATE", "DESTROY", "GROW_VOLUME",
        "SHRINK_VOLUME", "CREATE_DISK", "DESTROY_DISK",
    }
)  # fmt: skip
_CAPABILITIES = frozenset(
    {
        "REVOCABLE_RESOURCES", "TASK_KILLING_STATE", "GPU_RESOURCES", "SHARED_RESOURCES",
        "PARTITION_AWARE", "MULTI_ROLE", "RESERVATION_REFINEMENT", "REGION_AWARE",
    }
)  # fmt: skip

_ENUMS: dict[tuple[type, str], tuple[frozenset[str], str | None]] = {
    (scheduler_api.Call, "type"): (scheduler_api.CALL_TYPES, None),
    (operator_api.OperatorCall, "type"): (operator_api.CALL_TYPES, None),
    (scheduler_api.Operation, "type"): (_OPERATIONS, None),
    (messages.Capability, "type"): (_CAPABILITIES, "UNKNOWN"),
    (messages.Resource, "type"): (_VALUE_TYPES, None),
    (messages.Attribute, "type"): (_VALUE_TYPES, None),
    (messages.TaskStatus, "state"): (_TASK_STATES, None),
}
"""Enum fields: the known names, and the value for an unknown name (None: absent)."""

_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=-_")


class BadMessage(ValueError):
    """The text is not this message. The error's text says why in Mesos' words."""


def parse_body(body: bytes, of: type[M]) -> M:
    """The message in an HTTP body.

    Raises:
        BadMessage: it is not JSON, or not such a message.

    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadMessage("Failed to parse body into JSON: syntax error at line 1 near: ") from None
    try:
        return parse(document, of)
    except BadMessage as error:
        raise BadMessage(f"Failed to convert JSON into Call protobuf: {error}") from None


def parse(document: object, of: type[M]) -> M:
    """The message in a JSON document.

    Raises:
        BadMessage: a value is of the wrong kind, or a required field is missing.

    """
    if not isinstance(document, dict):
        raise BadMessage("Expecting a JSON object")
    missing: list[str] = []
    message = _message(document, of, "", missing)
    if missing:
        raise BadMessage(f"Missing required fields: {', '.join(missing)}")
    return cast("M", message)


class _Field(msgspec.Struct, frozen=True):
    """A field of a message; `wanted` is its scalar type, struct type, or dict."""

    name: str
    wanted: type
    is_repeated: bool
    is_required: bool
    enum: tuple[frozenset[str], str | None] | None


@cache
def _fields(message: type) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(message)
    return tuple(
        _field(message, field, hints[field.name]) for field in msgspec.structs.fields(message)
    )


def _field(message: type, field: msgspec.structs.FieldInfo, hint: object) -> _Field:
    wanted = _not_none(hint)
    is_repeated = typing.get_origin(wanted) is list
    if is_repeated:
        wanted = typing.get_args(wanted)[0]
    return _Field(
        field.name,
        dict if typing.get_origin(wanted) is dict else cast("type", wanted),
        is_repeated,
        field.required,
        _ENUMS.get((message, field.name)),
    )


def _not_none(hint: object) -> object:
    """`T` of `T | None`."""
    if typing.get_origin(hint) in {Union, types.UnionType}:
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _message(
    document: dict[str, object], message: type, path: str, missing: list[str]
) -> object | None:
    """The message, or None after its missing fields are added to `missing`."""
    values: dict[str, object] = {}
    is_complete = True
    for field in _fields(message):
        raw = document.get(field.name)
        value = None if raw is None else _field_value(raw, field, path, missing)
        if value is not None:
            values[field.name] = value
        elif field.is_required:
            is_complete = False
            if not (isinstance(raw, dict) and field.enum is None):
                missing.append(f"{path}{field.name}")
    return cast("object", message(**values)) if is_complete else None


def _field_value(raw: object, field: _Field, path: str, missing: list[str]) -> object | None:
    if not field.is_repeated:
        return _value(raw, field, f"{path}{field.name}.", missing)
    if not isinstance(raw, list):
        raise _wrong(raw, field)
    values = [
        _value(item, field, f"{path}{field.name}[{index}].", missing)
        for index, item in enumerate(raw)
        if item is not None
    ]
    return [value for value in values if value is not None]


def _value(raw: object, field: _Field, path: str, missing: list[str]) -> object | None:
    wanted = field.wanted
    if wanted is dict or issubclass(wanted, msgspec.Struct):
        if not isinstance(raw, dict):
            raise _wrong(raw, field)
        return raw if wanted is dict else _message(raw, wanted, path, missing)
    if isinstance(raw, dict | list):
        raise _wrong(raw, field)
    return _SCALARS[wanted](raw, field)


def _text(raw: object, field: _Field) -> str | None:
    if not isinstance(raw, str):
        raise _wrong(raw, field)
    if field.enum is not None and raw not in field.enum[0]:
        return field.enum[1]
    return raw


def _bytes(raw: object, field: _Field) -> bytes:
    if not isinstance(raw, str):
        raise _wrong(raw, field)
    invalid = next((character for character in raw if character not in _BASE64), None)
    problem = f"Invalid character '{invalid}'" if invalid else "Invalid length"
    try:
        if invalid is None:
            return base64.b64decode(raw.replace("-", "+").replace("_", "/"))
    except binascii.Error:
        pass
    raise BadMessage(f"Failed to base64 decode bytes field '{field.name}': {problem}")


def _number(raw: object, field: _Field) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise _wrong(raw, field)
    try:
        return float(raw)
    except ValueError:
        raise BadMessage(
            f"Failed to parse '{raw}' as a JSON number for field '{field.name}'"
        ) from None


def _integer(raw: object, field: _Field) -> int:
    number = _number(raw, field)
    if not math.isfinite(number):
        raise BadMessage(f"Failed to parse '{raw}' as a JSON number for field '{field.name}'")
    return int(raw) if isinstance(raw, int) else int(number)


def _boolean(raw: object, field: _Field) -> bool:
    if not isinstance(raw, bool):
        raise _wrong(raw, field)
    return raw


_SCALARS: dict[type, Callable[[object, _Field], object | None]] = {
    str: _text,
    bytes: _bytes,
    float: _number,
    int: _integer,
    bool: _boolean,
}


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),  # before int, of which it is a subclass
    (str, "string"),
    (int, "number"),
    (float, "number"),
    (list, "array"),
    (dict, "object"),
)


def _wrong(raw: object, field: _Field) -> BadMessage:
    kind = next(name for type_, name in _KINDS if isinstance(raw, type_))
    return BadMessage(f"Not expecting a JSON {kind} for field '{field.name}'")
