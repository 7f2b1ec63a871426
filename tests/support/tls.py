"""A cluster's CA and machines with certificates of it, for tests of TLS."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from mesaform.common import certificates
from mesaform.common.certificates import Authority, AuthorityDocument, Subject
from mesaform.common.tls import FOLDER_VARIABLE, TlsFiles, Trust

DAY_S = 86400


@dataclass(frozen=True)
class Cluster:
    """A cluster with a CA of its own; `folder` has the files of its machines."""

    folder: Path
    authority: Authority = field(
        default_factory=lambda: certificates.create_authority("toy", "d1", time.time())
    )

    @property
    def document(self) -> AuthorityDocument:
        return AuthorityDocument((self.authority,))

    @property
    def trust(self) -> Trust:
        path = self.folder / "ca.pem"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.authority.certificate)
        return Trust(path)

    def uncertified(self, name: str) -> TlsFiles:
        """The files of a machine that trusts the cluster, and has no certificate."""
        files = TlsFiles(self.folder / name)
        files.folder.mkdir(parents=True, exist_ok=True)
        files.initial_authorities.write_text(self.authority.certificate)
        return files

    def machine(
        self, instance_id: str, *hosts: str, issued_at: float | None = None, by: str = ""
    ) -> TlsFiles:
        """The files of a machine with a certificate. `by` is the folder's name."""
        files = self.uncertified(by or instance_id)
        self.certify(files, instance_id, *hosts, issued_at=issued_at)
        return files

    def certify(
        self, files: TlsFiles, instance_id: str, *hosts: str, issued_at: float | None = None
    ) -> None:
        """Give a machine a new certificate."""
        key = certificates.draw_key()
        now = time.time() if issued_at is None else issued_at
        text = certificates.issue_for_key(self.authority, key, Subject(instance_id, hosts), now)
        files.certificate.write_bytes(key + text.encode())


def environment(files: TlsFiles) -> dict[str, str]:
    """What makes a program of a machine use its certificate."""
    return {FOLDER_VARIABLE: str(files.folder)}
