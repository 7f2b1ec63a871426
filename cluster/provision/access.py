"""The access document of a cluster: written by `mesaform up`, rotated by `mesaform token rotate`.

Depends on SSM.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

import msgspec

from mesaform.common.access import TOKEN_BYTES, AccessDocument
from mesaform.common.errors import MissingPrerequisite
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import require_deployment
from mesaform.topology import names
from mesaform.topology.access import settled

OWNER = "access"
"""The value of the tag `mesaform:managed-by`: no state of Terraform lists the parameter."""


class AccessStore(Protocol):
    """Where the document is stored (`mesaform.aws.access_writer`). Raises CloudError."""

    name: str

    def read(self) -> AccessDocument | None: ...

    def create(self, document: AccessDocument, tags: dict[str, str]) -> None: ...

    def replace(self, document: AccessDocument) -> None: ...


def draw_secret() -> str:
    """A new secret of 256 bits."""
    return secrets.token_hex(TOKEN_BYTES)


def access_store(place: ClusterContext) -> AccessStore:
    """The store of a cluster."""
    from mesaform.aws.access_writer import AccessWriter

    return AccessWriter(place.spec.name, place.spec.region)


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
        deployment = require_deployment(place.cluster_dir)
        store.create(
            wanted,
            names.tags(spec, DEPLOYMENT=deployment.deployment_id, MANAGED_BY=OWNER),
        )
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
    store = access_store(place)
    document = store.read()
    if document is None:
        raise MissingPrerequisite(
            "the cluster has no token",
            where=f"SSM parameter {store.name}",
            fix="set access.token: required in the cluster file, then: mesaform up",
        )
    return document


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
