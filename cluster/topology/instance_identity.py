"""Instance identity documents: which instance a machine is, signed by EC2 or the local cloud.

The metadata service gives an instance its document (JSON) and the base64 form `signature`: RSA
PKCS #1 v1.5 with SHA-256 over the document's exact bytes, by a key of the region. Source: EC2 user
guide, "Instance identity documents". `aws_identity_certificates.pem` has AWS's certificates. A
document has no nonce and no expiry: who reads it can repeat it. Therefore its private address must
be the one from which it comes, and only root reads it on its machine (docs/adr/0027-identities.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec

from mesaform.common.errors import BadInput

AWS_CERTIFICATES = Path(__file__).with_name("aws_identity_certificates.pem")
CERTIFICATE_VARIABLE = "MESAFORM_IDENTITY_CERTIFICATE"
PROOF_VARIABLE = "MESAFORM_INSTANCE_IDENTITY"
"""The environment variable with the path of the file that has this machine's proof."""

IDENTITY_HEADER = "Mesaform-Instance-Identity"
"""The HTTP header that carries a proof: base64 of a `SignedIdentity` in JSON."""

MAX_DOCUMENT_BYTES = 4096
_LOOPBACK = IPv4Network("127.0.0.0/8")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
"""DigestInfo of SHA-256 (RFC 8017, section 9.2, note 1)."""
_MIN_KEY_BITS = 1024
_SEQUENCE, _INTEGER, _BIT_STRING, _VERSION = 0x30, 0x02, 0x03, 0xA0


class Unproven(ValueError):
    """The document does not prove which instance sent it; the message says why."""


class SignedIdentity(msgspec.Struct, frozen=True):
    """A document as its instance reads it from the metadata service, with its signature."""

    document: str
    signature: str


class InstanceDocument(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of a document that matter here."""

    instance_id: str
    private_ip: str
    account_id: str
    region: str
    instance_type: str = ""
    availability_zone: str = ""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An RSA key."""

    modulus: int
    exponent: int


def verify(identity: SignedIdentity, key: PublicKey) -> InstanceDocument:
    """The document, if the key's owner signed it.

    Raises:
        Unproven: the signature is not the key's, or the text is not such a document.

    """
    text = identity.document.encode()
    if len(text) > MAX_DOCUMENT_BYTES:
        raise Unproven(f"its identity document is longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        signature = base64.b64decode("".join(identity.signature.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unproven("the signature of its identity document is not base64") from None
    if not _is_signed(text, signature, key):
        raise Unproven("the signature of its identity document is not EC2's")
    try:
        return msgspec.json.decode(text, type=InstanceDocument)
    except msgspec.DecodeError as error:
        raise Unproven(f"its identity document cannot be read: {error}") from None


def _is_signed(message: bytes, signature: bytes, key: PublicKey) -> bool:
    """Whether this is the key's RSASSA-PKCS1-v1_5 signature with SHA-256 (RFC 8017, 8.2.2).

    The whole padded message is computed and compared, so nothing of a signature is parsed.
    """
    length = (key.modulus.bit_length() + 7) // 8
    number = int.from_bytes(signature)
    if len(signature) != length or number >= key.modulus:
        return False
    digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
    padding = b"\xff" * (length - len(digest) - 3)
    expected = b"\x00\x01" + padding + b"\x00" + digest
    return pow(number, key.exponent, key.modulus).to_bytes(length) == expected


@dataclass(frozen=True, slots=True)
class InstanceVerifier:
    """Accepts instances of one account and region that come from their own address."""

    key: PublicKey
    account_id: str
    region: str

    def verify(self, identity: SignedIdentity | None, source: str) -> InstanceDocument:
        """The document, if it proves that the connection from `source` is its instance's.

        Raises:
            Unproven: it does not.

        """
        if identity is None:
            raise Unproven("it does not prove which instance it is")
        document = verify(identity, self.key)
        if (document.account_id, document.region) != (self.account_id, self.region):
            raise Unproven(
                f"{document.instance_id} is of the account {document.account_id} in"
                f" {document.region}, not of this cluster's"
            )
        if not is_same_machine(source, document.private_ip):
            raise Unproven(
                f"it comes from {source}, but {document.instance_id} has the address"
                f" {document.private_ip}"
            )
        return document


def is_same_machine(source: str, address: str) -> bool:
    """Whether a connection from `source` can be that of the machine with this address.

    All addresses in 127.0.0.0/8 belong to one host, and its connections come from any of them.
    """
    if source == address:
        return True
    try:
        pair = IPv4Address(source), IPv4Address(address)
    except ValueError:
        return False
    return all(item in _LOOPBACK for item in pair)


def verifier_from(environment: Mapping[str, str]) -> InstanceVerifier | None:
    """The verifier that the environment asks for; None where instances are not verified.

    `MESAFORM_IDENTITY_ACCOUNT` and `MESAFORM_IDENTITY_REGION` turn it on.
    `MESAFORM_IDENTITY_CERTIFICATE` is a PEM file with the key of another signer than AWS.

    Raises:
        BadInput: there is no certificate for the region, or it cannot be read.

    """
    account_id = environment.get("MESAFORM_IDENTITY_ACCOUNT", "")
    region = environment.get("MESAFORM_IDENTITY_REGION", "")
    if not account_id:
        return None
    path = environment.get(CERTIFICATE_VARIABLE, "")
    try:
        key = public_key(Path(path).read_text(encoding="ascii")) if path else aws_key(region)
    except (OSError, ValueError) as error:
        where = f"{CERTIFICATE_VARIABLE}={path}" if path else "MESAFORM_IDENTITY_REGION"
        raise BadInput(str(error), where=where) from None
    return InstanceVerifier(key, account_id, region)


def identity_header(identity: SignedIdentity | None) -> dict[str, str]:
    """The HTTP header that carries a proof; none without a proof."""
    if identity is None:
        return {}
    return {IDENTITY_HEADER: base64.b64encode(msgspec.json.encode(identity)).decode()}


def identity_from_header(text: str) -> SignedIdentity | None:
    """The proof in a header; None if the header is empty.

    Raises:
        Unproven: the header has another form.

    """
    if not text:
        return None
    try:
        return msgspec.json.decode(base64.b64decode(text, validate=True), type=SignedIdentity)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise Unproven("its identity cannot be read") from None


def read_proof(path: str) -> SignedIdentity | None:
    """The proof that the node wrote into a file; None without a path.

    Raises:
        OSError: it cannot be read.
        msgspec.DecodeError: it has another form.

    """
    if not path:
        return None
    return msgspec.json.decode(Path(path).read_bytes(), type=SignedIdentity)


def aws_key(region: str) -> PublicKey:
    """The key that signs the documents of an AWS region.

    Raises:
        ValueError: the file of certificates does not list the region.

    """
    certificates = dict(_named_certificates(AWS_CERTIFICATES.read_text(encoding="ascii")))
    if region not in certificates:
        raise ValueError(
            f"{AWS_CERTIFICATES.name} has no certificate of {region}: add it from AWS's list, or"
            f" set {CERTIFICATE_VARIABLE} to its file"
        )
    return public_key(certificates[region])


def _named_certificates(text: str) -> Iterator[tuple[str, str]]:
    """Each region and its certificate: a line `# region, region` precedes a certificate."""
    for part in text.split(_BEGIN)[1:]:
        before = text[: text.index(part)].removesuffix(_BEGIN).rstrip().rpartition("\n")[2]
        for region in before.removeprefix("#").split(","):
            yield region.strip(), _BEGIN + part.partition(_END)[0] + _END


def public_key(certificate: str) -> PublicKey:
    """The RSA key of an X.509 certificate in PEM (RFC 5280, section 4.1).

    Raises:
        ValueError: it is no certificate of an RSA key of at least 1024 bits.

    """
    try:
        outer, _ = _read(ssl.PEM_cert_to_DER_cert(certificate.strip() + "\n"), _SEQUENCE)
        fields, _ = _read(outer, _SEQUENCE)
        if fields[0] == _VERSION:
            _, fields = _read(fields, _VERSION)
        for tag in (_INTEGER, *[_SEQUENCE] * 4):  # serial, algorithm, issuer, validity, subject
            _, fields = _read(fields, tag)
        info, _ = _read(fields, _SEQUENCE)
        _, info = _read(info, _SEQUENCE)
        bits, _ = _read(info, _BIT_STRING)
        numbers, _ = _read(bits[1:], _SEQUENCE)  # the first byte counts unused bits
        modulus, numbers = _read(numbers, _INTEGER)
        exponent, _ = _read(numbers, _INTEGER)
    except (IndexError, ValueError) as error:
        raise ValueError(f"not a certificate of an RSA key: {error}") from None
    key = PublicKey(int.from_bytes(modulus), int.from_bytes(exponent))
    if key.modulus.bit_length() < _MIN_KEY_BITS:
        raise ValueError(f"an RSA key of {key.modulus.bit_length()} bits is too short")
    return key


def _read(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the DER element at the start, and what follows it (X.690, section 8.1)."""
    if data[0] != tag:
        raise ValueError(f"DER tag {data[0]:#04x} where {tag:#04x} is expected")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    if len(data) < start + length:
        raise ValueError("a DER element is cut short")
    return data[start : start + length], data[start + length :]
