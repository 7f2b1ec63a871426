"""The access document of a cluster: written by `mesaform up`, rotated by `mesaform token rotate`.

Depends on SSM.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from mesaform.common.access import TOKEN_BYTES, AccessDocument
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.secret_documents import (
    DocumentStore,
    create_document,
    document_store,
    require_document,
)
from mesaform.topology.access import settled

AccessStore: TypeAlias = DocumentStore[AccessDocument]


def draw_secret() -> str:
    """A new secret of 256 bits."""
    return secrets.token_hex(TOKEN_BYTES)


def access_store(place: ClusterContext) -> AccessStore:
    """The store of a cluster."""
    from mesaform.aws.access_parameter import ACCESS_DOCUMENT

    return document_store(place, ACCESS_DOCUMENT)


def ensure_access(place: ClusterContext) -> str:
    """Store the document that the spec asks for. Idempotent; returns what was done, or nothing.

    Raises:
        CloudError: SSM refused or did not answer.
        NotOwned: the folder has no deployment.

    """
    spec = place.spec
    if not spec.access.is_in_use:
        return ""
    store = access_store(place)
    current = store.read()
    wanted = settled(current, spec, draw_secret)
    if current is None:
        create_document(place, store, wanted)
        return "a new token; see it with: mesaform token show"
    if wanted != current:
        store.replace(wanted)
        return "credentials of frameworks renewed"
    return "unchanged"


def require_access(place: ClusterContext) -> AccessDocument:
    """The stored document.

    Raises:
        MissingPrerequisite: there is none.
        CloudError: SSM refused or did not answer.

    """
    return require_document(access_store(place), "token", "access.token: required")


def rotate(
    store: AccessStore,
    document: AccessDocument,
    wait: Callable[[str, bool], None],
    draw: Callable[[], str] = draw_secret,
) -> AccessDocument:
    """Replace the token. Both tokens are valid until every master has read the new one.

    A rotation that was interrupted is carried on.

    Args:
        store: where the document is.
        document: the stored document.
        wait: returns once every master accepts a token (true), or refuses it (false).
        draw: gives a new token.

    Raises:
        CloudError: SSM refused or did not answer.
        MesaformError: of `wait`; both tokens are then valid.

    """
    old, *rest = document.tokens
    new = rest[-1] if rest else draw()
    both = msgspec.structs.replace(document, tokens=(old, new))
    if both != document:
        store.replace(both)
    wait(new, True)
    final = msgspec.structs.replace(document, tokens=(new,))
    store.replace(final)
    wait(old, False)
    return final
