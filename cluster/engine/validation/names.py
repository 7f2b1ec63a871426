"""Rules for ids and roles."""

from __future__ import annotations

from mesaform.engine.validation.rules import first_of, first_true
from mesaform.mesos.values import MAX_ID_LENGTH

UUID_BYTES = 16
_CONTROL = frozenset([*map(chr, range(32)), "\x7f"])
_ROLE_SPACE = frozenset("\t\n\v\f\r \x7f")


def invalid_id(value: str) -> str | None:
    """Why a text is not an id. Ids name folders, so they are not paths."""
    if not value:
        return "ID must not be empty"
    if len(value.encode("utf-8", "surrogatepass")) > MAX_ID_LENGTH:
        return f"ID must not be greater than {MAX_ID_LENGTH} characters"
    if value in {".", ".."}:
        return f"'{value}' is disallowed"
    if has_control_character(value) or "/" in value or "\\" in value:
        return f"'{value}' contains invalid characters"
    return None


def has_control_character(text: str) -> bool:
    """Whether a text has one of the control characters of ASCII."""
    return not _CONTROL.isdisjoint(text)


def invalid_uuid(value: bytes) -> str | None:
    """Why bytes are not a UUID. Mesos takes the versions 1 to 5 of RFC 4122."""
    is_valid = len(value) == UUID_BYTES and 1 <= value[6] >> 4 <= 5
    return None if is_valid else "Not a valid UUID"


def invalid_role(role: str) -> str | None:
    """Why a text is not the name of a role."""
    if role == "*":
        return None
    return first_true(
        (role.startswith("/"), f"Role '{role}' cannot start with a slash"),
        (role.endswith("/"), f"Role '{role}' cannot end with a slash"),
        ("//" in role, f"Role '{role}' cannot contain two adjacent slashes"),
        (not role, "Role names cannot be the empty string"),
    ) or first_of(_invalid_component(role, component) for component in role.split("/"))


def _invalid_component(role: str, component: str) -> str | None:
    if component in {".", "..", "*"}:
        return f"Role '{role}' cannot include '{component}' as a component"
    if component.startswith("-"):
        return f"Role component '{component}' is invalid because it starts with a dash"
    if not _ROLE_SPACE.isdisjoint(component):
        return (
            f"Role component '{component}' is invalid because it contains backspace or whitespace"
        )
    return None


def is_subrole(role: str, ancestor: str) -> bool:
    """Whether a role is below another one in the hierarchy."""
    return role.startswith(ancestor + "/")
