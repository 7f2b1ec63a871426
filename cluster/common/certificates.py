"""The cluster's CA, and the certificates that it issues (RFC 5280). Depends on `cryptography`.

Keys are of the curve P-256. Times are epoch seconds, given by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesaform.common.tls import LIFETIME_DAYS, RENEWAL_DAYS

AUTHORITY_DAYS = 3650
CLOCK_SKEW = timedelta(hours=1)
"""How far a machine's clock may be behind the issuer's."""
MAX_REQUEST_BYTES = 4096
MAX_AUTHORITIES = 2
"""The CA and its successor while one replaces the other."""

Pem = Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^-----BEGIN [A-Z ]+-----\n")]


class NotIssued(ValueError):
    """A request for a certificate is not valid; the message says why."""


class Authority(msgspec.Struct, frozen=True):
    """A CA: its certificate and its private key, PEM."""

    certificate: Pem
    key: Pem


class AuthorityDocument(msgspec.Struct, frozen=True):
    """The cluster's CA as SSM stores it. The first authority issues; all of them are trusted."""

    authorities: Annotated[
        tuple[Authority, ...], msgspec.Meta(min_length=1, max_length=MAX_AUTHORITIES)
    ]

    @property
    def certificates(self) -> str:
        """The certificates of all authorities, PEM. They are no secret.

        The order does not tell which one issues, so that user data changes only with the set.
        """
        return "".join(sorted(item.certificate for item in self.authorities))


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate names: a machine's instance id, and its addresses and DNS names."""

    instance_id: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What renewals and reports need to know of a certificate."""

    issuer_key_id: bytes
    hosts: frozenset[str]
    starts_at: float
    ends_at: float

    def is_due(self, now: float) -> bool:
        """Whether it is time to replace it."""
        return now >= self.starts_at + RENEWAL_DAYS * 86400 or now < self.starts_at


def parse_document(text: str | bytes) -> AuthorityDocument:
    """Parse the stored CA.

    Raises:
        msgspec.DecodeError: it is not such a document.

    """
    return msgspec.json.decode(text, type=AuthorityDocument)


def document_text(document: AuthorityDocument) -> str:
    """The CA as it is stored: below the 4096 bytes of a standard parameter of SSM."""
    return msgspec.json.encode(document).decode()


def create_authority(
    cluster: str, deployment_id: str, now: float, *, former: Authority | None = None
) -> Authority:
    """A new CA with a key of its own. It ends later than a former one, whatever the clock says."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Mesaform CA of {cluster}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, deployment_id[:64]),
        ]
    )
    start = _time(now)
    end = start + timedelta(days=AUTHORITY_DAYS)
    if former is not None:
        end = max(end, _time(ends_at(former.certificate) + 1))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key).decode())


def draw_key() -> bytes:
    """A new private key, PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def request_certificate(key: bytes, instance_id: str) -> str:
    """A PKCS #10 request (RFC 2986) for a key, PEM. Its signature proves that we have the key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, instance_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    return request.sign(_private(key), hashes.SHA256()).public_bytes(_PEM).decode()


def issue_for_request(authority: Authority, request: str, subject: Subject, now: float) -> str:
    """A certificate for the key of a request; names are those of `subject`, not of the request.

    Raises:
        NotIssued: the request is malformed, or not signed by its own key.

    """
    try:
        parsed = x509.load_pem_x509_csr(request.encode())
        public_key = _required_curve(parsed.public_key())
        is_signed = parsed.is_signature_valid
    except NotIssued:
        raise
    except Exception as error:  # of the library: it has no common base, and the bytes are anybody's
        raise NotIssued(f"the certificate request cannot be read: {error}") from None
    if not is_signed:
        raise NotIssued("the certificate request is not signed by its key")
    return _issue(authority, public_key, subject, now)


def _required_curve(public_key: object) -> ec.EllipticCurvePublicKey:
    """The key, if it is of the one curve in use.

    A weaker key would be all that protects its machine; a signature of a large key of another kind
    takes long to verify.

    Raises:
        NotIssued: it is another key.

    """
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if isinstance(public_key.curve, ec.SECP256R1):
            return public_key
        curve = public_key.curve.name
        raise NotIssued(f"the key of the certificate request is of {curve}, not P-256")
    raise NotIssued("the key of the certificate request is not of an elliptic curve")


def issue_for_key(authority: Authority, key: bytes, subject: Subject, now: float) -> str:
    """A certificate for a private key, PEM."""
    return _issue(authority, _private(key).public_key(), subject, now)


def read_certificate(text: str | bytes) -> Certificate:
    """The facts of the first certificate in a PEM text.

    Raises:
        ValueError: there is none, or it lacks what `issue_for_request` writes.

    """
    data = text.encode() if isinstance(text, str) else text
    certificate = x509.load_pem_x509_certificates(data)[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound as error:
        raise ValueError(str(error)) from None
    hosts = {str(item) for item in names.get_values_for_type(x509.IPAddress)}
    return Certificate(
        issuer.key_identifier or b"",
        frozenset(hosts | set(names.get_values_for_type(x509.DNSName))),
        (certificate.not_valid_before_utc + CLOCK_SKEW).timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def require_certificates(text: bytes) -> None:
    """Check that a text has certificates, PEM, and each of them can be read.

    Raises:
        ValueError: it has not.

    """
    try:
        x509.load_pem_x509_certificates(text)
    except Exception as error:  # of the library: it has no common base
        raise ValueError(str(error)) from None


def key_id(certificate: str) -> bytes:
    """The key identifier of a CA's certificate, as the certificates that it issues name it."""
    parsed = x509.load_pem_x509_certificate(certificate.encode())
    return parsed.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def ends_at(certificate: str) -> float:
    """The end of a certificate's validity."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc.timestamp()


def fingerprint(certificate: str) -> str:
    """The SHA-256 fingerprint, as browsers show it."""
    parsed = x509.load_pem_x509_certificate(certificate.encode())
    return parsed.fingerprint(hashes.SHA256()).hex(":").upper()


def master_hosts(addresses: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The hosts in a master's certificate, without duplicates.

    A `*` in a name stands for a part that AWS chooses (`names.load_balancer_host_pattern`).
    Certificates know it as a whole label only.
    """
    plain = (
        f"*.{name.partition('.')[2]}" if "*" in name.partition(".")[0] else name for name in names
    )
    return tuple(dict.fromkeys(host for host in (*addresses, *plain) if host))


_PEM = serialization.Encoding.PEM


def _issue(
    authority: Authority, public_key: ec.EllipticCurvePublicKey, subject: Subject, now: float
) -> str:
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    start = _time(now)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.instance_id)]))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SKEW)
        .not_valid_after(start + timedelta(days=LIFETIME_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(subject.hosts)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    return _pem(builder.sign(_private(authority.key.encode()), hashes.SHA256()))


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [
        x509.DNSName(host) if (address := _address(host)) is None else x509.IPAddress(address)
        for host in hosts
    ]


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    parsed = serialization.load_pem_private_key(key, password=None)
    if not isinstance(parsed, ec.EllipticCurvePrivateKey):
        raise TypeError("the key is not of an elliptic curve")
    return parsed


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(_PEM, form, serialization.NoEncryption())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(_PEM).decode()


def _time(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC).replace(microsecond=0)
