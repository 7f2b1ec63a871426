"""Signed instance identity documents, as EC2's metadata service gives them.

Paths below `/latest/dynamic/instance-identity/` (EC2 user guide, "Instance identity documents"):

| Path | Content |
|---|---|
| `document` | JSON: `accountId`, `architecture`, `availabilityZone`, `imageId`, `instanceId`, |
| | `instanceType`, `pendingTime` (ISO 8601, UTC), `privateIp`, `region`, `version`, ... |
| `signature` | base64 of the PKCS #1 v1.5 signature (RSA, SHA-256) of the document's bytes |
| `rsa2048`, `pkcs7` | base64 of a PKCS #7 SignedData (DER) with the document; no BEGIN line |

AWS signs `pkcs7` with DSA and `signature` with an RSA key of 1024 bits, and publishes one
certificate for each form and region. The local cloud has one RSA key of 2048 bits for an account,
and one certificate for all forms. The certificate is the file `Layout.identity_certificate`;
machines get its path in the variable `MESAFORM_IDENTITY_CERTIFICATE`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from mesaform.common.architecture import architecture_of
from mesaform.common.files import PRIVATE_FILE_MODE, write_atomically
from mesaform.common.json_types import JsonObject
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import Machine
from mesaform.localcloud.timestamps import iso

PATH = "dynamic/instance-identity"
FORMS = ("document", "pkcs7", "rsa2048", "signature")
"""What the folder `dynamic/instance-identity` lists."""
CERTIFICATE_VARIABLE = "MESAFORM_IDENTITY_CERTIFICATE"
"""The variable of a machine with the path of the certificate, a PEM file."""
CERTIFICATE_MODE = 0o644
_KEY_BITS = 2048
_VALIDITY = timedelta(days=365 * 30)
_BASE64_LINE = 76
"""The length of the lines in which AWS writes its signatures."""


@dataclass(frozen=True, slots=True)
class IdentitySigner:
    """The key of an account and its certificate."""

    key: RSAPrivateKey
    certificate: x509.Certificate

    def answer(self, machine: Machine, form: str) -> str | None:
        """A form of the machine's document; None for a form that does not exist."""
        content = document(machine)
        if form == "document":
            return content.decode()
        if form == "signature":
            return _lines(self.key.sign(content, padding.PKCS1v15(), hashes.SHA256()))
        if form in {"pkcs7", "rsa2048"}:
            return _lines(self._signed_data(content))
        return None

    def _signed_data(self, content: bytes) -> bytes:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
        signed = builder.add_signer(self.certificate, self.key, hashes.SHA256())
        options = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities]
        return signed.sign(serialization.Encoding.DER, options)


class IdentityService:
    """Answers for all machines; the key is loaded or made when it is first needed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._signer: IdentitySigner | None = None

    def prepare(self) -> IdentitySigner:
        """The account's key and certificate.

        Raises:
            OSError: they cannot be read or written; the next call tries again.

        """
        if self._signer is None:
            self._signer = load_signer(self._layout)
        return self._signer

    def answer(self, machine: Machine, form: str) -> str | None:
        """A form of the machine's document; None for a form that does not exist.

        Raises:
            OSError: the key cannot be read or written.

        """
        return self.prepare().answer(machine, form)


def document(machine: Machine) -> bytes:
    """The identity document of a machine, with the fields that AWS gives."""
    fields: JsonObject = {
        "accountId": machine.account_id,
        "architecture": architecture_of(machine.instance_type),
        "availabilityZone": machine.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "imageId": machine.image_id,
        "instanceId": machine.instance_id,
        "instanceType": machine.instance_type,
        "kernelId": None,
        "marketplaceProductCodes": None,
        "pendingTime": iso(machine.launched_at),
        "privateIp": machine.address,
        "ramdiskId": None,
        "region": machine.region,
        "version": "2017-09-30",
    }
    return msgspec.json.format(msgspec.json.encode(fields))


def load_signer(layout: Layout) -> IdentitySigner:
    """The account's key and certificate, made on first use.

    A key or certificate that cannot be read is kept under another name, and both are made anew.

    Raises:
        OSError: the files cannot be read or written.

    """
    try:
        signer = _read(layout)
    except (ValueError, TypeError, InvalidSignature):
        for path in (layout.identity_key, layout.identity_certificate):
            if path.exists():
                path.replace(path.with_name(f"{path.name}.unreadable"))
        signer = None
    return signer or _make(layout)


def _read(layout: Layout) -> IdentitySigner | None:
    """The stored key and certificate; None if one is missing.

    Raises:
        ValueError, TypeError, InvalidSignature: they are damaged, or do not belong together.

    """
    try:
        key_pem = layout.identity_key.read_bytes()
        certificate = x509.load_pem_x509_certificate(layout.identity_certificate.read_bytes())
    except FileNotFoundError:
        return None
    key = serialization.load_pem_private_key(key_pem, None)
    if not isinstance(key, RSAPrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("the certificate is not of this key")
    return IdentitySigner(key, certificate)


def _make(layout: Layout) -> IdentitySigner:
    key = generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesaform local cloud")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALIDITY)
        .sign(key, hashes.SHA256())
    )
    private_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    layout.identity.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomically(layout.identity_key, private_pem, mode=PRIVATE_FILE_MODE)
    certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
    write_atomically(layout.identity_certificate, certificate_pem, mode=CERTIFICATE_MODE)
    return IdentitySigner(key, certificate)


def _lines(data: bytes) -> str:
    text = base64.b64encode(data).decode("ascii")
    return "\n".join(text[at : at + _BASE64_LINE] for at in range(0, len(text), _BASE64_LINE))
