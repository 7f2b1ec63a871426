"""Authentication of frameworks: HTTP Basic with the credentials file of Apache Mesos.

A framework may act as a principal that has a credential only with its secret. Frameworks without a
principal, or with one that has no credential, need none unless `MESOS_AUTHENTICATE_HTTP_FRAMEWORKS`
is true. Texts and statuses are those of Mesos (src/master/http.cpp, src/master/validation.cpp,
libprocess authenticator.cpp).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mesaform.common.errors import BadInput

REALM = "mesos-master-scheduler"
CHALLENGE = {"WWW-Authenticate": f'Basic realm="{REALM}"'}


class Unauthenticated(Exception):
    """The call needs a valid `Authorization` header; the answer is 401."""


class _Credential(msgspec.Struct):
    principal: str
    secret: str


class _File(msgspec.Struct):
    credentials: list[_Credential]


@dataclass(frozen=True, slots=True)
class FrameworkAuthenticator:
    """Decides as which principal a call is made. `secrets` maps principals to their secrets."""

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_required: bool = False

    def principal_of(self, authorization: str | None) -> str | None:
        """The principal that a header proves; None where there is none, and none is required.

        Raises:
            Unauthenticated: a secret is wrong, or a proof is missing and required.

        """
        principal, secret = _basic(authorization)
        known = self.secrets.get(principal)
        if known is None:
            if self.is_required:
                raise Unauthenticated
            return None
        if not hmac.compare_digest(known.encode(), secret.encode()):
            raise Unauthenticated
        return principal

    def check(self, proven: str | None, claimed: str | None) -> str | None:
        """Why a call as `proven` cannot be of a framework of `claimed`; None when it can.

        Raises:
            Unauthenticated: the claimed principal has a credential, and nothing proves it.

        """
        if proven is None:
            if claimed in self.secrets:
                raise Unauthenticated
            return None
        if claimed is None or proven == claimed:
            return None
        return (
            f"Authenticated principal '{proven}' does not match principal '{claimed}' "
            "set in `FrameworkInfo`"
        )


def _basic(header: str | None) -> tuple[str, str]:
    """User and password of `Basic <base64>`; both are empty for another header or none."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme != "Basic":
        return "", ""
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    user, _, password = text.partition(":")
    return user, password


def authenticator_from(environment: Mapping[str, str]) -> FrameworkAuthenticator:
    """The authenticator of `MESOS_CREDENTIALS` and `MESOS_AUTHENTICATE_HTTP_FRAMEWORKS`.

    Raises:
        BadInput: the file cannot be read, or authentication is required without one.

    """
    is_required = environment.get("MESOS_AUTHENTICATE_HTTP_FRAMEWORKS", "false").lower() == "true"
    location = environment.get("MESOS_CREDENTIALS", "")
    if location:
        return FrameworkAuthenticator(_read(location), is_required)
    if is_required:
        raise BadInput(
            "needs credentials",
            where="MESOS_AUTHENTICATE_HTTP_FRAMEWORKS",
            fix="set MESOS_CREDENTIALS to a file",
        )
    return FrameworkAuthenticator()


def _read(location: str) -> dict[str, str]:
    path = urlsplit(location).path if location.startswith("file://") else location
    try:
        document = msgspec.json.decode(Path(path).read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise BadInput(
            f"the credentials cannot be read: {error}",
            where=f"MESOS_CREDENTIALS={location}",
            fix='write {"credentials": [{"principal": "name", "secret": "text"}]}',
        ) from None
    if any(not item.principal or not item.secret for item in document.credentials):
        raise BadInput("a principal or a secret is empty", where=f"MESOS_CREDENTIALS={location}")
    return {item.principal: item.secret for item in document.credentials}


class _Users(msgspec.Struct):
    values: list[str] = []
    type: str = "SOME"


class _RunTasks(msgspec.Struct):
    principals: _Users
    users: _Users


class _Acls(msgspec.Struct, forbid_unknown_fields=True):
    run_tasks: list[_RunTasks] = []
    permissive: bool = True


def _denies_users(rule: _RunTasks) -> bool:
    return rule.principals.type == "NONE" and rule.users.type == "SOME"


def denied_users(environment: Mapping[str, str]) -> frozenset[str]:
    """The users as whom no task may run, from `MESOS_ACLS`.

    Of Mesos' lists the embedded engine knows `run_tasks` with the principals NONE and named users.

    Raises:
        BadInput: the value is another list.

    """
    text = environment.get("MESOS_ACLS", "")
    if not text:
        return frozenset()
    try:
        acls = msgspec.json.decode(text, type=_Acls)
    except msgspec.DecodeError as error:
        raise BadInput(f"cannot be read: {error}", where="MESOS_ACLS", fix=_ACL_FORM) from None
    if not acls.permissive or not all(_denies_users(item) for item in acls.run_tasks):
        raise BadInput("has rules that the engine lacks", where="MESOS_ACLS", fix=_ACL_FORM)
    return frozenset(user for item in acls.run_tasks for user in item.users.values)


_ACL_FORM = 'write {"run_tasks": [{"principals": {"type": "NONE"}, "users": {"values": ["root"]}}]}'
