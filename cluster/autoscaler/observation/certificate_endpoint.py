"""HTTP endpoint `POST /certificates`, where agents get a certificate of the cluster's CA.

Every autoscaler issues, whether it leads or not. The caller proves which instance it is; the
certificate names that instance and its private address, whatever the request asks for
(docs/adr/0048-tls.md). Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from mesaform.autoscaler.observation.agent_proof import prove_instance
from mesaform.http import BadRequest, decode_json
from mesaform.topology.instance_identity import InstanceDocument, InstanceVerifier
from mesaform.topology.user_data import CERTIFICATES_PATH, CertificateRequest, IssuedCertificate

log = structlog.get_logger()


class CertificateEndpoint:
    """Endpoint of a process.

    Args:
        authority_file: the CA, as `mesaform.node.certificates` copies it to this master; empty: the
            cluster has no TLS, and nothing is issued.
        verifier: verifies the caller; without one nothing is issued.
        now: epoch seconds.

    """

    def __init__(
        self, authority_file: str, verifier: InstanceVerifier | None, now: Callable[[], float]
    ) -> None:
        self._file = Path(authority_file) if authority_file else None
        self._verifier = verifier
        self._now = now

    def add_to(self, app: web.Application) -> web.Application:
        """Add the route, where certificates can be issued."""
        if self._file is not None and self._verifier is not None:
            app.router.add_post(CERTIFICATES_PATH, self._receive)
        return app

    async def _receive(self, request: web.Request) -> web.Response:
        wanted = await decode_json(request, CertificateRequest)
        document = prove_instance(request, self._verifier)
        try:
            issued = await asyncio.to_thread(self._issue, wanted.request, document)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("no certificate issued", error=str(error))
            raise web.HTTPServiceUnavailable(text="this master has no CA yet") from None
        log.info("certificate issued", instance=document.instance_id, host=document.private_ip)
        return web.Response(body=msgspec.json.encode(issued), content_type="application/json")

    def _issue(self, request: str, document: InstanceDocument) -> IssuedCertificate:
        """Issue a certificate. The libraries, 10 MiB, are loaded where the cluster has TLS.

        Raises:
            BadRequest: the request for a certificate is not valid.
            OSError, msgspec.DecodeError: the CA cannot be read.

        """
        from mesaform.common.certificates import (
            NotIssued,
            Subject,
            issue_for_request,
            parse_document,
        )

        if self._file is None:
            raise BadRequest("this cluster has no TLS")
        authorities = parse_document(self._file.read_bytes())
        subject = Subject(document.instance_id, (document.private_ip,))
        try:
            certificate = issue_for_request(
                authorities.authorities[0], request, subject, self._now()
            )
        except NotIssued as error:
            raise BadRequest(str(error)) from None
        return IssuedCertificate(certificate, authorities.certificates)
