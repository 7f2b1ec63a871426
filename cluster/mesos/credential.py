"""The credential of a framework: a principal and its secret, sent as HTTP Basic authentication."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mesaform.common.errors import BadInput


@dataclass(frozen=True, slots=True)
class Credential:
    """Principal and secret, as in the master's credentials file."""

    principal: str
    secret: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP header that proves the principal."""
        login = base64.b64encode(f"{self.principal}:{self.secret}".encode()).decode()
        return {"Authorization": f"Basic {login}"}


def credential_from(environment: Mapping[str, str], prefix: str) -> Credential | None:
    """The credential of `<prefix>PRINCIPAL` and the file `<prefix>SECRET_FILE`; None without them.

    Raises:
        BadInput: the file cannot be read.

    """
    principal = environment.get(f"{prefix}PRINCIPAL", "")
    path = environment.get(f"{prefix}SECRET_FILE", "")
    if not principal or not path:
        return None
    try:
        return Credential(principal, Path(path).read_text(encoding="utf-8").strip())
    except OSError as error:
        raise BadInput(
            f"cannot be read: {error.strerror}", where=f"{prefix}SECRET_FILE={path}"
        ) from None
