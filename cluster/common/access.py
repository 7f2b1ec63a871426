"""The access document of a cluster: tokens of operators, and credentials and ACLs of frameworks.

`mesaform up` stores it as a SecureString of SSM; masters keep a copy in a file (docs/adr/0045).
Pure.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from typing import Annotated

import msgspec

OPERATOR = "operator"
"""The principal of operators: the user of HTTP Basic, whose password is the token."""
TOKEN_BYTES = 32
TOKEN_HINT = "the operator's token is needed; see it with: mesaform token show"  # noqa: S105
CHALLENGE = {"WWW-Authenticate": 'Basic realm="mesaform", Bearer realm="mesaform"'}

Token = Annotated[str, msgspec.Meta(min_length=32, max_length=128, pattern=r"^[!-~]+$")]


class FrameworkCredential(msgspec.Struct, frozen=True):
    """A principal and its secret, with the names of Mesos' credentials file."""

    principal: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^:\s]+$")]
    secret: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class AccessDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who may do what.

    Attributes:
        tokens: those that are accepted. Clients send the first. While one replaces another there
            are two.
        credentials: of frameworks.
        acls: the value of Mesos' flag `--acls`.

    """

    tokens: tuple[Token, ...] = ()
    credentials: tuple[FrameworkCredential, ...] = ()
    acls: dict[str, object] = {}


def parse_access(text: str | bytes) -> AccessDocument:
    """Parse the document.

    Raises:
        msgspec.DecodeError: it is not such a document.

    """
    return msgspec.json.decode(text, type=AccessDocument)


def access_text(document: AccessDocument) -> str:
    """The document as it is stored."""
    return msgspec.json.encode(document).decode()


def basic_header(user: str, password: str) -> str:
    """The value of `Authorization` for HTTP Basic."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def basic_login(header: str | None) -> tuple[str, str]:
    """User and password of `Basic <base64>`; both are empty for another header or none."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    user, _, password = text.partition(":")
    return user, password


def is_operator(tokens: Iterable[str], header: str | None) -> bool:
    """Whether `Authorization` proves an operator: by a bearer token, or by HTTP Basic.

    Every token is compared in constant time.
    """
    scheme, _, bearer = (header or "").partition(" ")
    if scheme.lower() == "bearer":
        sent = bearer.strip()
    else:
        user, sent = basic_login(header)
        if user != OPERATOR:
            return False
    return equals_any(tokens, sent)


def equals_any(secrets: Iterable[str], sent: str) -> bool:
    """Whether a text is one of the secrets; the time does not tell which, or how much of it."""
    matches = [
        hmac.compare_digest(secret.encode(), sent.encode("utf-8", "surrogatepass"))
        for secret in secrets
    ]
    return any(matches)
