"""Secret documents of a cluster in SSM: the access document and the CA, which operators write.

Depends on SSM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from mesaform.common.errors import MissingPrerequisite
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import require_deployment
from mesaform.topology import names

if TYPE_CHECKING:
    from mesaform.aws.secure_parameter import DocumentKind

OWNER = "access"
"""The value of the tag `mesaform:managed-by`: no state of Terraform lists the parameters."""

DocumentT = TypeVar("DocumentT")


class DocumentStore(Protocol[DocumentT]):
    """Where a document is stored (`mesaform.aws.secure_parameter_writer`). Raises CloudError."""

    name: str

    def read(self) -> DocumentT | None: ...

    def create(self, document: DocumentT, tags: dict[str, str]) -> None: ...

    def replace(self, document: DocumentT) -> None: ...


def document_store(
    place: ClusterContext, kind: DocumentKind[DocumentT]
) -> DocumentStore[DocumentT]:
    """The store of a cluster's documents of a kind."""
    from mesaform.aws.secure_parameter_writer import SecureParameterWriter

    return SecureParameterWriter(kind, place.spec.name, place.spec.region)


def create_document(
    place: ClusterContext, store: DocumentStore[DocumentT], document: DocumentT
) -> None:
    """Store the first document, with the tags of the cluster and its deployment.

    Raises:
        CloudError: SSM refused or did not answer, or there is a document already.
        NotOwned: the folder has no deployment.

    """
    deployment_id = require_deployment(place.cluster_dir).deployment_id
    store.create(document, names.tags(place.spec, DEPLOYMENT=deployment_id, MANAGED_BY=OWNER))


def require_document(store: DocumentStore[DocumentT], missing: str, setting: str) -> DocumentT:
    """The stored document.

    Args:
        store: where it is.
        missing: what an operator calls it: "CA".
        setting: of the cluster file, with which `mesaform up` creates it.

    Raises:
        MissingPrerequisite: there is none.
        CloudError: SSM refused or did not answer.

    """
    document = store.read()
    if document is None:
        raise MissingPrerequisite(
            f"the cluster has no {missing}",
            where=f"SSM parameter {store.name}",
            fix=f"set {setting} in the cluster file, then: mesaform up",
        )
    return document
