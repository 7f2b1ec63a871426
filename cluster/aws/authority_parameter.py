"""The cluster's CA in SSM, read: a SecureString, encrypted by the account's key for SSM.

Masters have this module, and no rights to write.
"""

from __future__ import annotations

import msgspec

from mesaform.aws.client import client
from mesaform.aws.errors import translate_errors
from mesaform.common.certificates import AuthorityDocument, parse_document
from mesaform.common.errors import BadInput, NotFound
from mesaform.topology.names import authority_parameter_name


class AuthorityParameter:
    """The parameter of one cluster. Every call blocks."""

    def __init__(self, cluster: str, region: str) -> None:
        self.name = authority_parameter_name(cluster)
        self._ssm = client("ssm", region)

    def read(self) -> AuthorityDocument | None:
        """The stored CA; None without one. SSM answers consistently.

        Raises:
            CloudError: SSM refused or did not answer.
            BadInput: what is stored is not such a document.

        """
        try:
            with translate_errors(f"ssm {self.name}"):
                answer = self._ssm.get_parameter(Name=self.name, WithDecryption=True)
        except NotFound:
            return None
        try:
            return parse_document(answer["Parameter"]["Value"])
        except msgspec.DecodeError:
            raise BadInput(
                "the cluster's CA cannot be read",
                where=f"SSM parameter {self.name}",
                fix="remove the parameter; the next mesaform up creates a new CA and replaces the"
                " machines",
            ) from None
