"""The access document in SSM, read: a SecureString, encrypted by the account's key for SSM.

Masters have this module, and no rights to write.
"""

from __future__ import annotations

import msgspec

from mesaform.aws.client import client
from mesaform.aws.errors import translate_errors
from mesaform.common.access import AccessDocument, parse_access
from mesaform.common.errors import BadInput, NotFound
from mesaform.topology.names import access_parameter_name


class AccessParameter:
    """The parameter of one cluster. Every call blocks."""

    def __init__(self, cluster: str, region: str) -> None:
        self.name = access_parameter_name(cluster)
        self._ssm = client("ssm", region)

    def read(self) -> AccessDocument | None:
        """The stored document; None without one. SSM answers consistently.

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
            return parse_access(answer["Parameter"]["Value"])
        except msgspec.DecodeError:
            raise BadInput(
                "the cluster's access document cannot be read",
                where=f"SSM parameter {self.name}",
                fix="remove the parameter; the next mesaform up writes a new one, with new secrets",
            ) from None
