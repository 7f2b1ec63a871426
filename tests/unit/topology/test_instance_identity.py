"""Who can prove to be an instance: signatures, addresses, accounts."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.errors import BadInput
from mesaform.topology.instance_identity import (
    AWS_CERTIFICATES,
    PublicKey,
    SignedIdentity,
    Unproven,
    aws_key,
    identity_from_header,
    identity_header,
    public_key,
    verifier_from,
    verify,
)
from tests.support.instances import ACCOUNT, REGION, Account

INSTANCE, ADDRESS = "i-0123456789abcdef0", "10.0.0.7"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
PUBLIC = PublicKey(KEY.public_key().public_numbers().n, KEY.public_key().public_numbers().e)
DOCUMENT = json.dumps(
    {"instanceId": INSTANCE, "privateIp": ADDRESS, "accountId": ACCOUNT, "region": REGION}
)


def signed(text: str = DOCUMENT, algorithm: hashes.HashAlgorithm | None = None) -> SignedIdentity:
    signature = KEY.sign(text.encode(), padding.PKCS1v15(), algorithm or hashes.SHA256())
    return SignedIdentity(text, base64.encodebytes(signature).decode())


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(tmp_path_factory.mktemp("account"))


def test_a_document_that_its_cloud_signed_proves_the_instance() -> None:
    document = verify(signed(), PUBLIC)
    assert (document.instance_id, document.private_ip) == (INSTANCE, ADDRESS)


@given(st.integers(0, len(DOCUMENT) - 1), st.characters(min_codepoint=32, max_codepoint=126))
def test_a_document_with_one_other_character_proves_nothing(place: int, character: str) -> None:
    changed = DOCUMENT[:place] + character + DOCUMENT[place + 1 :]
    if changed == DOCUMENT:
        return
    with pytest.raises(Unproven, match="not EC2's"):
        verify(SignedIdentity(changed, signed().signature), PUBLIC)


@given(st.binary(max_size=200))
def test_no_other_bytes_are_a_signature(signature: bytes) -> None:
    with pytest.raises(Unproven):
        verify(SignedIdentity(DOCUMENT, base64.b64encode(signature).decode()), PUBLIC)


def test_signatures_of_another_key_another_digest_and_another_padding_are_refused() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    for signature in (
        other.sign(DOCUMENT.encode(), padding.PKCS1v15(), hashes.SHA256()),
        KEY.sign(DOCUMENT.encode(), padding.PKCS1v15(), hashes.SHA1()),
        KEY.sign(DOCUMENT.encode(), pss, hashes.SHA256()),
    ):
        with pytest.raises(Unproven, match="not EC2's"):
            verify(SignedIdentity(DOCUMENT, base64.b64encode(signature).decode()), PUBLIC)


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"instanceId": 1}', "x" * 5000])
def test_a_signed_text_that_is_no_document_proves_nothing(text: str) -> None:
    with pytest.raises(Unproven):
        verify(signed(text), PUBLIC)


def test_the_file_of_aws_has_a_key_for_each_of_its_regions() -> None:
    regions = [
        region.strip()
        for line in AWS_CERTIFICATES.read_text().splitlines()
        if line.startswith("# ") and line.count("-") >= 2 and " " not in line[2:].replace(", ", "")
        for region in line[2:].split(",")
    ]
    assert {"us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"} <= set(regions)
    assert all(aws_key(region).modulus.bit_length() >= 1024 for region in regions)


def test_keys_are_those_that_a_library_of_cryptography_reads() -> None:
    text = AWS_CERTIFICATES.read_text()
    certificates = x509.load_pem_x509_certificates(text.encode())
    expected = {key.n for item in certificates if (key := _numbers(item))}
    end = "-----END CERTIFICATE-----"
    parts = ["-----BEGIN" + part.partition(end)[0] + end for part in text.split("-----BEGIN")[1:]]
    assert {public_key(part).modulus for part in parts} == expected


def _numbers(certificate: x509.Certificate) -> rsa.RSAPublicNumbers:
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key.public_numbers()


def test_a_short_key_and_a_text_that_is_no_certificate_are_refused() -> None:
    for text in ("", "x", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"):
        with pytest.raises(ValueError, match="not a certificate"):
            public_key(text)
    with pytest.raises(ValueError, match="no certificate of mars-1"):
        aws_key("mars-1")


def test_a_certificate_of_today_can_be_read() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a signer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, KEY.public_key(), 7, now, now + timedelta(days=1))
    ).sign(KEY, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    assert public_key(pem) == PUBLIC


@pytest.mark.parametrize("source", ["10.0.0.8", "127.0.0.1", "::1", "", "10.0.0.70"])
def test_a_proof_from_another_address_is_refused(account: Account, source: str) -> None:
    proof = account.proof(INSTANCE, ADDRESS)
    assert account.verifier.verify(proof, ADDRESS).instance_id == INSTANCE
    with pytest.raises(Unproven, match=rf"{INSTANCE} has the address {ADDRESS}"):
        account.verifier.verify(proof, source)


def test_addresses_of_one_host_are_one_machine_to_a_cluster_of_processes(account: Account) -> None:
    proof = account.proof(INSTANCE, "127.42.0.9")
    assert account.verifier.verify(proof, "127.0.0.1").private_ip == "127.42.0.9"
    with pytest.raises(Unproven):
        account.verifier.verify(proof, "10.0.0.1")


@pytest.mark.parametrize("facts", [{"account_id": "999999999999"}, {"region": "eu-west-1"}])
def test_an_instance_of_another_account_or_region_is_refused(
    account: Account, facts: dict[str, str]
) -> None:
    with pytest.raises(Unproven, match="not of this cluster's"):
        account.verifier.verify(account.proof(INSTANCE, ADDRESS, **facts), ADDRESS)


def test_no_proof_and_another_accounts_key_are_refused(account: Account, tmp_path: Path) -> None:
    with pytest.raises(Unproven, match="does not prove which instance"):
        account.verifier.verify(None, ADDRESS)
    with pytest.raises(Unproven, match="not EC2's"):
        account.verifier.verify(Account(tmp_path).proof(INSTANCE, ADDRESS), ADDRESS)


def test_a_proof_survives_an_http_header_and_a_damaged_header_is_none(account: Account) -> None:
    proof = account.proof(INSTANCE, ADDRESS)
    (text,) = identity_header(proof).values()
    assert identity_from_header(text) == proof
    assert identity_from_header("") is None
    assert identity_header(None) == {}
    for damaged in ("x", "e30=", "\u00e4", text[:-8]):
        with pytest.raises(Unproven):
            identity_from_header(damaged)


def test_a_master_without_an_account_verifies_nobody_and_a_missing_certificate_is_named(
    account: Account,
) -> None:
    assert verifier_from({}) is None
    assert verifier_from(account.environment) == account.verifier
    with pytest.raises(BadInput, match="nowhere"):
        verifier_from(account.environment | {"MESAFORM_IDENTITY_CERTIFICATE": "/nowhere.pem"})
    on_aws = {"MESAFORM_IDENTITY_ACCOUNT": ACCOUNT, "MESAFORM_IDENTITY_REGION": "eu-west-1"}
    verifier = verifier_from(on_aws)
    assert verifier is not None
    assert verifier.key == aws_key("eu-west-1")
