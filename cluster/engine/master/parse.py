"""Parser of JSON into message structs, by the rules of Mesos' JSON-to-protobuf conversion.

Most bodies take the fast way: msgspec decodes them and checks every constraint. A body that it
refuses is read again, value by value, by the rules of 3rdparty/stout protobuf.hpp of Apache Mesos,
which either accepts it or says why not in Mesos' words:

- Unknown fields and null are ignored. Numbers and booleans may be strings. Bytes are base64.
- A repeated field takes one value instead of a list. A map takes a list of maps.
- An unknown enum value counts as absent where the field is optional.
- An integer wraps to the bits of its type, as in C++ on amd64.

A message of the second way may break the constraints of its types. `engine.validation` refuses
what must not be stored or sent.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import string
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast

import msgspec

from mesaform.mesos.messages import Message
from mesaform.mesos.scheduler_api import Call

M = TypeVar("M", bound=Message)

MAX_ELEMENTS = 100_000
"""Values of a body that is read value by value, which takes about 2 µs for each."""

_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=-_")
_NUMBER = re.compile(r"\s*-?\d+(\.\d+)?([eE][-+]?\d+)?\s*")
_LONG_INTEGER = re.compile(rb"[0-9]{309}")
_LARGE_NUMBER = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{200}")
"""In any number larger than any double. msgspec skips the values of unknown fields unseen."""
_MAX_DOUBLE = int(sys.float_info.max)
_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}


class BadMessage(ValueError):
    """The text is not this message. The error's text says why in Mesos' words."""


def parse_body(body: bytes, of: type[M]) -> M:
    """The message in an HTTP body.

    Raises:
        BadMessage: it is not JSON, or not such a message.

    """
    message = None if _LARGE_NUMBER.search(body) else _decoded(body, of)
    if message is not None and not _lacks_name(message):
        return message
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadMessage(f"Failed to parse body into JSON: {_syntax_error(error)}") from None
    if _LONG_INTEGER.search(body) and _has_large_number(document):
        raise BadMessage("Failed to parse body into JSON: Value out of range")
    try:
        return parse(document, of)
    except BadMessage as error:
        raise BadMessage(f"Failed to convert JSON into Call protobuf: {error}") from None


def _decoded(body: bytes, of: type[M]) -> M | None:
    """The message; None if the second way has to find out what is wrong."""
    try:
        return cast("M", _decoder(of).decode(body))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def _syntax_error(error: Exception) -> str:
    """What is wrong with a JSON text, in Mesos' words."""
    if "out of range" in str(error):
        return "Value out of range"
    return "syntax error at line 1 near: "


@cache
def _decoder(of: type[Message]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(of)


def _lacks_name(message: Message) -> bool:
    """Whether a task may lack its required name, which is "" then, as in old records."""
    accept = message.accept if isinstance(message, Call) else None
    if accept is None:
        return False
    return any(
        not info.name
        for operation in accept.operations
        for tasks in (
            operation.launch.task_infos if operation.launch is not None else (),
            operation.launch_group.task_group.tasks if operation.launch_group is not None else (),
        )
        for info in tasks
    )


def parse(document: object, of: type[M]) -> M:
    """The message in a JSON document.

    Raises:
        BadMessage: a value is of the wrong kind, or a required field is missing.

    """
    if not isinstance(document, dict):
        raise BadMessage("Expecting a JSON object")
    if _is_too_large(document):
        raise BadMessage(f"More than {MAX_ELEMENTS} values")
    missing: list[str] = []
    message = _message(document, of, "", missing)
    if missing:
        raise BadMessage(f"Missing required fields: {', '.join(missing)}")
    return cast("M", message)


def _is_too_large(document: object) -> bool:
    return any(count > MAX_ELEMENTS for count, _ in enumerate(_values(document)))


def _has_large_number(document: object) -> bool:
    """Whether an integer is larger than any double."""
    return any(isinstance(value, int) and abs(value) > _MAX_DOUBLE for value in _values(document))


def _values(document: object) -> Iterator[object]:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)


_Kind = Literal["one", "list", "map"]


class _Field(msgspec.Struct, frozen=True):
    """A field of a message; `wanted` is its scalar type or struct type."""

    name: str
    wanted: type
    kind: _Kind
    is_required: bool
    names: frozenset[str] | None
    bits: str


@cache
def _fields(message: type) -> dict[str, _Field]:
    """The fields of a message by their names."""
    info = msgspec.inspect.type_info(message)
    assert isinstance(info, msgspec.inspect.StructType)  # noqa: S101 - Message is a struct
    hints = typing.get_type_hints(message, include_extras=True)
    return {
        field.name: _field(field.name, hints[field.name], is_required=field.required)
        for field in info.fields
    }


@cache
def _required(message: type) -> tuple[str, ...]:
    """The names of the fields that a message must have."""
    return tuple(name for name, field in _fields(message).items() if field.is_required)


def _field(name: str, hint: object, *, is_required: bool) -> _Field:
    wanted, extra, bits = _bare(hint)
    kind: _Kind = "one"
    origin = typing.get_origin(wanted)
    if origin in {list, dict}:
        kind = "list" if origin is list else "map"
        wanted, extra, bits = _bare(typing.get_args(wanted)[-1])
    names = cast("frozenset[str] | None", extra.get("names"))
    if typing.get_origin(wanted) is Literal:
        wanted, names = str, frozenset(typing.get_args(wanted))
    is_required = is_required or bool(extra.get("is_required"))
    return _Field(name, cast("type", wanted), kind, is_required, names, bits)


def _bare(hint: object) -> tuple[object, Mapping[str, object], str]:
    """The type in `T | None` and `Annotated[T, …]`, with the annotation's `extra` and `title`."""
    if typing.get_origin(hint) in {Union, types.UnionType}:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, {}, ""
    bare, *annotations = typing.get_args(hint)
    meta = next(note for note in annotations if isinstance(note, msgspec.Meta))
    return bare, meta.extra or {}, meta.title or ""


def _message(
    document: dict[str, object], message: type, path: str, missing: list[str]
) -> object | None:
    """The message, or None after its missing fields are added to `missing`.

    Fields are read in the order of their names, as Mesos does, so that the first error is the same.
    """
    fields = _fields(message)
    values: dict[str, object] = {}
    known_missing = len(missing)
    given: set[str] = set()  # fields that are set or whose own missing fields are known
    for name in sorted(document.keys() & fields.keys()):
        count = len(missing)
        value = _field_value(document[name], fields[name], path, missing)
        if value is not None:
            values[name] = value
        if value is not None or len(missing) > count:
            given.add(name)
    missing.extend(path + name for name in _required(message) if name not in given)
    return cast("object", message(**values)) if len(missing) == known_missing else None


def _field_value(raw: object, field: _Field, path: str, missing: list[str]) -> object | None:
    if raw is None:
        return None
    if field.kind == "map":
        return _map(raw, field, path, missing)
    if field.kind == "one":
        if isinstance(raw, list):
            raise _wrong(raw, field)
        return _value(raw, field, f"{path}{field.name}.", missing)
    values = [
        _value(item, field, f"{path}{field.name}[{index}].", missing)
        for index, item in enumerate(_flat(raw))
    ]
    return [value for value in values if value is not None]


def _flat(raw: object) -> list[object]:
    """The values of a repeated field: one value counts as a list, lists in a list are joined."""
    if not isinstance(raw, list):
        return [] if raw is None else [raw]
    return [value for item in raw for value in _flat(item)]


def _map(raw: object, field: _Field, path: str, missing: list[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for part in _flat(raw):
        if not isinstance(part, dict):
            raise _wrong(part, field)
        for key in sorted(part):
            item_path = f"{path}{field.name}[{len(values)}].value."
            entry = msgspec.structs.replace(field, name="value")
            item = {} if part[key] is None else part[key]
            value = _value(item, entry, item_path, missing)
            if value is not None:
                values[key] = value
    return values


def _value(raw: object, field: _Field, path: str, missing: list[str]) -> object | None:
    wanted = field.wanted
    if issubclass(wanted, msgspec.Struct):
        if not isinstance(raw, dict):
            raise _wrong(raw, field)
        return _message(raw, wanted, path, missing)
    if isinstance(raw, dict | list):
        raise _wrong(raw, field)
    return _SCALARS[wanted](raw, field)


def _text(raw: object, field: _Field) -> str | None:
    if not isinstance(raw, str):
        raise _wrong(raw, field)
    if field.names is not None and raw not in field.names:
        if field.is_required:
            raise BadMessage(f"Failed to find enum for '{raw}'")
        return None
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
    if isinstance(raw, str) and raw in _INFINITE:
        return _INFINITE[raw]
    return _as_number(_exact_number(raw, field))


def _as_number(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _parsed(raw: str, field: _Field) -> float:
    """The number in a text, as an integer where it is written as one."""
    match = _NUMBER.fullmatch(raw)
    if match is None:
        raise BadMessage(f"Failed to parse '{raw}' as a JSON number for field '{field.name}'")
    is_integer = match[1] is None and match[2] is None
    return int(raw) if is_integer and len(raw) < 400 else float(raw)


def _integer(raw: object, field: _Field) -> int:
    """A number in the bits of its type, as a C++ cast on amd64 leaves it.

    JSON integers beyond int64 are doubles in Mesos, and a double that does not fit becomes the
    type's smallest number.
    """
    number = _exact_number(raw, field)
    is_int64 = isinstance(number, int) and -(2**63) <= number < 2**63
    cast_ = int(number) if is_int64 else _as_int64(number, field)
    if field.bits == "int32" and not is_int64 and not -(2**31) <= cast_ < 2**31:
        return -(2**31)
    bits = 32 if field.bits.endswith("32") else 64
    return _wrapped(cast_, bits, is_unsigned=field.bits.startswith("u"))


def _exact_number(raw: object, field: _Field) -> float:
    """The number as it is written, as an integer where it is one."""
    if isinstance(raw, str):
        return _parsed(raw, field)
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise _wrong(raw, field)
    return raw


def _wrapped(number: int, bits: int, *, is_unsigned: bool) -> int:
    """The lowest bits of a number."""
    wrapped: int = number % 2**bits
    return wrapped - 2**bits if wrapped >= 2 ** (bits - 1) and not is_unsigned else wrapped


def _as_int64(raw: float, field: _Field) -> int:
    number = _as_number(raw)
    if field.bits == "uint64" and 2.0**63 <= number < 2.0**64:
        return int(number)
    if not -(2.0**63) <= number < 2.0**63:  # also NaN and infinite
        return 0 if field.bits == "uint64" else -(2**63)
    return int(number)


def _boolean(raw: object, field: _Field) -> bool:
    if isinstance(raw, str):
        if raw.strip() not in {"true", "false"}:
            raise BadMessage(f"Failed to parse '{raw}' as a JSON boolean for field '{field.name}'")
        return raw.strip() == "true"
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
