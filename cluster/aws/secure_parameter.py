"""A document of a cluster in SSM, read: a SecureString, encrypted by the account's key for SSM.

Masters have this module, and no rights to write (`secure_parameter_writer` has those calls).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from mesaform.aws.client import client
from mesaform.aws.errors import translate_errors
from mesaform.common.errors import BadInput, NotFound

MAX_DOCUMENT_BYTES = 4096
"""A standard parameter of SSM holds no more (AWS, "Parameter Store parameter tiers")."""

DocumentT = TypeVar("DocumentT")


@dataclass(frozen=True, slots=True)
class DocumentKind(Generic[DocumentT]):
    """One kind of document: where it is and how it is written.

    Attributes:
        title: what an operator calls it: "the cluster's CA".
        parameter_name: the name of the parameter of a cluster.
        parse: decodes the text; raises msgspec.DecodeError.
        text: encodes a document.
        unreadable_fix: what an operator does about a parameter that cannot be read.
        too_large_fix: what an operator does about a document above `MAX_DOCUMENT_BYTES`.

    """

    title: str
    parameter_name: Callable[[str], str]
    parse: Callable[[str], DocumentT]
    text: Callable[[DocumentT], str]
    unreadable_fix: str
    too_large_fix: str


class SecureParameter(Generic[DocumentT]):
    """The parameter of one cluster and kind. Every call blocks."""

    def __init__(self, kind: DocumentKind[DocumentT], cluster: str, region: str) -> None:
        self.name = kind.parameter_name(cluster)
        self._kind = kind
        self._ssm = client("ssm", region)

    def read(self) -> DocumentT | None:
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
            return self._kind.parse(answer["Parameter"]["Value"])
        except msgspec.DecodeError:
            raise BadInput(
                f"{self._kind.title} cannot be read",
                where=f"SSM parameter {self.name}",
                fix=self._kind.unreadable_fix,
            ) from None
