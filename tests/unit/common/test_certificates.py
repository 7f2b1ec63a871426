"""The cluster's CA: what its certificates say, and what it refuses to sign."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
from functools import cache

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.aws.secure_parameter import MAX_DOCUMENT_BYTES
from mesaform.common import certificates
from mesaform.common.certificates import AuthorityDocument, NotIssued, Subject

NOW = 1_800_000_000.0
DAY_S = 86400
AGENT = Subject("i-1", ("10.0.0.7",))


@pytest.fixture(scope="module")
def authority() -> certificates.Authority:
    return certificates.create_authority("toy", "d1", NOW)


def parsed(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def test_the_ca_may_sign_certificates_of_machines_and_no_further_cas(
    authority: certificates.Authority,
) -> None:
    certificate = parsed(authority.certificate)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    certificate.verify_directly_issued_by(certificate)
    years = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert dt.timedelta(days=3650) <= years < dt.timedelta(days=3651)


def test_a_certificate_names_what_the_issuer_proved_and_not_what_the_request_asks_for(
    authority: certificates.Authority,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "i-2")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("10.0.0.10"))]), False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    certificate = parsed(certificates.issue_for_request(authority, request, AGENT, NOW))
    certificate.verify_directly_issued_by(parsed(authority.certificate))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(item) for item in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    assert names.get_values_for_type(x509.DNSName) == []
    assert certificate.subject.rfc4514_string() == "CN=i-1"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.public_key() == key.public_key()


def test_a_masters_certificate_has_addresses_and_names(
    authority: certificates.Authority,
) -> None:
    hosts = certificates.master_hosts(
        ("10.0.0.10", "203.0.113.9", "10.0.0.10"),
        ("masters.example.com", "", "toy-masters-*.elb.eu-west-1.amazonaws.com"),
    )
    text = certificates.issue_for_key(
        authority, certificates.draw_key(), Subject("i-0", hosts), NOW
    )
    assert certificates.read_certificate(text).hosts == {
        "10.0.0.10",
        "203.0.113.9",
        "masters.example.com",
        "*.elb.eu-west-1.amazonaws.com",
    }


def test_a_certificate_is_due_after_a_day_and_valid_for_six_more(
    authority: certificates.Authority,
) -> None:
    text = certificates.issue_for_key(authority, certificates.draw_key(), AGENT, NOW)
    certificate = certificates.read_certificate(text)
    assert certificate.ends_at == NOW + 7 * DAY_S
    assert [certificate.is_due(NOW + after) for after in (0, DAY_S - 1, DAY_S)] == [
        False,
        False,
        True,
    ]
    assert certificate.is_due(NOW - 10 * DAY_S), "the clock was wrong when it was issued"
    assert certificate.issuer_key_id == certificates.key_id(authority.certificate)


def a_request_with_a_key_of_rsa() -> str:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "i-1")])
    built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


def a_request_that_is_not_signed_by_its_key() -> str:
    text = certificates.request_certificate(certificates.draw_key(), "i-1")
    der = bytearray(x509.load_pem_x509_csr(text.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    changed = x509.load_der_x509_csr(bytes(der))
    return changed.public_bytes(serialization.Encoding.PEM).decode()


def a_request_with_a_key_of(curve: ec.EllipticCurve) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "i-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    built = builder.sign(ec.generate_private_key(curve), hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


def a_request_of_bytes(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


@cache
def der_of_a_request() -> bytes:
    text = certificates.request_certificate(certificates.draw_key(), "i-1")
    return x509.load_pem_x509_csr(text.encode()).public_bytes(serialization.Encoding.DER)


def a_request_with_another_number_for(oid: str) -> str:
    """The last byte of an object identifier is changed: nobody knows the new one."""
    known = bytes.fromhex(oid)
    assert known in der_of_a_request()
    return a_request_of_bytes(der_of_a_request().replace(known, known[:-1] + b"\x63"))


CURVE_P256, KEY_OF_A_CURVE, ECDSA_SHA256 = "2a8648ce3d030107", "2a8648ce3d0201", "2a8648ce3d040302"


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_no_bytes_of_a_request_are_answered_otherwise_than_by_refusal_or_a_certificate(
    authority: certificates.Authority, changes: list[tuple[int, int]]
) -> None:
    der = bytearray(der_of_a_request())
    for place, change in changes:
        der[place % len(der)] ^= change
    with contextlib.suppress(NotIssued):
        text = certificates.issue_for_request(authority, a_request_of_bytes(bytes(der)), AGENT, NOW)
        assert certificates.read_certificate(text).hosts == {"10.0.0.7"}


@pytest.mark.parametrize(
    ("request_text", "reason"),
    [
        ("", "cannot be read"),
        ("\ud800", "cannot be read"),
        (a_request_with_a_key_of(ec.SECP192R1()), "secp192r1, not P-256"),
        (a_request_with_a_key_of(ec.SECP521R1()), "secp521r1, not P-256"),
        (a_request_with_another_number_for(CURVE_P256), "cannot be read"),
        (a_request_with_another_number_for(KEY_OF_A_CURVE), "cannot be read"),
        (a_request_with_another_number_for(ECDSA_SHA256), "not signed by its key"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "read"),
        (a_request_with_a_key_of_rsa(), "not of an elliptic curve"),
        (a_request_that_is_not_signed_by_its_key(), "not signed by its key"),
    ],
)
def test_a_request_that_proves_no_key_is_not_signed(
    authority: certificates.Authority, request_text: str, reason: str
) -> None:
    with pytest.raises(NotIssued, match=reason):
        certificates.issue_for_request(authority, request_text, AGENT, NOW)


def test_the_ca_and_its_successor_fit_into_a_parameter_and_their_order_shows_in_no_user_data(
    authority: certificates.Authority,
) -> None:
    second = certificates.create_authority("n" * 100, "d" * 64, NOW + 1)
    document = AuthorityDocument((authority, second))
    text = certificates.document_text(document)
    assert len(text.encode()) <= MAX_DOCUMENT_BYTES
    assert certificates.parse_document(text) == document
    assert document.certificates == AuthorityDocument((second, authority)).certificates
    assert "PRIVATE" not in document.certificates


@pytest.mark.parametrize("text", ["{}", '{"authorities": []}', '{"authorities": [{"key": ""}]}'])
def test_a_document_without_a_ca_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        certificates.parse_document(text)
