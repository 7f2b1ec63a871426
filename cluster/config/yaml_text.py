"""From the text of a cluster file to data, and from pydantic's complaints to lines that a person can act on.

Knows YAML and pydantic models in general, nothing of clusters: the model comes in as an argument.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

Path = tuple[str | int, ...]
Problem = tuple[int, Path, str]  # line, field, complaint

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
_ERROR_WORDS = {
    "greater_than": ("must be more than {gt}", "gt"),
    "greater_than_equal": ("must be at least {ge}", "ge"),
    "less_than": ("must be less than {lt}", "lt"),
    "less_than_equal": ("must be at most {le}", "le"),
    "too_short": ("needs at least {min_length}", "min_length"),
}


class BrokenYaml(Exception):
    """The text is not YAML, or names a key twice. `problems` has a line for each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def parse(text: str) -> tuple[Any, dict[Path, int]]:
    """The data of a YAML text, and the line (from 1) of every field and item.

    Raises:
        BrokenYaml: it cannot be read; nothing of it is evaluated.

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
    """Note the line of everything below a node; yields keys that are named twice."""
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


def explain(errors: list[Any], lines: Mapping[Path, int], model: type[BaseModel]) -> list[Problem]:
    """The error details of pydantic as problems, in the order of the file."""
    problems = [
        (_line(error["loc"], lines), _field(error["loc"]), _complaint(error, model))
        for error in errors
        if not _follows(error, errors)
    ]
    return sorted(problems, key=lambda problem: problem[0])


def _field(path: Path) -> Path:
    """Where a person would look: pydantic adds `[key]` where a mapping's key is wrong."""
    return path[:-1] if path and path[-1] == "[key]" else path


def _follows(error: Mapping[str, Any], errors: list[Any]) -> bool:
    """Whether a list is too short only because its items are wrong."""
    path = error["loc"]
    return error["type"] == "too_short" and any(
        other["loc"][: len(path)] == path and other["loc"] != path for other in errors
    )


def render(problems: list[Problem], file: str) -> str:
    """A line for each problem: `cluster.yaml:12: agents[0].typs: unknown field; nearest: types`."""
    return "\n".join(
        f"{file}:{line}: {f'{field}: ' if (field := field_name(path)) else ''}{what}"
        for line, path, what in problems
    )


def field_name(path: Path) -> str:
    """`agents[0].types`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(
        "."
    )


def _line(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of a field, or of what it would be in."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _complaint(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, path, given = error["type"], tuple(error["loc"]), error["input"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown field; " + _nearest(str(path[-1]), _fields(model, path[:-1]))
    if kind == "missing":
        return "missing: it has no default"
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
        names = expected.replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(str(given), names, 1)
        return f"must be {expected}, not {given!r}" + (f"; nearest: {near[0]}" if near else "")
    if kind in _ERROR_WORDS:
        words, key = _ERROR_WORDS[kind]
        return words.format(**{key: context[key]}) + (
            "" if kind == "too_short" else f", not {given!r}"
        )
    stem = kind.removesuffix("_type").removesuffix("_parsing")
    if stem in _TYPE_WORDS and stem != kind:
        return f"must be {_TYPE_WORDS[stem]}, not {given!r}"
    return str(error["msg"]).removeprefix("Value error, ")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"nearest: {near[0]}" if near else f"known: {', '.join(known)}"


def _fields(model: type[BaseModel], path: Path) -> list[str]:
    """The names of the fields of the model that `path` leads to."""
    here: Any = model
    for part in path:
        if isinstance(part, str) and isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(part)
            here = field.annotation if field else None
        here = _unwrap(here)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _unwrap(annotation: Any) -> Any:
    """The model in `Model | None` or `tuple[Model, ...]`."""
    origin = typing.get_origin(annotation)
    if origin in {tuple, list, types.UnionType, typing.Union}:
        return next(
            (
                _unwrap(item)
                for item in typing.get_args(annotation)
                if item not in {type(None), Ellipsis}
            ),
            None,
        )
    return annotation
