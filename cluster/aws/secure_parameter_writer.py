"""A document of a cluster in SSM, written by operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesaform.aws.client import client
from mesaform.aws.errors import translate_errors
from mesaform.aws.secure_parameter import (
    MAX_DOCUMENT_BYTES,
    DocumentKind,
    DocumentT,
    SecureParameter,
)
from mesaform.common.errors import BadInput


class SecureParameterWriter(SecureParameter[DocumentT]):
    """The parameter of one cluster and kind, with the calls that change it. Every call blocks."""

    def __init__(self, kind: DocumentKind[DocumentT], cluster: str, region: str) -> None:
        super().__init__(kind, cluster, region)
        self._ssm = client("ssm", region)

    def create(self, document: DocumentT, tags: Mapping[str, str]) -> None:
        """Store the first document, with the tags of the cluster.

        Raises:
            CloudError: SSM refused or did not answer, or there is a document already.
            BadInput: it is too large for a parameter.

        """
        self._put(document, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])

    def replace(self, document: DocumentT) -> None:
        """Store another document in place of the present one. May be repeated.

        Raises:
            CloudError: SSM refused or did not answer.
            BadInput: it is too large for a parameter.

        """
        self._put(document, Overwrite=True)

    def _put(self, document: DocumentT, **options: Any) -> None:
        text = self._kind.text(document)
        if len(text.encode()) > MAX_DOCUMENT_BYTES:
            raise BadInput(
                f"{self._kind.title} needs more than {MAX_DOCUMENT_BYTES} bytes",
                where=f"SSM parameter {self.name}",
                fix=self._kind.too_large_fix,
            )
        with translate_errors(f"ssm {self.name}"):
            self._ssm.put_parameter(Name=self.name, Value=text, Type="SecureString", **options)
