"""The error tree. Every error a person can meet says what happened, where, and what to do next.

Adapters translate the cloud's errors into this tree; no other code parses error messages.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every verb of `mesaform`."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    MISSING_PREREQUISITE = 3
    BUSY = 4
    NOT_OWNED = 5
    INTERRUPTED = 130


class MesaformError(Exception):
    """Root of all errors: `what` happened, `where` (file, field, address), `fix` (next step)."""

    exit_code: Exit = Exit.FAILED

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.fix}" if self.fix else text


class BadInput(MesaformError):
    """A person's text cannot be used; nothing was created."""

    exit_code = Exit.BAD_INPUT


class MissingPrerequisite(MesaformError):
    """A program, a credential or an image that must exist does not."""

    exit_code = Exit.MISSING_PREREQUISITE


class Busy(MesaformError):
    """Another `mesaform` holds what is needed: the cluster's lock, a port, an address."""

    exit_code = Exit.BUSY


class NotOwned(MesaformError):
    """The thing exists and is not this cluster's; it is left alone."""

    exit_code = Exit.NOT_OWNED


class CloudError(MesaformError):
    """The cloud refused or failed."""


class Retryable(CloudError):
    """The call may succeed after `after_s` seconds: throttling, server error, broken connection."""

    def __init__(self, what: str, *, after_s: float, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.after_s = after_s


class Permanent(CloudError):
    """The same call will fail again: a wrong argument, a missing right."""


class NotAuthenticated(Permanent):
    """The cloud does not know the caller: credentials are missing, expired or not valid.

    Credentials of an instance profile may arrive later.
    """


class CredentialsExpired(NotAuthenticated):
    """The caller's temporary credentials have expired. The same call succeeds with new ones."""

    exit_code = Exit.MISSING_PREREQUISITE


class NotFound(Permanent):
    """The thing named does not exist (any more)."""


class InsufficientCapacity(CloudError):
    """The cloud has no machine of this offering now.

    `offering` is `type/zone/capacity`, such as `m5.large/us-east-1a/spot`.
    """

    def __init__(self, what: str, *, offering: str, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.offering = offering


class LeadershipLost(MesaformError):
    """Another leader wrote since. The process that gets this error must stop acting."""


class ClusterUnreachable(MesaformError):
    """No elected master answers."""
