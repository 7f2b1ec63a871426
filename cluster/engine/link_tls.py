"""TLS of the agents' link: both ends show a certificate of the cluster's CA. Depends on gRPC.

Certificates that were renewed are used for the next connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
import structlog

from mesaform.common.tls import TlsFiles, Version, read_authorities, read_key_pair, version_of
from mesaform.topology.instance_identity import Unproven

log = structlog.get_logger(__name__)

COMMON_NAME = "x509_common_name"
"""gRPC's name of the property (gRPC core, `GRPC_X509_CN_PROPERTY_NAME`)."""


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """The credentials of a master's link port, which accepts the cluster's machines only.

    Raises:
        OSError: the master has no certificate yet.
        ValueError: its file has another form.

    """
    present = _Present(files)
    return grpc.dynamic_ssl_server_credentials(
        present.configuration(), present.newer, require_client_authentication=True
    )


class _Present:
    """The certificate configuration of a server, read again when a file was replaced."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._version: Version = ()

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        self._version = version_of(self._files.certificate, *self._files.trusted)
        own = read_key_pair(self._files)
        return grpc.ssl_server_certificate_configuration(
            [(own.key, own.certificate)], read_authorities(self._files)
        )

    def newer(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks for at each connection; None keeps what it has."""
        try:
            version = version_of(self._files.certificate, *self._files.trusted)
            return None if version == self._version else self.configuration()
        except (OSError, ValueError) as error:
            log.warning("certificate_unreadable", error=str(error))
            return None


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """The credentials of an agent's connection.

    Raises:
        OSError: the agent has no certificate yet.
        ValueError: its file has another form.

    """
    own = read_key_pair(files)
    return grpc.ssl_channel_credentials(read_authorities(files), own.key, own.certificate)


def require_own_certificate(instance_id: str, properties: Mapping[str, Iterable[bytes]]) -> None:
    """Check that the certificate of a connection is that of the instance that registers.

    Args:
        instance_id: the instance that the agent proves to be; empty where none is verified.
        properties: gRPC's authentication context.

    Raises:
        Unproven: the certificate is of another instance.

    """
    names = {name.decode("utf-8", "replace") for name in properties.get(COMMON_NAME, ())}
    if instance_id and instance_id not in names:
        shown = ", ".join(sorted(names)) or "nobody"
        raise Unproven(f"its certificate is of {shown}, not of {instance_id}")
