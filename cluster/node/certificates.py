"""Gets this machine's TLS certificate and renews it: `python -m mesaform.node.certificates`.

Masters issue their own certificates with the CA, which they may read from SSM. Agents prove which
instance they are, and get one from an autoscaler (docs/adr/0048-tls.md). Without botocore and
aiohttp, and with plain lines instead of structlog: it sleeps nearly always and must use little
memory.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Protocol

import msgspec

from mesaform.common import certificates
from mesaform.common.backoff import Backoff
from mesaform.common.certificates import Certificate, Subject
from mesaform.common.files import PRIVATE_FILE_MODE, write_atomically
from mesaform.common.tls import TlsFiles, Trust, read_key_pair, tls_files
from mesaform.node.tls import HOSTS_VARIABLE, ISSUERS_VARIABLE
from mesaform.topology.instance_identity import PROOF_VARIABLE, identity_header, read_proof
from mesaform.topology.user_data import (
    AUTHORITY_VARIABLE,
    CERTIFICATES_PATH,
    CertificateRequest,
    IssuedCertificate,
)

CHECK_S = 600.0
"""Between two looks at the age of the certificate, and at the CA."""
CALL_TIMEOUT_S = 10.0
COPY_TIMEOUT_S = 60.0
BACKOFF = Backoff(first_s=0.5, cap_s=10.0, jitter=0.5)
MAX_ANSWER_BYTES = 32 * 1024
LOCAL_HOSTS = ("127.0.0.1", "localhost")
"""Names of a master for clients on itself, and at the end of a tunnel to it."""


class NotRenewed(Exception):
    """There is no new certificate; the message says why."""


class Source(Protocol):
    """Where certificates come from."""

    def prepare(self) -> None:
        """Read what `is_current` needs. Raises NotRenewed."""
        ...

    def is_current(self, certificate: Certificate) -> bool:
        """Whether a certificate that is young enough may stay."""
        ...

    def issue(self, key: bytes) -> IssuedCertificate:
        """A certificate for a key. Raises NotRenewed."""
        ...

    def authorities(self) -> str:
        """The CAs that are known without a new certificate; empty if none are."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """The own machine: its instance id, its address, and further addresses and names."""

    instance_id: str
    address: str
    hosts: tuple[str, ...] = ()


class OwnAuthority:
    """The source of masters: the copy of the CA.

    Args:
        machine: this machine.
        file: the copy.
        copy: renews the copy; whether it did.
        now: epoch seconds.

    """

    def __init__(
        self,
        machine: Machine,
        file: Path,
        copy: Callable[[], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        addresses = (machine.address, *LOCAL_HOSTS)
        hosts = certificates.master_hosts(addresses, (socket.gethostname(), *machine.hosts))
        self._subject = Subject(machine.instance_id, hosts)
        self._file = file
        self._copy = copy
        self._now = now
        self._document: certificates.AuthorityDocument | None = None

    def prepare(self) -> None:
        """Renew the copy. The one that is there serves while SSM does not answer."""
        self._copy()
        try:
            self._document = certificates.parse_document(self._file.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise NotRenewed(f"there is no copy of the CA yet: {error}") from None

    def is_current(self, certificate: Certificate) -> bool:
        """Whether the present CA issued it, for the present hosts."""
        issuer = certificates.key_id(self._present.authorities[0].certificate)
        return certificate.issuer_key_id == issuer and certificate.hosts == frozenset(
            self._subject.hosts
        )

    def issue(self, key: bytes) -> IssuedCertificate:
        """A certificate of the present CA."""
        first = self._present.authorities[0]
        text = certificates.issue_for_key(first, key, self._subject, self._now())
        return IssuedCertificate(text, self._present.certificates)

    def authorities(self) -> str:
        """The CAs of the copy."""
        return self._present.certificates

    @property
    def _present(self) -> certificates.AuthorityDocument:
        if self._document is None:
            raise NotRenewed("there is no copy of the CA yet")
        return self._document


class Issuers:
    """The source of agents: the autoscalers.

    Args:
        machine: this machine.
        addresses: `host:port` of each.
        trust: accepts the certificates of masters.
        proof: headers that prove which instance this is.

    """

    def __init__(
        self, machine: Machine, addresses: Sequence[str], trust: Trust, proof: Mapping[str, str]
    ) -> None:
        self._machine = machine
        self._addresses = addresses
        self._trust = trust
        self._proof = proof

    def prepare(self) -> None:
        """Nothing to read."""

    def is_current(self, certificate: Certificate) -> bool:
        """Whether it has this machine's address."""
        return certificate.hosts == {self._machine.address}

    def authorities(self) -> str:
        """Only a new certificate tells them."""
        return ""

    def issue(self, key: bytes) -> IssuedCertificate:
        """The answer of the first autoscaler that issues."""
        request = certificates.request_certificate(key, self._machine.instance_id)
        body = msgspec.json.encode(CertificateRequest(request))
        failures = []
        for address in self._addresses:
            try:
                return self._ask(address, body)
            except (OSError, HTTPException, msgspec.DecodeError, NotRenewed) as error:
                failures.append(f"{address}: {error or type(error).__name__}")
        raise NotRenewed("; ".join(failures))

    def _ask(self, address: str, body: bytes) -> IssuedCertificate:
        """Ask one autoscaler, from the address of the proof."""
        host, _, port = address.rpartition(":")
        connection = HTTPSConnection(
            host,
            int(port),
            timeout=CALL_TIMEOUT_S,
            source_address=(self._machine.address, 0),
            context=self._trust.context(),
        )
        try:
            headers = {"Content-Type": "application/json", **self._proof}
            connection.request("POST", CERTIFICATES_PATH, body=body, headers=headers)
            response = connection.getresponse()
            text = response.read(MAX_ANSWER_BYTES)
            if response.status != 200:
                raise NotRenewed(f"{response.status} {text[:200].decode('utf-8', 'replace')}")
            return msgspec.json.decode(text, type=IssuedCertificate)
        finally:
            connection.close()


class Renewal:
    """Keeps the machine's files up to date.

    Args:
        files: the machine's files.
        source: where certificates come from.
        log: writes a line.
        now: epoch seconds.

    """

    def __init__(
        self,
        files: TlsFiles,
        source: Source,
        log: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._source = source
        self._log = log
        self._now = now

    def renew(self) -> bool:
        """Get a certificate if it is time; whether there is a new one.

        Raises:
            NotRenewed: it is time, and there is none.
            OSError: a file cannot be written.

        """
        self._source.prepare()
        self._drop_unusable()
        present = self._present()
        if present and not present.is_due(self._now()) and self._source.is_current(present):
            self._learn(self._source.authorities())
            return False
        key = certificates.draw_key()
        issued = self._source.issue(key)
        self._learn(issued.authorities)
        text = key + issued.certificate.encode()
        write_atomically(self._files.certificate, text, mode=PRIVATE_FILE_MODE)
        self._log(f"new certificate for {', '.join(sorted(self._hosts()))}")
        return True

    def _hosts(self) -> frozenset[str]:
        present = self._present()
        return present.hosts if present else frozenset()

    def _present(self) -> Certificate | None:
        try:
            return certificates.read_certificate(read_key_pair(self._files).certificate)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._log(f"{self._files.certificate} cannot be used: {error}")
            return None

    def _drop_unusable(self) -> None:
        """Set learned CAs aside that cannot be read: with them no connection could be verified."""
        path = self._files.learned_authorities
        try:
            if path.exists():
                certificates.require_certificates(path.read_bytes())
        except ValueError as error:
            self._log(f"{path} cannot be used and is set aside: {error}")
            path.rename(path.with_name(f"{path.name}.set-aside"))

    def _learn(self, authorities: str) -> None:
        """Trust the CAs of an answer as well; those of the user data stay."""
        path = self._files.learned_authorities
        text = authorities.encode()
        if not text or (path.exists() and path.read_bytes() == text):
            return
        try:
            certificates.require_certificates(text)
        except ValueError as error:
            raise NotRenewed(f"the issuer's CAs cannot be read: {error}") from None
        self._files.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text, mode=0o644)


def source_from(environment: Mapping[str, str], files: TlsFiles) -> Source:
    """The source that the environment of `mesaform.node.tls` describes.

    Raises:
        OSError: the proof cannot be read.
        msgspec.DecodeError: it has another form.

    """
    hosts = tuple(name for name in environment.get(HOSTS_VARIABLE, "").split(",") if name)
    machine = Machine(environment["MESAFORM_MACHINE"], environment["MESAFORM_ADDRESS"], hosts)
    if file := environment.get(AUTHORITY_VARIABLE):
        argv = (environment["MESAFORM_CLUSTER"], environment["AWS_REGION"], file)
        return OwnAuthority(machine, Path(file), lambda: _copy_authority(argv))
    proof = identity_header(read_proof(environment.get(PROOF_VARIABLE, "")))
    issuers = environment[ISSUERS_VARIABLE].split(",")
    return Issuers(machine, issuers, Trust(*files.trusted), proof)


def _copy_authority(arguments: Sequence[str]) -> bool:
    argv = (sys.executable, "-m", "mesaform.node.copy_authority", *arguments)
    try:
        return subprocess.run(argv, check=False, timeout=COPY_TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _log(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Renew until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    files = tls_files(environment)
    if files is None:
        _log("this cluster has no TLS")
        return 1
    renewal = Renewal(files, source_from(environment, files), _log)
    failures = 0
    while True:
        try:
            renewal.renew()
            failures, pause_s = 0, CHECK_S
        except (NotRenewed, OSError) as error:
            failures += 1
            pause_s = BACKOFF.delay_s(failures, random.random())  # noqa: S311
            _log(f"no certificate, next attempt in {pause_s:.0f} s: {error}")
        time.sleep(pause_s)


if __name__ == "__main__":
    sys.exit(main())
