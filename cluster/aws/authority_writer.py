"""The cluster's CA in SSM, written by operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesaform.aws.authority_parameter import AuthorityParameter
from mesaform.aws.client import client
from mesaform.aws.errors import translate_errors
from mesaform.common.certificates import AuthorityDocument, document_text


class AuthorityWriter(AuthorityParameter):
    """The parameter of one cluster, with the calls that change it. Every call blocks."""

    def __init__(self, cluster: str, region: str) -> None:
        super().__init__(cluster, region)
        self._ssm = client("ssm", region)

    def create(self, document: AuthorityDocument, tags: Mapping[str, str]) -> None:
        """Store the first CA, with the tags of the cluster.

        Raises:
            CloudError: SSM refused or did not answer, or there is a CA already.

        """
        self._put(document, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])

    def replace(self, document: AuthorityDocument) -> None:
        """Store another document in place of the present one. May be repeated.

        Raises:
            CloudError: SSM refused or did not answer.

        """
        self._put(document, Overwrite=True)

    def _put(self, document: AuthorityDocument, **options: Any) -> None:
        text = document_text(document)
        with translate_errors(f"ssm {self.name}"):
            self._ssm.put_parameter(Name=self.name, Value=text, Type="SecureString", **options)
