"""Proof that a request comes from the machine that it is about (docs/adr/0027-identities.md)."""

from __future__ import annotations

from aiohttp import web

from mesaform.http import BadRequest
from mesaform.topology.instance_identity import (
    IDENTITY_HEADER,
    InstanceDocument,
    InstanceVerifier,
    Unproven,
    identity_from_header,
)

FORBIDDEN = 403


def require_instance(
    request: web.Request, verifier: InstanceVerifier | None, instance_id: str
) -> None:
    """Check that the request proves to come from this instance.

    Without a verifier every request passes: the metadata service signs no identities.

    Raises:
        BadRequest: 403, it proves another instance or none.

    """
    if verifier is None:
        return
    document = prove_instance(request, verifier)
    if document.instance_id != instance_id:
        raise BadRequest(f"{document.instance_id} cannot report for {instance_id}", FORBIDDEN)


def prove_instance(request: web.Request, verifier: InstanceVerifier | None) -> InstanceDocument:
    """The instance that the request proves to come from.

    Raises:
        BadRequest: 403, it proves none, or nothing verifies proofs here.

    """
    if verifier is None:
        raise BadRequest("the request is refused: no instance is verified here", FORBIDDEN)
    try:
        identity = identity_from_header(request.headers.get(IDENTITY_HEADER, ""))
        return verifier.verify(identity, request.remote or "")
    except Unproven as error:
        raise BadRequest(f"the request is refused: {error}", FORBIDDEN) from None
