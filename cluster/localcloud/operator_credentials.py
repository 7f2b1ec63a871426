"""The secrets of a local cloud's owner: the operator's AWS key and the token of its own routes.

They are in `credentials.json`, which only the owner can read. Neither is in the environment of a
machine: a machine has the credentials of its role. Needs neither moto nor aiohttp.
"""

from __future__ import annotations

import secrets

import msgspec

from mesaform.common.errors import MissingPrerequisite
from mesaform.common.files import PRIVATE_FILE_MODE
from mesaform.common.record_files import peek_record, read_record, write_record
from mesaform.common.records import Codec, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.localcloud.layout import Layout

ACCESS_KEY_ID = "local"
"""The operator's access key id: its form is not AWS's, so that AWS never accepts it."""
KIND = "local-credentials"


class OperatorCredentials(msgspec.Struct, frozen=True):
    """The operator's AWS key, and the token of the routes below `/_mesaform/`."""

    access_key_id: str
    secret_access_key: str
    control_token: str


CREDENTIALS = Codec("localcloud.credentials", OperatorCredentials)


def ensure_credentials(layout: Layout) -> OperatorCredentials:
    """The credentials, made on first use. The caller holds the local cloud's lock.

    Raises:
        OSError: the file cannot be read or written.

    """
    known = read_record(layout.credentials, CREDENTIALS, KIND, SetAsideLog())
    if isinstance(known, OperatorCredentials):
        return known
    secret, token = secrets.token_urlsafe(30), secrets.token_urlsafe(30)
    credentials = OperatorCredentials(ACCESS_KEY_ID, secret, token)
    write_record(layout.credentials, CREDENTIALS, credentials, mode=PRIVATE_FILE_MODE)
    return credentials


def read_credentials(layout: Layout) -> OperatorCredentials:
    """The credentials of a local cloud that was started.

    Raises:
        MissingPrerequisite: they cannot be read.

    """
    try:
        known = peek_record(layout.credentials, CREDENTIALS)
    except OSError as error:
        raise _unavailable(layout, error.strerror or str(error)) from error
    if known is None or isinstance(known, Unreadable):
        raise _unavailable(layout, str(known or "there is no such file"))
    return known


def _unavailable(layout: Layout, reason: str) -> MissingPrerequisite:
    return MissingPrerequisite(
        f"the credentials of the local cloud cannot be read: {reason}",
        where=str(layout.credentials),
        fix="start it again: mesaform local stop, then mesaform local start",
    )
