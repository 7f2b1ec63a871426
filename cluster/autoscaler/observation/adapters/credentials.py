"""Credentials for frameworks' APIs: from a file of the master or an SSM parameter.

A credential is `USER:PASSWORD`, sent as HTTP Basic, or `Bearer TOKEN`. It is read again every
minute, so that a new one needs no restart. Depends on boto3 through `aws.client`.
"""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mesaform.autoscaler.observation.adapters.answers import AdapterError
from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.common.access import basic_header
from mesaform.common.errors import MesaformError
from mesaform.config.frameworks import FrameworkAdapter
from mesaform.topology.names import framework_parameter_name

KEPT_S = 60.0
MAX_BYTES = 4096
BEARER = "Bearer "


@dataclass(slots=True)
class Credentials:
    """Reads credentials of a cluster. `read_parameter` gives the value of an SSM parameter."""

    cluster: str
    read_parameter: Callable[[str], str]
    _known: dict[str, tuple[float, str]] = field(default_factory=dict)

    async def authorization(self, entry: FrameworkAdapter) -> str:
        """The value of the header `Authorization`; empty where none is configured.

        Raises:
            AdapterError: the credential cannot be read.

        """
        key = entry.credential_file or entry.credential_parameter
        if key is None:
            return ""
        read_at, header = self._known.get(key, (-KEPT_S, ""))
        if time.monotonic() - read_at >= KEPT_S:
            header = header_of(await asyncio.to_thread(self._read, entry))
            self._known[key] = (time.monotonic(), header)
        return header

    def _read(self, entry: FrameworkAdapter) -> str:
        try:
            if entry.credential_file is not None:
                with pathlib.Path(entry.credential_file).open(encoding="utf-8") as file:
                    return file.read(MAX_BYTES + 1)
            name = framework_parameter_name(self.cluster, entry.credential_parameter or "")
            return self.read_parameter(name)
        except (OSError, UnicodeDecodeError, MesaformError) as error:
            raise AdapterError(f"its credential cannot be read: {error}") from None


def header_of(text: str) -> str:
    """The value of `Authorization` for the text of a credential.

    Raises:
        AdapterError: it is not one.

    """
    stated = text.strip()
    is_readable = stated.isprintable() and len(stated) <= MAX_BYTES
    if is_readable and stated.startswith(BEARER):
        return stated
    user, colon, password = stated.partition(":")
    if not is_readable or not colon or not user:
        raise AdapterError("its credential is neither USER:PASSWORD nor Bearer TOKEN")
    return basic_header(user, password)


def ssm_reader(region: str) -> Callable[[str], str]:
    """A function that reads the decrypted value of an SSM parameter."""

    def read(name: str) -> str:
        with translate_errors(f"ssm {name}"):
            ssm = client.client("ssm", region)
            return str(ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])

    return read
