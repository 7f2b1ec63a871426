"""The proof of this instance's identity, which the node wrote into a file that only root reads."""

from __future__ import annotations

import msgspec
import structlog

from mesaform.topology.instance_identity import SignedIdentity, read_proof

log = structlog.get_logger(__name__)


def current_proof(path: str) -> SignedIdentity | None:
    """The proof; None without one. It is read for each stream, so that a new one has effect."""
    try:
        return read_proof(path)
    except (OSError, msgspec.DecodeError) as error:
        log.error("proof_unreadable", path=path, error=str(error))  # noqa: TRY400 - the file's fault
        return None
