"""Validation of link messages beyond their types. Pure.

Both ends decode with `link` and then check the whole message here, before anything is stored,
allocated or started. The limits make what is accepted fit into the registry's node and into the
containers' folders. Depends on `mesos.messages` and `engine.link`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import msgspec
import msgspec.inspect

from mesaform.engine import link
from mesaform.engine.validation.names import has_control_character, invalid_id
from mesaform.mesos.messages import (
    AgentInfo,
    Attribute,
    FrameworkInfo,
    Id,
    Resource,
    TaskInfo,
    TaskStatus,
)

MAX_HOSTNAME_LENGTH = 255
MAX_NAME_LENGTH = 255
"""Characters of the name of a resource or an attribute."""
MAX_ATTRIBUTE_BYTES = 16 * 1024
"""The JSON of one attribute."""
MAX_AGENT_INFO_BYTES = 64 * 1024
"""The JSON of an agent's info, which the registry stores for each agent."""
MAX_SCALAR = 2**53 / 1000
"""A scalar counts thousandths as integers up to 2^53, as Mesos' fixed point of three decimals."""
MAX_PORT = 65535
MAX_GRACE_S = 2**63 / 1e9
"""Seconds of the greatest duration: DurationInfo counts nanoseconds in 64 bits."""
MAX_DEPTH = 64
"""Levels of a message's JSON objects."""
UUID_BYTES = 16
_INT64 = range(-(2**63), 2**63)

TASK_STATES = frozenset(
    {
        "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_FINISHED",
        "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_UNREACHABLE",
        "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
    }
)  # fmt: skip

Problems = Iterator[str]
FieldsOf = Callable[[type[msgspec.Struct]], tuple[str, ...]]


class RejectedLaunch(msgspec.Struct, frozen=True):
    """A launch that this agent cannot take. `why` is for the task's framework."""

    framework_id: str
    task_id: str
    why: str


class _FrameworkId(msgspec.Struct):
    id: Id


class _TaskId(msgspec.Struct):
    task_id: Id


class _LaunchIds(msgspec.Struct, tag="Launch"):
    """The ids of a launch, whatever else is in it."""

    framework: _FrameworkId
    task: _TaskId


def problem_of(message: link.LinkMessage) -> str | None:
    """Why the message is invalid, with the path of the value; None when it is valid."""
    return _problem(message, _fields_with_numbers)


def _problem(message: link.LinkMessage, fields_of: FieldsOf) -> str | None:
    problem = _bad_value(message, fields_of)
    if problem is not None:
        return problem.removeprefix(".")
    return next(_CHECKS.get(type(message), _nothing)(message), None)


def read_from_agent(data: bytes) -> link.FromAgent:
    """The message of an agent.

    Raises:
        BadMessage: the bytes are no such message, or the message is invalid.

    """
    try:
        message: link.FromAgent = link.decode_from_agent(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise link.BadMessage(f"not a message of an agent: {error}") from error
    problem = _problem(message, _unconstrained_fields)
    if problem is not None:
        raise link.BadMessage(f"{type(message).__name__}: {problem}")
    return message


def read_from_master(data: bytes) -> link.FromMaster | RejectedLaunch:
    """The message of a master. A launch that is invalid still names its task.

    Raises:
        BadMessage: the bytes are no such message, or the message is invalid.

    """
    try:
        message: link.FromMaster = link.decode_from_master(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem: str | None = f"not a message of a master: {error}"
        kind = "message"
    else:
        problem, kind = _problem(message, _unconstrained_fields), type(message).__name__
        if problem is None:
            return message
    rejected = _rejected_launch(data, problem or "")
    if rejected is None:
        raise link.BadMessage(f"{kind}: {problem}")
    return rejected


def _rejected_launch(data: bytes, problem: str) -> RejectedLaunch | None:
    """The task of an invalid launch; None for other messages, and for one with invalid ids."""
    try:
        launch = msgspec.msgpack.decode(data, type=_LaunchIds)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    framework_id, task_id = launch.framework.id.value, launch.task.task_id.value
    if invalid_id(framework_id) or invalid_id(task_id):
        return None
    return RejectedLaunch(framework_id, task_id, problem)


def problem_of_task(framework: FrameworkInfo, task: TaskInfo) -> str | None:
    """Why a task cannot be launched or registered; None when it can."""
    return problem_of(link.Launch(framework, task))


def problem_of_agent(agent_id: str, info: AgentInfo) -> str | None:
    """Why an agent cannot be registered as this; None when it can."""
    problem = _bad_value(info, _fields_with_numbers)
    return problem or next(_id(agent_id, "agent_id"), None) or next(_agent_info(info), None)


def _nothing(_message: object) -> Problems:
    return iter(())


def _bad_value(value: object, fields_of: FieldsOf, depth: int = 0) -> str | None:
    """The path and problem of the first number that is not finite or exceeds 64 bits.

    Values that are nested too deep are a problem, too. This visits every value of every message,
    so it asks for the most frequent types first.
    """
    if isinstance(value, int | float):
        return _bad_number(value)
    if depth >= MAX_DEPTH:
        return f" is nested deeper than {MAX_DEPTH} levels"
    for name, item in _items(value, fields_of):
        if type(item) not in _PLAIN:
            problem = _bad_value(item, fields_of, depth + 1)
            if problem is not None:
                return f"{name}{problem}"
    return None


def _bad_number(value: float) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else " is not a finite number"
    return None if value in _INT64 else " does not fit into 64 bits"


_PLAIN = frozenset({str, bytes, bool, type(None)})


@cache
def _fields_with_numbers(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of a message that may hold a number or a structure."""
    return tuple(name for name, info in _types(kind) if not _is_text(info))


@cache
def _unconstrained_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields whose values the decoder does not check whole by their types."""
    return tuple(name for name, info in _types(kind) if not _is_checked(info, frozenset({kind})))


def _types(kind: type[msgspec.Struct]) -> list[tuple[str, msgspec.inspect.Type]]:
    fields = msgspec.structs.fields(kind)
    return [(field.name, msgspec.inspect.type_info(field.type)) for field in fields]


def _is_checked(info: msgspec.inspect.Type, known: frozenset[type]) -> bool:
    """Whether the decoder refuses every invalid value of a type. `known` ends recursive types."""
    match info:
        case msgspec.inspect.UnionType():
            return all(_is_checked(part, known) for part in info.types)
        case msgspec.inspect.FloatType() | msgspec.inspect.IntType():
            return None not in {info.ge, info.le}
        case msgspec.inspect.ListType():
            return _is_checked(info.item_type, known)
        case msgspec.inspect.StructType():
            return info.cls in known or _is_checked_struct(info.cls, known | {info.cls})
    return _is_text(info)


def _is_checked_struct(kind: type[msgspec.Struct], known: frozenset[type]) -> bool:
    return all(_is_checked(info, known) for _, info in _types(kind))


def _is_text(info: msgspec.inspect.Type) -> bool:
    if isinstance(info, msgspec.inspect.UnionType):
        return all(_is_text(part) for part in info.types)
    return isinstance(info, _TEXT_TYPES)


_TEXT_TYPES = (
    msgspec.inspect.StrType,
    msgspec.inspect.BytesType,
    msgspec.inspect.BoolType,
    msgspec.inspect.NoneType,
    msgspec.inspect.EnumType,
    msgspec.inspect.LiteralType,
)


def _items(value: object, fields_of: FieldsOf) -> Iterable[tuple[str, object]]:
    """The parts of a structure with their names in a path."""
    if isinstance(value, msgspec.Struct):
        return [(f".{name}", getattr(value, name)) for name in fields_of(type(value))]
    if isinstance(value, dict):
        return [(f".{name!s:.40}", item) for name, item in value.items()]
    if isinstance(value, list):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    return ()


# --- names


def _id(value: Id | str | None, path: str, *, is_required: bool = True) -> Problems:
    text = value.value if isinstance(value, Id) else value
    if text is None:
        if is_required:
            yield f"{path} is missing"
        return
    problem = invalid_id(text)
    if problem is not None:
        yield f"{path}: {problem}"


def _name(text: str, path: str, limit: int = MAX_NAME_LENGTH) -> Problems:
    if not text or len(text) > limit or has_control_character(text):
        yield f"{path} must have 1 to {limit} characters and no control characters"


def _state(state: str, path: str) -> Problems:
    if state not in TASK_STATES:
        yield f"{path} is no state of a task"


# --- parts


def _resources(resources: list[Resource], path: str) -> Problems:
    for index, resource in enumerate(resources):
        where = f"{path}[{index}]"
        yield from _name(resource.name, f"{where}.name")
        if resource.scalar is not None and not 0 <= resource.scalar.value <= MAX_SCALAR:
            yield f"{where}.scalar must be from 0 to {MAX_SCALAR:g}"
        highest = MAX_PORT if resource.name == "ports" else _INT64.stop - 1
        for part in resource.ranges.range if resource.ranges is not None else ():
            if not 0 <= part.begin <= part.end <= highest:
                yield f"{where}.ranges must be ordered and from 0 to {highest}"


def _attributes(attributes: list[Attribute]) -> Problems:
    for index, attribute in enumerate(attributes):
        where = f"info.attributes[{index}]"
        yield from _name(attribute.name, f"{where}.name")
        size = len(msgspec.json.encode(attribute))
        if size > MAX_ATTRIBUTE_BYTES:
            yield f"{where} has {size} bytes; at most {MAX_ATTRIBUTE_BYTES} are allowed"


def _agent_info(info: AgentInfo) -> Problems:
    yield from _name(info.hostname, "info.hostname", MAX_HOSTNAME_LENGTH)
    if not 0 <= info.port <= MAX_PORT:
        yield f"info.port must be from 0 to {MAX_PORT}"
    yield from _resources(info.resources, "info.resources")
    yield from _attributes(info.attributes)
    size = len(msgspec.json.encode(info))
    if size > MAX_AGENT_INFO_BYTES:
        yield f"info has {size} bytes; at most {MAX_AGENT_INFO_BYTES} are allowed"


def _framework(framework: FrameworkInfo, path: str) -> Problems:
    yield from _id(framework.id, f"{path}.id")


def _task(task: TaskInfo, path: str) -> Problems:
    yield from _id(task.task_id, f"{path}.task_id")
    yield from _id(task.agent_id, f"{path}.agent_id")
    yield from _resources(task.resources, f"{path}.resources")


def _status(status: TaskStatus, path: str) -> Problems:
    yield from _id(status.task_id, f"{path}.task_id")
    yield from _id(status.agent_id, f"{path}.agent_id", is_required=False)
    yield from _state(status.state, f"{path}.state")
    if status.uuid is not None and len(status.uuid) != UUID_BYTES:
        yield f"{path}.uuid must have {UUID_BYTES} bytes"


def _grace(grace_s: float | None, path: str) -> Problems:
    if grace_s is not None and not 0 <= grace_s <= MAX_GRACE_S:
        yield f"{path} must be from 0 to {MAX_GRACE_S:g} s"


# --- messages


def _register(message: link.Register) -> Problems:
    yield from _agent_info(message.info)
    yield from _id(message.agent_id, "agent_id", is_required=False)
    for name in ("address", "version"):
        text = getattr(message, name)
        if text:
            yield from _name(text, name)
    for index, known in enumerate(message.tasks):
        where = f"tasks[{index}]"
        yield from _framework(known.framework, f"{where}.framework")
        yield from _task(known.task, f"{where}.task")
        yield from _state(known.latest_state, f"{where}.latest_state")
        for status in known.statuses:
            yield from _status(status, f"{where}.statuses")


def _update(message: link.Update) -> Problems:
    yield from _id(message.framework_id, "framework_id")
    yield from _status(message.status, "status")
    yield from _state(message.latest_state, "latest_state")


def _registered(message: link.Registered) -> Problems:
    yield from _id(message.agent_id, "agent_id")
    if not 0 < message.ping_interval_s <= MAX_GRACE_S:
        yield "ping_interval_s must be positive"


def _launch(message: link.Launch) -> Problems:
    yield from _framework(message.framework, "framework")
    yield from _task(message.task, "task")


def _kill(message: link.Kill) -> Problems:
    yield from _id(message.framework_id, "framework_id")
    yield from _id(message.task_id, "task_id")
    yield from _grace(message.grace_s, "grace_s")


def _acknowledge(message: link.Acknowledge) -> Problems:
    yield from _id(message.framework_id, "framework_id")
    yield from _id(message.task_id, "task_id")
    if len(message.uuid) != UUID_BYTES:
        yield f"uuid must have {UUID_BYTES} bytes"


def _drain(message: link.Drain) -> Problems:
    yield from _grace(message.max_grace_s, "max_grace_s")


def _shutdown_framework(message: link.ShutdownFramework) -> Problems:
    yield from _id(message.framework_id, "framework_id")


# `Callable[..., Problems]`: each check takes the message type that is its key.
_CHECKS: dict[type, Callable[..., Problems]] = {
    link.Register: _register,
    link.Update: _update,
    link.Registered: _registered,
    link.Launch: _launch,
    link.Kill: _kill,
    link.Acknowledge: _acknowledge,
    link.Drain: _drain,
    link.ShutdownFramework: _shutdown_framework,
}
