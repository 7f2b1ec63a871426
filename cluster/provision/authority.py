"""The CA of a cluster with `tls: true`: created by `mesaform up`, rotated by `mesaform ca rotate`.

SSM has the CA with its key. The cluster's folder keeps a copy of the certificates, which are no
secret: verbs verify the masters against it, and the stacks write it into user data. Depends on SSM.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mesaform.common.files import write_atomically
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import require_deployment
from mesaform.provision.secret_documents import (
    DocumentStore,
    create_document,
    document_store,
    require_document,
)

if TYPE_CHECKING:
    from mesaform.common.certificates import Authority, AuthorityDocument

    AuthorityStore: TypeAlias = DocumentStore[AuthorityDocument]

FILE_NAME = "ca.pem"
DAY_S = 86400


class Rotation(StrEnum):
    """Steps of a rotation. The authorities in the document are the state of an interrupted one."""

    ADDED = "added"
    SWITCHED = "switched"
    DROPPED = "dropped"


def authority_store(place: ClusterContext) -> AuthorityStore:
    """The store of a cluster."""
    from mesaform.aws.authority_parameter import AUTHORITY_DOCUMENT

    return document_store(place, AUTHORITY_DOCUMENT)


def certificates_file(folder: Path) -> Path:
    """The copy of the CA's certificates in a cluster's folder."""
    return folder / FILE_NAME


def ensure_authority(place: ClusterContext) -> str:
    """Create the CA if the spec asks for one. Idempotent; returns what was done, or nothing.

    Raises:
        CloudError: SSM refused or did not answer.
        NotOwned: the folder has no deployment.

    """
    if not place.spec.tls:
        return ""
    from mesaform.common.certificates import AuthorityDocument, create_authority

    store = authority_store(place)
    document = store.read()
    outcome = "unchanged"
    if document is None:
        deployment = require_deployment(place.cluster_dir)
        own = create_authority(place.spec.name, deployment.deployment_id, time.time())
        document = AuthorityDocument((own,))
        create_document(place, store, document)
        outcome = "a new CA; see it with: mesaform ca show"
    _keep(place.cluster_dir, document)
    return outcome + _describe_end(document, time.time())


def _describe_end(document: AuthorityDocument, now: float) -> str:
    """A warning in the last year of the CA; empty before."""
    from mesaform.common.certificates import ends_at

    left_days = (ends_at(document.authorities[0].certificate) - now) / DAY_S
    return f"; it ends in {left_days:.0f} days: mesaform ca rotate" if left_days < 365 else ""


def refresh_copy(place: ClusterContext) -> None:
    """Renew the folder's copy, where the cluster has TLS and a CA.

    Raises:
        CloudError: SSM refused or did not answer.

    """
    if place.spec.tls and (document := authority_store(place).read()) is not None:
        _keep(place.cluster_dir, document)


def require_authority(place: ClusterContext) -> AuthorityDocument:
    """The stored CA.

    Raises:
        MissingPrerequisite: there is none.
        CloudError: SSM refused or did not answer.

    """
    document = require_document(authority_store(place), "CA", "tls: true")
    _keep(place.cluster_dir, document)
    return document


def rotate(
    document: AuthorityDocument, draw: Callable[[], Authority]
) -> tuple[AuthorityDocument, Rotation]:
    """The next step of a rotation: the successor is added, then issues, then stands alone.

    Between the steps every machine must have learned of the present one (docs/operations.md).

    Args:
        document: the stored CA.
        draw: gives a new authority.

    """
    first, *rest = document.authorities
    if not rest:
        added = msgspec.structs.replace(document, authorities=(first, draw()))
        return added, Rotation.ADDED
    if _is_older(first, rest[0]):
        switched = msgspec.structs.replace(document, authorities=(rest[0], first))
        return switched, Rotation.SWITCHED
    return msgspec.structs.replace(document, authorities=(first,)), Rotation.DROPPED


def _is_older(first: Authority, second: Authority) -> bool:
    from mesaform.common.certificates import ends_at

    return ends_at(first.certificate) <= ends_at(second.certificate)


def _keep(folder: Path, document: AuthorityDocument) -> None:
    path, text = certificates_file(folder), document.certificates.encode()
    if path.exists() and path.read_bytes() == text:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text, mode=0o644)
