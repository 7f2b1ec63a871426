"""The cluster's CA in SSM."""

from __future__ import annotations

from mesaform.aws.secure_parameter import DocumentKind
from mesaform.common.certificates import document_text, parse_document
from mesaform.topology.names import authority_parameter_name

AUTHORITY_DOCUMENT = DocumentKind(
    title="the cluster's CA",
    parameter_name=authority_parameter_name,
    parse=parse_document,
    text=document_text,
    unreadable_fix="remove the parameter; the next mesaform up creates a new CA and replaces the"
    " machines",
    too_large_fix="finish the rotation that is under way: mesaform ca rotate",
)
