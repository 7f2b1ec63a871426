"""The record of the whole account: the records of all services in one document. Needs no moto."""

from __future__ import annotations

import msgspec

from mesaform.common.records import Codec, Problem, Unreadable

SCHEMA = "localcloud.account"
ACCOUNT_LIMIT_BYTES = 512 * 1024 * 1024
LEGACY_FORMAT = "mesaform local account"
LEGACY_SCHEMA = 1
"""The number of the only format before records had the common header."""


class Account(msgspec.Struct, frozen=True):
    """The account. `moto` is the version that wrote it; each service is a record of its own."""

    moto: str
    services: dict[str, msgspec.Raw]


class _LegacyHeader(msgspec.Struct, frozen=True):
    format: str
    schema: int


ACCOUNT = Codec(SCHEMA, Account, version=2, limit_bytes=ACCOUNT_LIMIT_BYTES)
"""Version 1 was `LEGACY_SCHEMA`, whose header has another form."""


def decode_account(data: bytes) -> Account | Unreadable:
    """The account of any version, or why it cannot be read. Never raises."""
    try:
        header = msgspec.json.decode(data, type=_LegacyHeader)
    except msgspec.ValidationError:
        return ACCOUNT.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return _unreadable(Problem.UNREADABLE, str(error))
    if header.format != LEGACY_FORMAT:
        return _unreadable(Problem.UNREADABLE, f"its format is {header.format[:80]!r}")
    if header.schema != LEGACY_SCHEMA:
        return _unreadable(
            Problem.NEWER, f"its schema is {header.schema}; this version reads {LEGACY_SCHEMA}"
        )
    try:
        return msgspec.json.decode(data, type=Account)
    except msgspec.MsgspecError as error:
        return _unreadable(Problem.UNREADABLE, str(error))


def _unreadable(problem: Problem, detail: str) -> Unreadable:
    return Unreadable(SCHEMA, problem, detail)
