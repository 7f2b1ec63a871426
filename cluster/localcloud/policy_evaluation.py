"""Evaluation of IAM policies: what an action on a resource in a context is allowed by. Pure.

Implemented are Action, NotAction, Resource, NotResource and the condition operators that the
product uses. A condition with another operator never holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mesaform.common.json_types import Json, JsonObject, as_list, as_object

ALLOWED, IMPLICIT_DENY, EXPLICIT_DENY = "allowed", "implicitDeny", "explicitDeny"


@dataclass(frozen=True, slots=True)
class Request:
    """An action on a resource; `context` has the values of condition keys."""

    action: str
    resource: str
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)


def decide(documents: Iterable[JsonObject], request: Request) -> str:
    """IAM's decision: an explicit deny wins, else one allowing statement is enough."""
    decision = IMPLICIT_DENY
    for document in documents:
        for statement in _listed(document.get("Statement")):
            if not _applies(as_object(statement), request):
                continue
            if as_object(statement).get("Effect") == "Deny":
                return EXPLICIT_DENY
            decision = ALLOWED
    return decision


def _applies(statement: JsonObject, request: Request) -> bool:
    return (
        _names(statement, "Action", request.action.lower(), str.lower)
        and _names(statement, "Resource", request.resource, str)
        and all(
            _holds(operator, as_object(keys), request.context)
            for operator, keys in as_object(statement.get("Condition", {})).items()
        )
    )


def _names(statement: JsonObject, field_name: str, value: str, fold: Callable[[str], str]) -> bool:
    """Whether `Action` or `Resource` has the value, or its `Not` form lacks it."""
    if f"Not{field_name}" in statement:
        return not _matches(_listed(statement[f"Not{field_name}"]), value, fold)
    return _matches(_listed(statement.get(field_name)), value, fold)


def _matches(patterns: Sequence[Json], value: str, fold: Callable[[str], str]) -> bool:
    return any(fnmatchcase(value, fold(str(item)).replace("[", "[[]")) for item in patterns)


def _holds(operator: str, keys: JsonObject, context: Mapping[str, Sequence[str]]) -> bool:
    return all(
        _holds_for(operator, [str(item) for item in _listed(wanted)], list(context.get(key, ())))
        for key, wanted in keys.items()
    )


def _holds_for(operator: str, wanted: list[str], given: list[str]) -> bool:
    condition = _CONDITIONS.get(operator)
    return condition is not None and condition(given, wanted)


def _is_null(given: list[str], wanted: list[str]) -> bool:
    return bool(given) != (wanted == ["true"])


def _equals(given: list[str], wanted: list[str]) -> bool:
    return bool(set(given) & set(wanted))


def _is_like(given: list[str], wanted: list[str]) -> bool:
    return any(fnmatchcase(value, pattern) for value in given for pattern in wanted)


def _differs(given: list[str], wanted: list[str]) -> bool:
    return not _equals(given, wanted)


_CONDITIONS: Mapping[str, Callable[[list[str], list[str]], bool]] = {
    "ArnEquals": _equals,
    "ArnLike": _is_like,
    "Bool": _equals,
    "Null": _is_null,
    "StringEquals": _equals,
    "StringLike": _is_like,
    "StringNotEquals": _differs,
}


def _listed(value: Json) -> list[Json]:
    if value is None:
        return []
    return as_list(value) if isinstance(value, list) else [value]
