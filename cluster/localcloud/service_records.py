"""Records of one AWS service: its backends in all accounts and regions as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import moto
import msgspec
from moto.core.base_backend import BaseBackend

from mesaform.common.errors import MesaformError
from mesaform.common.json_types import Json
from mesaform.common.records import Codec, Problem, Unreadable
from mesaform.localcloud.account_record import ACCOUNT_LIMIT_BYTES
from mesaform.localcloud.records.classes import RecordError, find_class, initial_attributes
from mesaform.localcloud.records.decoder import Decoder, Restoration
from mesaform.localcloud.records.encoder import Encoder, Substitution

Backends = Mapping[str, Mapping[str, object]]
"""Backends by account and region; moto's `BackendDict` is one."""


class Attributes(Substitution, Restoration, Protocol):
    """Records and restores the attributes of a class that cannot be recorded as they are."""


class ServiceDocument(msgspec.Struct, frozen=True):
    """A service's records.

    `classes` has for each recorded class the attributes that its constructor may set; `accounts`
    is the node of the backends by account and region; `records` is the table of objects; `moto` is
    the version that wrote it, empty in records from before this field.
    """

    classes: dict[str, list[str]]
    accounts: msgspec.Raw
    records: msgspec.Raw
    moto: str = ""


SERVICE_SCHEMA = "localcloud.service"
SERVICE = Codec(SERVICE_SCHEMA, ServiceDocument, limit_bytes=ACCOUNT_LIMIT_BYTES)
"""Version 0 has no header and no `moto`."""


class ServiceCodec:
    """Encodes and decodes services. `special` maps classes to the keeper of their attributes."""

    def __init__(self, special: Mapping[type, Attributes]) -> None:
        self._special = special

    def encode(self, backends: Backends) -> bytes:
        """The document of a service.

        Raises:
            RecordError: a value of the service cannot be recorded.

        """
        encoder = Encoder(self._special)
        try:
            return self._encode(encoder, backends)
        except (ValueError, TypeError, AttributeError, RecursionError, MesaformError) as error:
            raise RecordError(f"a value cannot be recorded: {error!r}") from error

    def _encode(self, encoder: Encoder, backends: Backends) -> bytes:
        accounts = encoder.encode(
            {account: dict(regions.items()) for account, regions in backends.items()}
        )
        return SERVICE.encode(
            ServiceDocument(
                classes={
                    name: sorted(initial_attributes(kind)) for kind, name in encoder.classes.items()
                },
                accounts=msgspec.Raw(msgspec.json.encode(accounts)),
                records=msgspec.Raw(msgspec.json.encode(encoder.records)),
                moto=moto.__version__,
            )
        )

    def decode(self, document: bytes) -> Backends:
        """The backends of a document; of another moto than this one the classes are compared first.

        Raises:
            RecordError: the document is damaged or newer, or moto's classes have changed too much.

        """
        service = SERVICE.decode(document)
        if isinstance(service, Unreadable):
            raise RecordError(service.detail, is_newer=service.problem is Problem.NEWER)
        try:
            accounts: Json = msgspec.json.decode(service.accounts)
            records: list[Json] = msgspec.json.decode(service.records, type=list)
            if service.moto != moto.__version__:
                _require_known_attributes(service.classes)
            return _checked(Decoder(records, self._special).decode(accounts))
        except MALFORMED as error:
            raise RecordError(f"{_writer(service)}: {error or repr(error)}") from error


MALFORMED = (
    RecordError,
    msgspec.MsgspecError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
)
"""What a damaged document makes the decoder raise."""


def _writer(service: ServiceDocument) -> str:
    return f"recorded with moto {service.moto or 'of an unknown version'}"


def _require_known_attributes(classes: Mapping[str, list[str]]) -> None:
    for name, recorded in classes.items():
        if missing := initial_attributes(find_class(name)) - set(recorded):
            raise RecordError(f"the installed moto's {name} also has {', '.join(sorted(missing))}")


def _checked(accounts: object) -> Backends:
    if not isinstance(accounts, dict) or not all(
        isinstance(part, dict) for part in accounts.values()
    ):
        raise RecordError("the accounts of a service are not a mapping of mappings")
    for part in accounts.values():
        if not all(isinstance(backend, BaseBackend) for backend in part.values()):
            raise RecordError("an account of a service has a part that is no backend")
    return accounts
