"""Error responses in the form of each AWS protocol, which SDKs recognise."""

from __future__ import annotations

import json
import secrets
from enum import Enum
from typing import NamedTuple
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from mesaform.localcloud.aws_request import AwsRequest

FORM_TYPE = "application/x-www-form-urlencoded"
XML_TYPE = "text/xml;charset=UTF-8"


class Answer(NamedTuple):
    """An HTTP response: status, headers, body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


class ErrorForm(Enum):
    """The protocols of AWS, which differ in their error documents."""

    EC2 = "ec2"
    QUERY = "query"
    JSON = "json"
    S3 = "s3"


_FORMS = {
    "ec2": ErrorForm.EC2,
    "elasticloadbalancing": ErrorForm.QUERY,
    "iam": ErrorForm.QUERY,
    "route53": ErrorForm.QUERY,
    "s3": ErrorForm.S3,
    "sts": ErrorForm.QUERY,
}


def form_of(service: str, request: AwsRequest) -> ErrorForm:
    """The form that a client of this call reads; the service may be unknown and empty."""
    if request.has_header("X-Amz-Target"):
        return ErrorForm.JSON
    if form := _FORMS.get(service):
        return form
    if request.header("Content-Type").startswith(FORM_TYPE):
        return ErrorForm.QUERY
    return ErrorForm.JSON if service else ErrorForm.S3


class Fault(NamedTuple):
    """An error of AWS: status, code and message."""

    status: int
    code: str
    message: str


_ABSENT_CODES = {
    ErrorForm.EC2: "InvalidAction",
    ErrorForm.QUERY: "InvalidAction",
    ErrorForm.JSON: "UnknownOperationException",
    ErrorForm.S3: "MethodNotAllowed",
}
_INVALID_CODES = {
    ErrorForm.EC2: "InvalidParameterValue",
    ErrorForm.QUERY: "ValidationError",
    ErrorForm.JSON: "ValidationException",
    ErrorForm.S3: "InvalidRequest",
}
_UNKNOWN_KEY_CODES = {
    ErrorForm.EC2: "AuthFailure",
    ErrorForm.QUERY: "InvalidClientTokenId",
    ErrorForm.JSON: "UnrecognizedClientException",
    ErrorForm.S3: "InvalidAccessKeyId",
}
_UNSIGNED_CODES = {
    ErrorForm.EC2: "AuthFailure",
    ErrorForm.QUERY: "MissingAuthenticationToken",
    ErrorForm.JSON: "MissingAuthenticationTokenException",
    ErrorForm.S3: "AccessDenied",
}


def unknown_operation(form: ErrorForm, message: str) -> Answer:
    """The answer to a call of an operation that does not exist here."""
    return error(form, Fault(400, _ABSENT_CODES[form], message))


def invalid_request(form: ErrorForm, message: str) -> Answer:
    """The answer to a call whose parameters cannot be used."""
    return error(form, Fault(400, _INVALID_CODES[form], message))


def missing_parameter(form: ErrorForm, name: str) -> Answer:
    """The answer to a call without a required parameter."""
    if form is ErrorForm.EC2:
        message = f"The request must contain the parameter {name}"
        return error(form, Fault(400, "MissingParameter", message))
    return invalid_request(form, f"The required parameter {name} is missing")


def unknown_key(form: ErrorForm) -> Answer:
    """The answer to a call with an access key that the account does not have."""
    return error(
        form,
        Fault(
            403,
            _UNKNOWN_KEY_CODES[form],
            "The security token included in the request is invalid: the local cloud does not know "
            'this access key. Use the credentials of: eval "$(mesaform local env)"',
        ),
    )


def denied(form: ErrorForm, action: str) -> Answer:
    """The answer to a call for which the caller has no right."""
    code = {ErrorForm.EC2: "UnauthorizedOperation", ErrorForm.JSON: "AccessDeniedException"}
    status = 400 if form is ErrorForm.JSON else 403
    message = f"You are not authorized to perform this operation: {action}"
    return error(form, Fault(status, code.get(form, "AccessDenied"), message))


def closed_region(form: ErrorForm) -> Answer:
    """The answer to a call in a region to which the account has not opted in."""
    message = "The security token included in the request is invalid"
    return error(form, Fault(403, _UNKNOWN_KEY_CODES[form], message))


def wrong_signature(form: ErrorForm) -> Answer:
    """The answer to a call whose signature is not of its access key."""
    return error(
        form,
        Fault(
            403,
            "InvalidSignatureException" if form is ErrorForm.JSON else "SignatureDoesNotMatch",
            "The request signature does not match the secret access key. "
            'Use the credentials of: eval "$(mesaform local env)"',
        ),
    )


def unsigned(form: ErrorForm) -> Answer:
    """The answer to a call without a signature of version 4."""
    return error(form, Fault(403, _UNSIGNED_CODES[form], "Request is not signed"))


def expired_session(form: ErrorForm) -> Answer:
    """The answer to a call with temporary credentials that expired."""
    codes = {ErrorForm.EC2: "RequestExpired", ErrorForm.JSON: "ExpiredTokenException"}
    status = 403 if form is ErrorForm.QUERY else 400
    message = "The security token included in the request is expired"
    return error(form, Fault(status, codes.get(form, "ExpiredToken"), message))


def expired(form: ErrorForm) -> Answer:
    """The answer to a call with a presigned URL that ended."""
    code = "AccessDenied" if form is ErrorForm.S3 else "ExpiredToken"
    return error(form, Fault(403, code, "Request has expired"))


def not_stored(form: ErrorForm, reason: str) -> Answer:
    """The answer to a call that changes something while the account cannot be saved.

    The status is 507 (RFC 4918): SDKs and Terraform repeat 500, 502, 503 and 504 for minutes.
    """
    return error(
        form,
        Fault(507, "InsufficientStorage", f"the local account cannot be saved: {reason}"),
    )


def internal_error(form: ErrorForm, error_id: str) -> Answer:
    """The answer to a call that met a defect of the local cloud; the log has the id."""
    code = "InternalServerError" if form is ErrorForm.JSON else "InternalError"
    text = "An internal error has occurred; the log of the local cloud has its id"
    return error(form, Fault(500, code, text), request_id=error_id)


def error(form: ErrorForm, fault: Fault, request_id: str | None = None) -> Answer:
    """An error document in this form."""
    identity = request_id or secrets.token_hex(16)
    code, message = escape(fault.code), escape(_printable(fault.message))
    if form is ErrorForm.JSON:
        document = {"__type": fault.code, "message": fault.message}
        headers = [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("x-amzn-RequestId", identity),
            ("x-amzn-ErrorType", fault.code),
        ]
        return Answer(fault.status, headers, json.dumps(document).encode())
    if form is ErrorForm.EC2:
        text = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>"
            f"</Errors><RequestID>{identity}</RequestID></Response>"
        )
    elif form is ErrorForm.S3:
        text = (
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            f"<RequestId>{identity}</RequestId></Error>"
        )
    else:
        kind = "Sender" if fault.status < 500 else "Receiver"
        text = (
            f"<ErrorResponse><Error><Type>{kind}</Type><Code>{code}</Code>"
            f"<Message>{message}</Message></Error><RequestId>{identity}</RequestId></ErrorResponse>"
        )
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    return Answer(fault.status, [("Content-Type", XML_TYPE)], body)


def _printable(text: str) -> str:
    """The text without characters that XML does not have."""
    return "".join(item if item.isprintable() else "?" for item in text)


def throttled(form: ErrorForm, action: str) -> Answer:
    """The response to one call too many; its code depends on the service."""
    faults = {
        ErrorForm.EC2: Fault(503, "RequestLimitExceeded", "Request limit exceeded."),
        ErrorForm.S3: Fault(503, "SlowDown", "Please reduce your request rate."),
        ErrorForm.QUERY: Fault(400, "Throttling", f"Rate exceeded for {action}"),
        ErrorForm.JSON: Fault(400, "ThrottlingException", "Rate exceeded"),
    }
    return error(form, faults[form])


def terminating(body: bytes) -> Answer:
    """The response of a TerminateInstances call that succeeds."""
    ids = [
        value
        for key, values in parse_qs(body.decode(errors="replace")).items()
        if key.startswith("InstanceId.")
        for value in values
    ]
    states = (
        "<currentState><code>32</code><name>shutting-down</name></currentState>"
        "<previousState><code>16</code><name>running</name></previousState>"
    )
    items = "".join(f"<item><instanceId>{escape(name)}</instanceId>{states}</item>" for name in ids)
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<TerminateInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>{secrets.token_hex(16)}</requestId><instancesSet>{items}</instancesSet>"
        "</TerminateInstancesResponse>"
    )
    return Answer(200, [("Content-Type", XML_TYPE)], text.encode())


def as_json(document: bytes, status: int = 200) -> Answer:
    """A JSON document as a response."""
    return Answer(status, [("Content-Type", "application/json")], document)
