"""The copy of the access document on a master, which the engine and the services read.

Each autoscaler renews it, the leader's and the standbys': every master needs one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from mesaform.aws.access_parameter import ACCESS_DOCUMENT
from mesaform.aws.secure_parameter import SecureParameter
from mesaform.common.access import OPERATOR, AccessDocument, access_text
from mesaform.common.errors import MesaformError
from mesaform.common.files import PRIVATE_FILE_MODE, write_atomically
from mesaform.http.access import FILE_VARIABLE

READ_EVERY_S = 10.0
READ_FIRST_S = 1.0
"""Until the first document is there."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MesosFiles:
    """Files of Apache Mesos: own principals, and what to write from them and the document."""

    own_credentials: Path
    credentials: Path
    acls: Path


@dataclass(frozen=True, slots=True)
class AccessCopy:
    """Where the document comes from and goes to. `mesos` is None for the embedded engine.

    It is read every `every_s` seconds, and every `first_s` until there is one.
    """

    parameter: SecureParameter[AccessDocument]
    file: Path
    mesos: MesosFiles | None = None
    every_s: float = READ_EVERY_S
    first_s: float = READ_FIRST_S

    async def follow(self) -> None:
        """Keep the files up to date until cancelled. What cannot be read leaves them as they are.

        A document that was removed is an empty one: a token that is gone is no longer valid.
        """
        has_copied = False
        while True:
            try:
                document = await asyncio.to_thread(self.parameter.read)
                if document is not None or has_copied:
                    await asyncio.to_thread(self.write, document or AccessDocument())
                    has_copied = True
            except (MesaformError, OSError, msgspec.DecodeError) as error:
                log.warning("the access document is not renewed", error=str(error))
            await asyncio.sleep(self.every_s if has_copied else self.first_s)

    def write(self, document: AccessDocument) -> None:
        """Write the files that differ.

        Raises:
            OSError: a file cannot be written; it is as it was.
            msgspec.DecodeError: the file of Mesos' own principals cannot be read.

        """
        if self.mesos is not None:
            _write_changed(self.mesos.acls, msgspec.json.encode(document.acls).decode())
            _write_changed(self.mesos.credentials, _mesos_credentials(self.mesos, document))
        _write_changed(self.file, access_text(document))


def _mesos_credentials(files: MesosFiles, document: AccessDocument) -> str:
    """Mesos' credentials file. It knows one secret a principal: of two tokens the newer one."""
    own = msgspec.json.decode(files.own_credentials.read_bytes(), type=dict[str, list[object]])
    entries = [*own.get("credentials", []), *document.credentials]
    if document.tokens:
        entries.append({"principal": OPERATOR, "secret": document.tokens[-1]})
    return msgspec.json.encode({"credentials": entries}).decode()


def _write_changed(path: Path, text: str) -> None:
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data, mode=PRIVATE_FILE_MODE)
    log.info("access renewed", file=path.name)


def access_copy(
    cluster: str, region: str, environment: Mapping[str, str] = os.environ
) -> AccessCopy | None:
    """The copy that an environment asks for; None where nobody needs a credential."""
    if not environment.get("MESAFORM_ACCESS_PARAMETER"):
        return None
    own = environment.get("MESAFORM_ACCESS_CREDENTIALS", "")
    mesos = None
    if own:
        mesos = MesosFiles(
            Path(own),
            Path(environment["MESAFORM_ACCESS_MESOS_CREDENTIALS"]),
            Path(environment["MESAFORM_ACCESS_MESOS_ACLS"]),
        )
    parameter = SecureParameter(ACCESS_DOCUMENT, cluster, region)
    return AccessCopy(parameter, Path(environment[FILE_VARIABLE]), mesos)
