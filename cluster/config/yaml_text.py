"""Positions in YAML text, and pydantic's errors as lines that a person can act on.

Knows YAML and pydantic models in general, and nothing of clusters: the model is an argument.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeGuard

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
"""Names of fields and indices of lists that lead to a value."""

Problem = tuple[int, Path, str]
"""Line, field and complaint."""

_MERGE = "tag:yaml.org,2002:merge"
_TYPE_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of names to values",
    "model": "a mapping of fields to values",
}
_LIMITS = {
    "greater_than": ("must be more than {limit}, not {given}", "gt"),
    "greater_than_equal": ("must be at least {limit}, not {given}", "ge"),
    "less_than": ("must be less than {limit}, not {given}", "lt"),
    "less_than_equal": ("must be at most {limit}, not {given}", "le"),
    "too_short": ("needs at least {limit}", "min_length"),
}
"""Complaints about limits by the type of pydantic's error, and where its context has the limit."""


class BrokenYaml(Exception):
    """The text is not YAML, or repeats a key; `problems` has all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def parse(text: str) -> tuple[object, dict[Path, int]]:
    """Return the data of a YAML text, and the line (from 1) of every field and item.

    Raises:
        BrokenYaml: it cannot be parsed; nothing of it is evaluated.

    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {(): 1}
        lines: dict[Path, int] = {(): node.start_mark.line + 1}
        if repeated := list(_walk(node, (), lines)):
            raise BrokenYaml(repeated)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BrokenYaml(
            [(mark.line + 1 if mark else 1, (), f"not YAML: {error.problem or error.context}")]
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise BrokenYaml([(1, (), f"not YAML: {error}")]) from None
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Iterator[Problem]:
    """Record the line of everything below a node; yield keys that are repeated."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*path, index] = item.start_mark.line + 1
            yield from _walk(item, (*path, index), lines)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if key.tag != _MERGE and name in seen:
                yield line, (*path, name), f"named twice, first in line {seen[name]}"
            seen[name] = line
            lines[*path, name] = line
            yield from _walk(value, (*path, name), lines)


def explain(
    errors: Sequence[ErrorDetails], lines: Mapping[Path, int], model: type[BaseModel]
) -> list[Problem]:
    """Return pydantic's errors as problems, in the order of the file."""
    problems = [
        (line_of(error["loc"], lines), _field(error["loc"]), _complaint(error, model))
        for error in errors
        if not _is_consequence(error, errors)
    ]
    return sorted(problems, key=lambda problem: problem[0])


def _field(path: Path) -> Path:
    """The field of an error: pydantic adds `[key]` if a key of a mapping is wrong."""
    return path[:-1] if path and path[-1] == "[key]" else path


def _is_consequence(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a list is too short only because its items are wrong."""
    path = error["loc"]
    return error["type"] == "too_short" and any(
        other["loc"][: len(path)] == path and other["loc"] != path for other in errors
    )


def render(problems: list[Problem], file: str) -> str:
    """Return lines such as `cluster.yaml:12: agents[0].typs: unknown field; nearest: types`."""
    return "\n".join(
        f"{file}:{line}: {f'{field}: ' if (field := field_name(path)) else ''}{what}"
        for line, path, what in problems
    )


def field_name(path: Path) -> str:
    """Return the path as people write it, such as `agents[0].types`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(
        "."
    )


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """Return the line of a field, or of the innermost existing field around it."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _complaint(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind = error["type"]
    stem = kind.removesuffix("_type").removesuffix("_parsing")
    if kind in _COMPLAINTS:
        return _COMPLAINTS[kind](error, model)
    if kind in _LIMITS:
        template, limit = _LIMITS[kind]
        return template.format(limit=error["ctx"][limit], given=repr(error["input"]))
    if stem in _TYPE_WORDS and stem != kind:
        return f"must be {_TYPE_WORDS[stem]}, not {error['input']!r}"
    return str(error["msg"]).removeprefix("Value error, ")


def _unknown_field(error: ErrorDetails, model: type[BaseModel]) -> str:
    path = error["loc"]
    return "unknown field; " + _nearest(str(path[-1]), _fields(model, path[:-1]))


def _missing_field(_error: ErrorDetails, _model: type[BaseModel]) -> str:
    return "missing: it has no default"


def _unknown_word(error: ErrorDetails, _model: type[BaseModel]) -> str:
    expected = str(error["ctx"]["expected"]).replace("'", "")
    words = expected.replace(" or ", ", ").split(", ")
    near = difflib.get_close_matches(str(error["input"]), words, 1)
    hint = f"; nearest: {near[0]}" if near else ""
    return f"must be {expected}, not {error['input']!r}{hint}"


_COMPLAINTS: Mapping[str, Callable[[ErrorDetails, type[BaseModel]], str]] = {
    "extra_forbidden": _unknown_field,
    "missing": _missing_field,
    "literal_error": _unknown_word,
}
"""Complaints by the type of pydantic's error."""


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"nearest: {near[0]}" if near else f"known: {', '.join(known)}"


def _fields(model: type[BaseModel], path: Path) -> list[str]:
    """The names of the fields of the model to which `path` leads."""
    current: object = model
    for part in path:
        if isinstance(part, str) and _is_model(current):
            field = current.model_fields.get(part)
            current = field.annotation if field else None
        current = _unwrap(current)
    return list(current.model_fields) if _is_model(current) else []


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unwrap(annotation: object) -> object:
    """The model in `Model | None` or `tuple[Model, ...]`."""
    if typing.get_origin(annotation) not in {tuple, list, types.UnionType, typing.Union}:
        return annotation
    arguments = [item for item in typing.get_args(annotation) if item not in {type(None), Ellipsis}]
    return _unwrap(arguments[0]) if arguments else None
