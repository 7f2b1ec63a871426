"""The access document in SSM."""

from __future__ import annotations

from mesaform.aws.secure_parameter import DocumentKind
from mesaform.common.access import access_text, parse_access
from mesaform.topology.names import access_parameter_name

ACCESS_DOCUMENT = DocumentKind(
    title="the cluster's access document",
    parameter_name=access_parameter_name,
    parse=parse_access,
    text=access_text,
    unreadable_fix="remove the parameter; the next mesaform up writes a new one, with new secrets",
    too_large_fix="name fewer frameworks below access.frameworks, or fewer roles and users of each",
)
