"""Attacks on the routes of machines on 9550: spellings of paths, proofs and requests."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesaform.autoscaler.observation.certificate_endpoint import CertificateEndpoint
from mesaform.autoscaler.observation.notice_endpoint import NoticeEndpoint
from mesaform.autoscaler.reporting.http_server import Page, http_port
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.common import certificates
from mesaform.common.certificates import AuthorityDocument, document_text
from mesaform.http import UNHANDLED, Access, AccessFile, HttpServer
from mesaform.topology.instance_identity import IDENTITY_HEADER, SignedIdentity, identity_header
from tests.support.instances import Account
from tests.support.raw_http import request, send

MASTER = "127.74.0.1"
TOKEN = "a" * 64
REQUEST = json.dumps(
    {"request": certificates.request_certificate(certificates.draw_key(), "i-1")}
).encode()


@dataclass(frozen=True)
class Served:
    """Port 9550 of a master with a CA, and the account whose instances may ask it."""

    port: int
    account: Account

    def proof(self, **changes: str) -> dict[str, str]:
        """The header of `i-1`, with other texts instead of its document or signature."""
        own = self.account.proof("i-1", MASTER)
        return identity_header(
            SignedIdentity(
                changes.get("document", own.document), changes.get("signature", own.signature)
            )
        )

    async def status(self, line: str, headers: dict[str, str], body: bytes = b"") -> int:
        """The status of a request that is sent as it is."""
        method, _, path = line.partition(" ")
        fields = {"Content-Type": "application/json", **headers}
        return (await send(MASTER, self.port, request(method, path, body, fields, MASTER))).status


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    account = Account(tmp_path)
    authority = certificates.create_authority("toy", "d1", time.time())
    (tmp_path / "ca.json").write_text(document_text(AuthorityDocument((authority,))))
    (tmp_path / "access.json").write_text(json.dumps({"tokens": [TOKEN]}))
    page = Page(Telemetry(), lambda: "", [MASTER], f"{MASTER}:9550").application()
    notices = NoticeEndpoint(account.verifier).add_to(page)
    issuer = CertificateEndpoint(str(tmp_path / "ca.json"), account.verifier, time.time)
    access = Access(AccessFile(tmp_path / "access.json"), is_required=True)
    server = HttpServer(issuer.add_to(notices), http_port(9550, access))
    yield Served(await server.listen(MASTER, 0), account)
    await server.stop()
    assert not UNHANDLED.by_port().get("9550")


async def test_no_spelling_of_a_path_opens_what_needs_the_token(served: Served) -> None:
    for path in (
        "/view",
        "/decisions",
        "/health/../view",
        "/health%2f..%2fview",
        "/health;/view",
        "//health",
        "/view?/health",
        "/%68ealth",
        "/certificates/",
        "//certificates",
        "/%63ertificates",
        f"http://{MASTER}/view",
    ):
        assert await served.status(f"GET {path}", {}) == 401, path
    for value in ("Bearer", "Bearer ", "Bearer \xff", f"Bearer {TOKEN[:-1]}", f"Token {TOKEN}"):
        assert await served.status("GET /decisions", {"Authorization": value}) == 401, value
    assert await served.status("GET /decisions", {"Authorization": f"Bearer {TOKEN}"}) == 200
    override = {"X-HTTP-Method-Override": "GET"}
    assert await served.status("POST /health", override) == 405


async def test_no_proof_but_the_instances_own_gets_a_certificate(served: Served) -> None:
    own = served.account.proof("i-1", MASTER)
    encoded = {
        "nothing": b"",
        "no text": b"\xff\xfe",
        "nested": b"[" * 4000,
        "half a pair": b'{"document":"\\ud800","signature":"\\ud800"}',
    }
    proofs = {
        **{
            name: {IDENTITY_HEADER: base64.b64encode(item).decode()}
            for name, item in encoded.items()
        },
        "no base64": {IDENTITY_HEADER: "!!!"},
        "another byte": served.proof(document=own.document + " "),
        "a longer signature": served.proof(signature="A" * 4000),
        "a padded signature": served.proof(signature=own.signature + "AAAA"),
        "another account's": identity_header(
            served.account.proof("i-1", MASTER, account_id="999999999999")
        ),
        "another machine's address": identity_header(served.account.proof("i-1", "10.0.0.9")),
    }
    for name, headers in proofs.items():
        assert await served.status("POST /certificates", headers, REQUEST) == 403, name
    assert await served.status("POST /certificates", served.proof(), REQUEST) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"request":null}',
        b'{"request":"\\ud800"}',
        json.dumps({"request": "x" * 5000}).encode(),
        b'{"request":"' + b"-----BEGIN CERTIFICATE REQUEST-----" + b'"}',
    ],
)
async def test_a_broken_request_with_a_proof_is_the_callers_fault(
    served: Served, body: bytes
) -> None:
    assert await served.status("POST /certificates", served.proof(), body) == 400
    page = {**served.proof(), "Origin": "http://evil.example"}
    assert await served.status("POST /certificates", page, REQUEST) == 403
