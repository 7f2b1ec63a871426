"""The access document in SSM, written by operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesaform.aws.access_parameter import AccessParameter
from mesaform.aws.client import client
from mesaform.aws.errors import translate_errors
from mesaform.common.access import MAX_DOCUMENT_BYTES, AccessDocument, access_text
from mesaform.common.errors import BadInput


class AccessWriter(AccessParameter):
    """The parameter of one cluster, with the calls that change it. Every call blocks."""

    def __init__(self, cluster: str, region: str) -> None:
        super().__init__(cluster, region)
        self._ssm = client("ssm", region)

    def create(self, document: AccessDocument, tags: Mapping[str, str]) -> None:
        """Store the first document, with the tags of the cluster.

        Raises:
            CloudError: SSM refused or did not answer, or there is a document already.
            BadInput: it is too large for a parameter.

        """
        self._put(document, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])

    def replace(self, document: AccessDocument) -> None:
        """Store another document in place of the present one. May be repeated.

        Raises:
            CloudError: SSM refused or did not answer.
            BadInput: it is too large for a parameter.

        """
        self._put(document, Overwrite=True)

    def _put(self, document: AccessDocument, **options: Any) -> None:
        text = _text(document, self.name)
        with translate_errors(f"ssm {self.name}"):
            self._ssm.put_parameter(Name=self.name, Value=text, Type="SecureString", **options)


def _text(document: AccessDocument, name: str) -> str:
    text = access_text(document)
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise BadInput(
            f"credentials and ACLs need more than {MAX_DOCUMENT_BYTES} bytes",
            where=f"SSM parameter {name}",
            fix="name fewer frameworks below access.frameworks, or fewer roles and users of each",
        )
    return text
