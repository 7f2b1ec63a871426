"""The error of a request, and its rendering in the format of a port. Pure."""

from __future__ import annotations

import http
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Content of an error answer."""

    content: bytes
    content_type: str


ErrorRenderer: TypeAlias = Callable[[int, str], ErrorBody]
"""Renders the body of an error from its status and its message."""


@dataclass(eq=False, slots=True)
class BadRequest(Exception):
    """The caller's request is refused with this status and message.

    Args:
        message: says what is wrong; it becomes the body, in the port's format.
        status: 400 to 499.
        headers: further headers of the answer.
        closes: whether the connection is closed after the answer.

    """

    message: str
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False

    def __str__(self) -> str:
        return self.message


def phrase(status: int) -> str:
    """The reason phrase of a status, such as `Not Found`."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def default_message(status: int) -> str:
    """The message of an error without one, as Mesos words it: `404 Not Found.`."""
    return f"{status} {phrase(status)}."


def method_message(received: str, allowed: frozenset[str]) -> str:
    """The message of a 405, as Mesos words it."""
    expected = ", ".join(f"'{method}'" for method in sorted(allowed))
    return (
        f"{default_message(405)} Expecting one of {{ {expected} }}, but received '{received[:32]}'."
    )


def plain_text(_status: int, message: str) -> ErrorBody:
    """The message itself, as Mesos answers."""
    return ErrorBody(message.encode("utf-8", "replace"), "text/plain; charset=utf-8")


def json_member(name: str) -> ErrorRenderer:
    """A renderer of an object whose member `name` is the message."""

    def render(_status: int, message: str) -> ErrorBody:
        text = message.encode("utf-8", "replace").decode()
        return ErrorBody(msgspec.json.encode({name: text}), "application/json")

    return render


json_message = json_member("message")
"""Marathon's format, which ports without one of their own have as well: `{"message": …}`."""
