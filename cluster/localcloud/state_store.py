"""The account on disk: moto's backends are saved after each mutating call and loaded at a start.

The format is in docs/adr/0021-local-account-records.md: one JSON file with the records of all
services, replaced atomically, so that a crash leaves the account before or after a call. Contents
of S3 objects are files of their own (`object_files`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import moto
import msgspec
import structlog
from moto.core.base_backend import BackendDict
from moto.core.model_instances import model_data
from moto.s3.models import FakeKey

from mesaform.common.files import write_atomically
from mesaform.localcloud.layout import PRIVATE_FILE_MODE
from mesaform.localcloud.moto_patches.used_services import UsedServices
from mesaform.localcloud.object_files import ObjectFiles
from mesaform.localcloud.records.classes import RecordError
from mesaform.localcloud.service_records import Backends, ServiceCodec

log = structlog.get_logger(__name__)

FORMAT = "mesaform local account"
SCHEMA = 1
SET_ASIDE_PREFIX = "account-unreadable-"
NOT_SAVED = frozenset({"moto_api"})
"""moto's control of itself, which the product does not use."""


class Header(msgspec.Struct, frozen=True):
    """What every schema of the account file has."""

    format: str
    schema: int


class AccountFile(msgspec.Struct, frozen=True):
    """The account file of schema 1. `moto` is the version whose classes the records name."""

    format: str
    schema: int
    moto: str
    services: dict[str, msgspec.Raw]


class AccountStore:
    """Saves and restores everything that moto knows. The caller holds the endpoint's lock.

    Attributes:
        failures: why a service could not be saved, by service.
        set_aside: what happened to an account file that could not be read; empty if none.
        last_save_s, slowest_save_s: how long saving took, in seconds.

    """

    def __init__(self, folder: Path, used: UsedServices) -> None:
        self._file = folder / "account.json"
        self._used = used
        self._objects = ObjectFiles(folder / "objects")
        self.codec = ServiceCodec({FakeKey: self._objects})
        self._documents: dict[str, bytes] = {}
        self._digests: dict[str, bytes] = {}
        self.failures: dict[str, str] = {}
        self.set_aside = ""
        self.last_save_s = 0.0
        self.slowest_save_s = 0.0

    def save(self, *changed: str) -> None:
        """Save the services that were used since the last save, and those named."""
        started = time.perf_counter()
        names = self._used.take() | set(changed)
        if self._encode(names - NOT_SAVED):
            self._write()
        for models in model_data.values():  # moto lists every object ever made, for its own tests
            for model in models.values():
                model.instances_tracked.clear()
        self.last_save_s = time.perf_counter() - started
        self.slowest_save_s = max(self.slowest_save_s, self.last_save_s)

    def forget_reads(self) -> None:
        """Declare that the services used since the last save were only read."""
        self._used.forget()

    def restore(self, backends_of: Callable[[str], Mapping[str, dict[str, object]]]) -> list[str]:
        """Load the account file into moto; the names of its services.

        A file that cannot be read is renamed, `set_aside` says so, and the account is empty.
        """
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return []
        try:
            services = self._decode(data)
        except (RecordError, OSError) as error:
            self._set_aside(str(error))
            return []
        for service, accounts in services.items():
            put_backends(backends_of(service), accounts)
        if not any(self._file.parent.glob(f"{SET_ASIDE_PREFIX}*")):  # those need their contents
            self._objects.remove_unread()
        self._used.take()
        return sorted(services)

    def _encode(self, names: Iterable[str]) -> bool:
        """Encode services; whether any document changed."""
        has_changed = False
        services = BackendDict._instances  # noqa: SLF001 - moto's list of all services
        by_name = {backends.service_name: backends for backends in services}
        for name in names:
            try:
                document = self.codec.encode(by_name[name])
            except RecordError as error:  # a service that the product does not use
                if name not in self.failures:
                    log.warning("account.not_saved", service=name, error=str(error))
                self.failures[name] = str(error)
                continue
            self.failures.pop(name, None)
            digest = hashlib.blake2b(document, digest_size=16).digest()
            if self._digests.get(name) != digest:
                self._digests[name] = digest
                self._documents[name] = document
                has_changed = True
        return has_changed

    def _write(self) -> None:
        services = {name: msgspec.Raw(document) for name, document in self._documents.items()}
        account = AccountFile(FORMAT, SCHEMA, moto.__version__, services)
        write_atomically(self._file, msgspec.json.encode(account), mode=PRIVATE_FILE_MODE)

    def _decode(self, data: bytes) -> dict[str, Backends]:
        account = read_account_file(data)
        same_moto = account.moto == moto.__version__
        if not same_moto:
            log.info("account.other_moto", recorded=account.moto, installed=moto.__version__)
        services = {}
        for name, raw in account.services.items():
            try:
                services[name] = self.codec.decode(bytes(raw), same_moto=same_moto)
            except RecordError as error:
                raise RecordError(
                    f"service {name}, recorded with moto {account.moto}: {error}"
                ) from error
            self._documents[name] = bytes(raw)
        return services

    def _set_aside(self, reason: str) -> None:
        """Rename the account file; the contents of S3 objects stay for it."""
        self._documents.clear()
        target = self._file.with_name(f"{SET_ASIDE_PREFIX}{time.strftime('%Y%m%dT%H%M%S')}.json")
        self._file.replace(target)
        self.set_aside = f"{self._file} cannot be read: {reason}. It is now {target.name}"
        log.error("account.set_aside", file=str(target), reason=reason)


def read_account_file(data: bytes) -> AccountFile:
    """Read an account file of any schema that this version knows.

    Raises:
        RecordError: the file is damaged, of another format, or of a newer schema.

    """
    try:
        header = msgspec.json.decode(data, type=Header)
        if header.format != FORMAT:
            raise RecordError(f"its format is {header.format!r}, not {FORMAT!r}")
        if header.schema != SCHEMA:
            raise RecordError(f"its schema is {header.schema}; this version reads schema {SCHEMA}")
        return msgspec.json.decode(data, type=AccountFile)
    except msgspec.MsgspecError as error:
        raise RecordError(str(error)) from error


def put_backends(target: Mapping[str, dict[str, object]], accounts: Backends) -> None:
    """Replace backends of moto's without running moto's own `__setitem__`."""
    for account, regions in accounts.items():
        for region, backend in regions.items():
            dict.__setitem__(target[account], region, backend)
