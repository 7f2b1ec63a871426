"""Which required parameters a call lacks, by the service models of botocore. Needs moto.

moto does not check them: CreateRole without a name would make a role without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import parse_qsl

from botocore.model import OperationNotFoundError, StructureShape
from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.utils import get_service_model

from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.calls import Call
from mesaform.localcloud.error_responses import FORM_TYPE
from mesaform.localcloud.moto_app import MODULES

_PROTOCOLS = {"ec2": "ec2"}
"""The protocol of a service's forms; the others have `query`."""


def missing_parameters(call: Call, request: AwsRequest) -> list[str]:
    """The names of the required parameters that the call lacks.

    None for unknown actions, nor for S3 and Route 53, which have them in paths and in XML.
    """
    if call.service in {"route53", "s3"}:
        return []
    try:
        model = get_service_model(MODULES.get(call.service, call.service))
        operation = model.operation_model(call.action)
    except OperationNotFoundError:
        return []
    if operation.input_shape is None:
        return []
    required = list(_required(operation, operation.input_shape, call.service))
    if request.has_header("X-Amz-Target"):
        return _missing_members(required, request)
    return _missing_fields(required, request)


def _required(
    operation: OperationModel, shape: StructureShape, service: str
) -> Iterator[tuple[str, str]]:
    """The name of each required member, and its name in a form."""
    parser = PROTOCOL_PARSERS[_PROTOCOLS.get(service, "query")](operation)
    for name in shape.required_members:
        yield name, parser._get_serialized_name(shape.members[name], name)  # noqa: SLF001


def _missing_members(required: list[tuple[str, str]], request: AwsRequest) -> list[str]:
    try:
        document = json.loads(request.body or b"{}")
    except (ValueError, RecursionError):
        return []  # moto answers what is not JSON
    if not isinstance(document, dict):
        return [name for name, _ in required]
    return [name for name, _ in required if document.get(name) is None]


def _missing_fields(required: list[tuple[str, str]], request: AwsRequest) -> list[str]:
    names = {name for name, _ in request.query}
    if request.header("Content-Type").startswith(FORM_TYPE):
        text = request.body.decode(errors="replace")
        names |= {name for name, _ in parse_qsl(text, keep_blank_values=True)}
    return [
        name
        for name, field in required
        if not any(known == field or known.startswith(f"{field}.") for known in names)
    ]
