"""Parameters of the query, decoded within bounds. Depends on aiohttp."""

from __future__ import annotations

import re

from aiohttp import web

from mesaform.http.errors import BadRequest

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)


def integer(
    request: web.Request,
    name: str,
    default: int,
    *,
    minimum: int = INT64_MIN,
    maximum: int = INT64_MAX,
) -> int:
    """The whole number of a parameter; the default without one, or with an empty one.

    Raises:
        BadRequest: it is not a whole number, or out of bounds.

    """
    text = request.query.get(name, "")
    if not text:
        return default
    value = int(text) if _WHOLE.fullmatch(text) else None
    if value is None:
        raise BadRequest(f"Failed to parse {name}: '{text[:64]}' is not a number of 64 bits")
    if not minimum <= value <= maximum:
        raise BadRequest(f"Failed to parse {name}: {value} is not in {minimum} to {maximum}")
    return value
