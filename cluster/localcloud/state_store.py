"""The account on disk: moto's backends are saved after each mutating call and loaded at a start.

The format is in docs/adr/0021-local-account-records.md: one record with those of all services,
replaced atomically, so that a crash leaves the account before or after a call. Contents of S3
objects are files of their own (`object_files`). A service whose record cannot be read is set aside,
and the account starts with the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import moto
import msgspec
import structlog
from moto.core.base_backend import BackendDict
from moto.core.model_instances import model_data
from moto.s3.models import FakeKey

from mesaform.common.errors import MesaformError
from mesaform.common.files import PRIVATE_FILE_MODE, write_atomically
from mesaform.common.record_files import (
    SUFFIX,
    files_set_aside,
    peek_bytes,
    set_aside_file,
)
from mesaform.common.records import Problem, Unreadable
from mesaform.common.set_aside import SetAside, SetAsideLog
from mesaform.localcloud.account_record import ACCOUNT, ACCOUNT_LIMIT_BYTES, Account, decode_account
from mesaform.localcloud.moto_patches.used_services import UsedServices
from mesaform.localcloud.object_files import ObjectFiles
from mesaform.localcloud.records.classes import RecordError
from mesaform.localcloud.service_records import SERVICE_SCHEMA, Backends, ServiceCodec

log = structlog.get_logger(__name__)

ACCOUNT_NAME = "account.json"
SERVICE_SUFFIX = ".service.json"
"""The end of the name of a service's record that was set aside, or put back by an operator."""
KIND = "local-account"
"""The kind of records that this store sets aside."""
NOT_SAVED = frozenset({"moto_api"})
"""moto's control of itself, which the product does not use."""

BackendsOf = Callable[[str], Mapping[str, dict[str, object]]]


class NotStoredError(Exception):
    """The account cannot be saved; what the call changed was taken back."""


class AccountStore:
    """Saves and restores everything that moto knows. Used in the thread that calls moto.

    `on_put_back` is called with the name of each service that went back to its record.

    Attributes:
        failures: why a service could not be saved, by service.
        storage_error: why the last save failed; empty if it succeeded.
        lost: the services that this process could not read; `account` stands for all of them.
        last_save_s, slowest_save_s: how long saving took, in seconds.

    """

    def __init__(
        self,
        folder: Path,
        used: UsedServices,
        on_put_back: Callable[[str], None] = lambda _service: None,
    ) -> None:
        self._folder = folder
        self._on_put_back = on_put_back
        self._file = folder / ACCOUNT_NAME
        self._used = used
        self._objects = ObjectFiles(folder / "objects")
        self.codec = ServiceCodec({FakeKey: self._objects})
        self._documents: dict[str, bytes] = {}
        self._digests: dict[str, bytes] = {}
        self._log = SetAsideLog()
        self.failures: dict[str, str] = {}
        self.storage_error = ""
        self.lost: list[str] = []
        self.last_save_s = 0.0
        self.slowest_save_s = 0.0

    def save(self, *changed: str) -> None:
        """Save the services that were used since the last save, and those named.

        Raises:
            NotStoredError: the file system refuses; the services are as they were before.

        """
        started = time.perf_counter()
        names = (self._used.take() | set(changed)) - NOT_SAVED
        try:
            documents = self._encode(names)
            if documents:
                self._write({**self._documents, **documents})
        except (OSError, MesaformError) as error:
            self._note_storage_error(error)
            self._put_back(names)
            raise NotStoredError(_reason(error)) from error
        self._documents.update(documents)
        self._digests.update((name, _digest(document)) for name, document in documents.items())
        for models in model_data.values():  # moto lists every object ever made, for its own tests
            for model in models.values():
                model.instances_tracked.clear()
        self.last_save_s = time.perf_counter() - started
        self.slowest_save_s = max(self.slowest_save_s, self.last_save_s)

    def forget_reads(self) -> None:
        """Declare that the services used since the last save were only read.

        What the first read of a region makes, such as its default VPC, is saved.
        """
        self._used.forget()
        if self._used.has_created:
            with contextlib.suppress(NotStoredError):  # noted; the next read makes it again
                self.save()

    def revert(self) -> None:
        """Put the services used since the last save back to their records."""
        self._put_back(self._used.take() - NOT_SAVED)

    def retry(self) -> None:
        """After a failed save: try whether the file system takes the account again."""
        if self.storage_error:
            self._write_restored()

    def restore(self, backends_of: BackendsOf) -> list[str]:
        """Load the account file into moto; the names of its services.

        What cannot be read is set aside. `lost` names it, and the account lacks it.

        Raises:
            OSError: the file system fails.

        """
        services = self._read_account()
        for name, record in self._records_put_back():
            if name in services:
                set_aside_file(self._folder / f"{name}{SERVICE_SUFFIX}")
            else:
                services[name] = record
        for service, accounts in self._decoded(services):
            put_backends(backends_of(service), accounts)
        self._write_restored()
        if not self.records_set_aside():  # those need the contents of their objects
            self._objects.remove_unread()
        self._used.take()
        return sorted(self._documents)

    def _write_restored(self) -> None:
        """Write what was restored; only then are records that were put back part of the account."""
        if not self._documents:
            return
        try:
            self._write(self._documents)
        except (OSError, MesaformError) as error:  # a full disk: `retry` writes it later
            self._note_storage_error(error)
            return
        for name in self._documents:
            (self._folder / f"{name}{SERVICE_SUFFIX}").unlink(missing_ok=True)

    def records_set_aside(self) -> list[SetAside]:
        """The records of this account that an operator has not removed or put back."""
        return list(files_set_aside(self._folder, KIND))

    def is_complete(self, service: str) -> bool:
        """Whether no record that may have this service's resources is set aside."""
        prefixes = (f"{ACCOUNT_NAME}{SUFFIX}", f"{service}{SERVICE_SUFFIX}{SUFFIX}")
        return not any(item.name.startswith(prefixes) for item in self.records_set_aside())

    def _read_account(self) -> dict[str, bytes]:
        """The record of each service in the account file, not yet decoded."""
        data = peek_bytes(self._file, ACCOUNT_LIMIT_BYTES)
        if data is None:
            return {}
        account = decode_account(data)
        if isinstance(account, Unreadable):
            set_aside_file(self._file)
            self._log.report(KIND, str(self._file), account)
            self.lost.append("account")
            return {}
        if account.moto != moto.__version__:
            log.info("account.other_moto", recorded=account.moto, installed=moto.__version__)
        return {name: bytes(record) for name, record in account.services.items()}

    def _records_put_back(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self._folder.glob(f"*{SERVICE_SUFFIX}")):
            data = peek_bytes(path, ACCOUNT_LIMIT_BYTES)
            if data is not None:
                yield path.name.removesuffix(SERVICE_SUFFIX), data

    def _decoded(self, services: Mapping[str, bytes]) -> Iterator[tuple[str, Backends]]:
        """The services that can be read; the others are set aside."""
        for name, record in services.items():
            try:
                accounts = self.codec.decode(record)
            except RecordError as error:
                self._set_aside(name, record, error)
                continue
            self._documents[name] = record
            yield name, accounts

    def _set_aside(self, name: str, record: bytes, error: RecordError) -> None:
        """Keep a service's record in a file of its own, from where it can be put back."""
        path = self._folder / f"{name}{SERVICE_SUFFIX}"
        write_atomically(path, record, mode=PRIVATE_FILE_MODE)
        place = set_aside_file(path)
        problem = Problem.NEWER if error.is_newer else Problem.UNREADABLE
        self._log.report(KIND, str(place), Unreadable(SERVICE_SCHEMA, problem, str(error)))
        self.lost.append(name)

    def _encode(self, names: Iterable[str]) -> dict[str, bytes]:
        """The documents of those services that differ from the saved ones."""
        by_name = _services()
        documents = {}
        for name in names:
            try:
                document = self.codec.encode(by_name[name])
            except RecordError as error:  # a service that the product does not use
                if name not in self.failures:
                    log.warning("account.not_saved", service=name, error=str(error))
                self.failures[name] = str(error)
                continue
            self.failures.pop(name, None)
            if self._digests.get(name) != _digest(document):
                documents[name] = document
        return documents

    def _write(self, documents: Mapping[str, bytes]) -> None:
        services = {name: msgspec.Raw(document) for name, document in documents.items()}
        data = ACCOUNT.encode(Account(moto=moto.__version__, services=services))
        write_atomically(self._file, data, mode=PRIVATE_FILE_MODE)
        if self.storage_error:
            log.info("account.saved_again")
        self.storage_error = ""

    def _note_storage_error(self, error: Exception) -> None:
        reason = _reason(error)
        if reason != self.storage_error:
            log.error("account.not_stored", reason=reason)
        self.storage_error = reason

    def _put_back(self, names: Iterable[str]) -> None:
        by_name = _services()
        for name in names:
            document = self._documents.get(name)
            if name in by_name and name not in self.failures:
                accounts = self.codec.decode(document) if document is not None else {}
                replace_backends(by_name[name], accounts)
                self._on_put_back(name)
        self._used.take()


def _services() -> dict[str, Mapping[str, dict[str, object]]]:
    """The services of moto by name."""
    return {backends.service_name: backends for backends in BackendDict._instances}  # noqa: SLF001


def _digest(document: bytes) -> bytes:
    return hashlib.blake2b(document, digest_size=16).digest()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def put_backends(target: Mapping[str, dict[str, object]], accounts: Backends) -> None:
    """Replace backends of moto's without running moto's own `__setitem__`."""
    for account, regions in accounts.items():
        for region, backend in regions.items():
            dict.__setitem__(target[account], region, backend)


def replace_backends(target: Mapping[str, dict[str, object]], accounts: Backends) -> None:
    """As `put_backends`, and drop the backends that `accounts` lacks."""
    for account, regions in target.items():
        for region in set(regions.keys()) - set(accounts.get(account, ())):
            dict.pop(regions, region)
    put_backends(target, accounts)
