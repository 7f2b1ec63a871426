"""TLS of a port: the machine's certificate, read when it is there and again when it is replaced."""

from __future__ import annotations

import asyncio
import ssl

import structlog

from mesaform.common.tls import TlsFiles, Version, server_context, version_of

POLL_S = 0.2
"""Between two looks for a certificate that is not issued yet."""
LOG_INTERVAL_S = 30.0

log = structlog.get_logger("mesaform.http")


class ServerTls:
    """The context of a listening port."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._version: Version = ()
        self._context = server_context()

    async def context(self) -> ssl.SSLContext:
        """The context with the machine's certificate; waits until there is one."""
        waited_s = 0.0
        while not self.refresh():
            if waited_s % LOG_INTERVAL_S < POLL_S:
                log.info("waiting for a certificate", file=str(self._files.certificate))
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
        return self._context

    def refresh(self) -> bool:
        """Read a certificate that was replaced; whether there is one. Connections keep theirs."""
        try:
            version = version_of(self._files.certificate)
            if version and version != self._version:
                self._context.load_cert_chain(self._files.certificate)
                self._version = version
        except OSError as error:  # of ssl as well
            log.warning("certificate_unreadable", error=str(error))
        return bool(self._version)
