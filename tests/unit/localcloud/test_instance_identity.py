"""Instance identity documents carry AWS's fields and verify with the published certificate."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from mesaform.localcloud.instance_identity import IdentityService, load_signer
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import Machine
from tests.support.instances import an_instance


def machine(instance_id: str = "i-0123456789abcdef0", address: str = "127.31.0.10") -> Machine:
    return an_instance(instance_id, address)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def public_key(layout: Layout) -> RSAPublicKey:
    key = x509.load_pem_x509_certificate(layout.identity_certificate.read_bytes()).public_key()
    assert isinstance(key, RSAPublicKey)
    return key


def test_the_document_has_the_fields_of_aws(layout: Layout) -> None:
    text = IdentityService(layout).answer(machine(), "document")
    assert json.loads(text) == {
        "accountId": "123456789012",
        "architecture": "x86_64",
        "availabilityZone": "us-east-1a",
        "billingProducts": None,
        "devpayProductCodes": None,
        "imageId": "ami-0123456789abcdef0",
        "instanceId": "i-0123456789abcdef0",
        "instanceType": "m5.large",
        "kernelId": None,
        "marketplaceProductCodes": None,
        "pendingTime": "2023-11-14T22:13:20Z",
        "privateIp": "127.31.0.10",
        "ramdiskId": None,
        "region": "us-east-1",
        "version": "2017-09-30",
    }


def test_the_signature_verifies_for_its_own_document_only(layout: Layout) -> None:
    service = IdentityService(layout)
    signature = base64.b64decode(service.answer(machine(), "signature"))
    key = public_key(layout)
    own = service.answer(machine(), "document").encode()
    key.verify(signature, own, padding.PKCS1v15(), hashes.SHA256())
    other = service.answer(machine(instance_id="i-0fffffffffffffff0"), "document").encode()
    with pytest.raises(InvalidSignature):
        key.verify(signature, other, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
@pytest.mark.parametrize("form", ["pkcs7", "rsa2048"])
def test_openssl_verifies_the_signed_forms_as_the_aws_documentation_does(
    layout: Layout, form: str
) -> None:
    service = IdentityService(layout)
    signed = layout.root / "signed"
    body = service.answer(machine(), form)
    signed.write_text(f"-----BEGIN PKCS7-----\n{body}\n-----END PKCS7-----\n")
    certificate = str(layout.identity_certificate)
    command = ["openssl", "smime", "-verify", "-in", str(signed), "-inform", "PEM"]
    verified = subprocess.run(
        [*command, "-certfile", certificate, "-noverify", "-nointern"],
        capture_output=True,
        check=True,
    )
    assert verified.stdout.decode() == service.answer(machine(), "document")


def test_the_key_outlives_the_process_and_only_its_owner_reads_it(layout: Layout) -> None:
    load_signer(layout)
    first = layout.identity_certificate.read_bytes()
    IdentityService(layout).prepare()
    assert layout.identity_certificate.read_bytes() == first
    assert stat.S_IMODE(layout.identity_key.stat().st_mode) == 0o600


@pytest.mark.parametrize("damaged", ["identity_key", "identity_certificate"])
def test_a_damaged_key_or_certificate_is_kept_and_replaced(layout: Layout, damaged: str) -> None:
    load_signer(layout)
    path: Path = getattr(layout, damaged)
    path.write_bytes(b"not PEM")
    signer = load_signer(layout)
    assert path.with_name(f"{path.name}.unreadable").read_bytes() == b"not PEM"
    assert signer.key.public_key() == public_key(layout)


def test_a_key_that_is_not_of_the_certificate_is_replaced(tmp_path: Path) -> None:
    own, other = Layout(tmp_path / "own"), Layout(tmp_path / "other")
    load_signer(own)
    load_signer(other)
    shutil.copy(other.identity_key, own.identity_key)
    signer = load_signer(own)
    assert signer.key.public_key() == public_key(own)
    assert public_key(own) != public_key(other)


def test_forms_that_aws_does_not_have_are_absent(layout: Layout) -> None:
    assert IdentityService(layout).answer(machine(), "dsa") is None
