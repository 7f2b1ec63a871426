"""Operators' credentials on a port: the file of accepted tokens, and which requests need one.

The file is the access document (`mesaform.common.access`), which another process replaces. Without
a file, or with one that cannot be read, no token is accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from mesaform.common.access import AccessDocument, is_operator, parse_access

log = structlog.get_logger("mesaform.http")

FILE_VARIABLE = "MESAFORM_ACCESS_FILE"
"""Path of the access document."""
REQUIRED_VARIABLE = "MESAFORM_ACCESS_REQUIRED"
"""`1`: operators' requests need a token."""
CHECK_INTERVAL_S = 1.0
NOBODY = AccessDocument()


class AccessFile:
    """The access document in a file, read again when the file changes.

    Args:
        path: the file.
        monotonic: clock of the interval between two looks at the file.

    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._checked_at: float | None = None
        self._version: tuple[int, int, int] | None = None
        self._document = NOBODY

    def document(self) -> AccessDocument:
        """The present document; an empty one without a file."""
        now = self._monotonic()
        if self._checked_at is None or now - self._checked_at >= CHECK_INTERVAL_S:
            self._checked_at = now
            self._refresh()
        return self._document

    def is_operator(self, request: web.BaseRequest) -> bool:
        """Whether a request has an operator's credential."""
        return is_operator(self.document().tokens, request.headers.get("Authorization"))

    def _refresh(self) -> None:
        try:
            facts = self._path.stat()
            version = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if version != self._version:
                self._document = parse_access(self._path.read_bytes())
                self._version = version
        except FileNotFoundError:
            self._document, self._version = NOBODY, None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("access_file_unreadable", path=str(self._path), error=str(error))
            self._document, self._version = NOBODY, None


@dataclass(frozen=True, slots=True)
class Access:
    """Access of a process: the document, and whether operators need a token."""

    file: AccessFile
    is_required: bool


def access_from(environment: Mapping[str, str]) -> Access | None:
    """The access of an environment; None where it names no file."""
    path = environment.get(FILE_VARIABLE, "")
    if not path:
        return None
    return Access(AccessFile(Path(path)), environment.get(REQUIRED_VARIABLE) == "1")


@dataclass(frozen=True, slots=True)
class PortAccess:
    """Which requests of a port need an operator's credential.

    Attributes:
        access: of the process; None: none do.
        is_open: whether a request needs none, as health checks, or because its handler asks for
            another proof.

    """

    access: Access | None
    is_open: Callable[[web.BaseRequest], bool]

    def admits(self, request: web.BaseRequest) -> bool:
        """Whether the request may be handled."""
        if self.access is None or not self.access.is_required:
            return True
        return self.is_open(request) or self.access.file.is_operator(request)


def paths(*names: str) -> Callable[[web.BaseRequest], bool]:
    """Tells requests of exactly these paths."""
    return lambda request: request.raw_path.partition("?")[0] in names
