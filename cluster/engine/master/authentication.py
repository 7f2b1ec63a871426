"""Authentication of frameworks: HTTP Basic with the credentials file of Apache Mesos.

A framework may act as a principal that has a credential only with its secret. Frameworks without a
principal, or with one that has no credential, need none unless `MESOS_AUTHENTICATE_HTTP_FRAMEWORKS`
is true. Texts and statuses are those of Mesos (src/master/http.cpp, src/master/validation.cpp,
libprocess authenticator.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mesaform.common.access import (
    OPERATOR,
    AccessDocument,
    basic_login,
    equals_any,
    is_operator,
)
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
    """Decides as which principal a call is made.

    Attributes:
        secrets: principals of the credentials file, with their secrets.
        is_required: whether every framework needs a credential.
        document: the present access document, with further credentials and operators' tokens. An
            operator is the principal `operator`.

    """

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_required: bool = False
    document: Callable[[], AccessDocument] = field(default=AccessDocument, repr=False)

    def principal_of(self, authorization: str | None) -> str | None:
        """The principal that a header proves; None where there is none, and none is required.

        Raises:
            Unauthenticated: a secret is wrong, or a proof is missing and required.

        """
        if is_operator(self.document().tokens, authorization):
            return OPERATOR
        principal, secret = basic_login(authorization)
        known = self._secrets_of(principal)
        if not known:
            if self.is_required:
                raise Unauthenticated
            return None
        if not equals_any(known, secret):
            raise Unauthenticated
        return principal

    def check(self, proven: str | None, claimed: str | None) -> str | None:
        """Why a call as `proven` cannot be of a framework of `claimed`; None when it can.

        Raises:
            Unauthenticated: the claimed principal has a credential, and nothing proves it.

        """
        if proven is None:
            if self._secrets_of(claimed or ""):
                raise Unauthenticated
            return None
        if claimed is None or proven == claimed:
            return None
        return (
            f"Authenticated principal '{proven}' does not match principal '{claimed}' "
            "set in `FrameworkInfo`"
        )

    def _secrets_of(self, principal: str) -> tuple[str, ...]:
        """The secrets of a principal, of which each proves it."""
        if not principal:
            return ()
        document = self.document()
        own = (self.secrets[principal],) if principal in self.secrets else ()
        stored = (item.secret for item in document.credentials if item.principal == principal)
        return (*own, *stored, *(document.tokens if principal == OPERATOR else ()))


def authenticator_from(
    environment: Mapping[str, str], document: Callable[[], AccessDocument] = AccessDocument
) -> FrameworkAuthenticator:
    """The authenticator of `MESOS_CREDENTIALS` and `MESOS_AUTHENTICATE_HTTP_FRAMEWORKS`.

    `document` gives the present access document, if the master has one.

    Raises:
        BadInput: the file cannot be read, or authentication is required without one.

    """
    is_required = environment.get("MESOS_AUTHENTICATE_HTTP_FRAMEWORKS", "false").lower() == "true"
    location = environment.get("MESOS_CREDENTIALS", "")
    if location:
        return FrameworkAuthenticator(_read(location), is_required, document)
    if is_required and document is AccessDocument:
        raise BadInput(
            "needs credentials",
            where="MESOS_AUTHENTICATE_HTTP_FRAMEWORKS",
            fix="set MESOS_CREDENTIALS to a file",
        )
    return FrameworkAuthenticator({}, is_required, document)


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
