"""TLS between the parts of a cluster: files of a machine, contexts that trust the cluster's CA.

A machine's folder has the CA's certificates, and its own certificate with its key in one file, so
that a renewal is one rename (docs/adr/0048-tls.md). Programs without this folder speak plain HTTP.
Depends on the standard library only.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "MESAFORM_TLS_DIR"
"""The folder of this machine's TLS files; absent: this cluster has no TLS."""
RENEWAL_DAYS = 1
"""Age at which a machine's certificate is replaced."""
LIFETIME_DAYS = 7
"""Validity of a machine's certificate: six days of trouble with renewals end no connection."""
_KEY_MARK = "PRIVATE KEY-----"
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"

Version = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of one machine's TLS files."""

    folder: Path

    @property
    def initial_authorities(self) -> Path:
        """The CA's certificates in the machine's user data."""
        return self.folder / "ca.pem"

    @property
    def learned_authorities(self) -> Path:
        """The CA's certificates at the last renewal; absent before the first."""
        return self.folder / "authorities.pem"

    @property
    def certificate(self) -> Path:
        """Key and certificate of this machine; absent until it is issued."""
        return self.folder / "server.pem"

    @property
    def trusted(self) -> tuple[Path, ...]:
        """The files of all certificates that this machine trusts."""
        return (self.initial_authorities, self.learned_authorities)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and the certificate of its public key, both PEM."""

    key: bytes
    certificate: bytes


def tls_files(environment: Mapping[str, str]) -> TlsFiles | None:
    """The files that an environment names; None where the cluster has no TLS."""
    folder = environment.get(FOLDER_VARIABLE, "")
    return TlsFiles(Path(folder)) if folder else None


def scheme(tls: object | None) -> str:
    """The scheme of URLs of the cluster's ports."""
    return "http" if tls is None else "https"


def read_authorities(files: TlsFiles) -> bytes:
    """The certificates of all CAs that this machine trusts, PEM.

    Raises:
        OSError: they cannot be read.

    """
    return b"".join(path.read_bytes() for path in files.trusted if path.exists())


def read_key_pair(files: TlsFiles) -> KeyPair:
    """Key and certificate of this machine.

    Raises:
        OSError: they are not there, or cannot be read.
        ValueError: the file has another form.

    """
    text = files.certificate.read_text(encoding="ascii")
    key, mark, rest = text.partition(_CERTIFICATE)
    if not mark or _KEY_MARK not in key:
        raise ValueError(f"{files.certificate} has no key with a certificate")
    return KeyPair(key.encode(), (mark + rest).encode())


def version_of(*paths: Path) -> Version:
    """A value that differs once one of the files was replaced; absent files do not count."""
    facts = (path.stat() for path in paths if path.exists())
    return tuple((item.st_mtime_ns, item.st_ino, item.st_size) for item in facts)


class Trust:
    """The context of clients: it accepts servers with a certificate of the cluster's CA only.

    Args:
        files: PEM files of the CA's certificates. Those that are replaced are read again.
        has_public: whether the CAs of the system are trusted as well.

    """

    def __init__(self, *files: Path, has_public: bool = False) -> None:
        self._files = files
        self._version: Version = ()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        if has_public:
            self._context.load_default_certs()

    def context(self) -> ssl.SSLContext:
        """The context, with the CAs of the files as they are now.

        Raises:
            OSError: a file cannot be read, or has no certificate.

        """
        version = version_of(*self._files)
        if version != self._version:
            for path in self._files:
                if path.exists():
                    self._context.load_verify_locations(cafile=path)
            self._version = version
        return self._context


def trust_of(files: TlsFiles | None) -> Trust | None:
    """The trust of a machine's programs; None where the cluster has no TLS."""
    return None if files is None else Trust(*files.trusted)


def server_context() -> ssl.SSLContext:
    """The context of servers, without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
