"""What AWS call an HTTP request is: service, action, and whether it changes the account. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from mesaform.common.json_types import as_object
from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.error_responses import FORM_TYPE
from mesaform.localcloud.route53_calls import action_of
from mesaform.localcloud.signatures import Signature

_READS = re.compile(
    r"^(Describe|Get|List|Head|Search|Lookup|Filter|Query|Scan|BatchGet|Decode|Simulate|Validate)"
)
_ACTION = re.compile(rb"(?:^|&)Action=([A-Za-z0-9]+)")
WAIT = "WaitTimeSeconds"
MAX_RECEIVE_WAIT_S = 20
"""SQS's longest long poll."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `action` is the method and path for S3, whose calls name no action."""

    service: str
    action: str
    region: str
    mutating: bool


def classify(request: AwsRequest, signature: Signature | None) -> Call:
    """The call of a request; one that is not signed is S3's."""
    region, service = (signature.region, signature.service) if signature else ("", "s3")
    action = "" if service == "s3" else _named_action(request)
    if service == "route53":
        action = action_of(request.method, request.path)
    if not action:
        return Call(
            service,
            f"{request.method} {request.path}",
            region,
            mutating=request.method in {"PUT", "POST", "DELETE", "PATCH"},
        )
    return Call(service, action, region, mutating=not _READS.match(action))


def _named_action(request: AwsRequest) -> str:
    if target := request.header("X-Amz-Target"):
        return target.rsplit(".", 1)[-1]
    if request.header("Content-Type").startswith(FORM_TYPE):
        action = _ACTION.search(request.body)
        if action:
            return action.group(1).decode()
    return request.query_value("Action")


class InvalidWait(ValueError):
    """The wait of a ReceiveMessage request is not a number from 0 to 20."""

    def __init__(self) -> None:
        super().__init__(
            "Value for parameter WaitTimeSeconds is invalid. "
            f"Reason: Must be >= 0 and <= {MAX_RECEIVE_WAIT_S}, if provided."
        )


def without_wait(request: AwsRequest) -> tuple[float, bytes]:
    """The wait of a ReceiveMessage request in seconds, and the body of one that does not wait.

    Raises:
        InvalidWait: the wait is none that SQS accepts.

    """
    if request.header("Content-Type").startswith(FORM_TYPE):
        return _form_without_wait(request.body)
    try:
        document = as_object(json.loads(request.body))
    except (ValueError, RecursionError, TypeError):
        return 0.0, request.body  # moto answers what is not a JSON object
    wait = document.get(WAIT, 0)
    if not isinstance(wait, int) or isinstance(wait, bool):
        raise InvalidWait
    return _checked(wait), json.dumps({**document, WAIT: 0}).encode()


def _form_without_wait(body: bytes) -> tuple[float, bytes]:
    fields = parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
    given = dict(fields).get(WAIT, "0")
    if not re.fullmatch(r"[0-9]{1,2}", given, re.ASCII):
        raise InvalidWait
    others = [(name, value) for name, value in fields if name != WAIT]
    return _checked(int(given)), urlencode([*others, (WAIT, "0")]).encode()


def _checked(wait_s: int) -> float:
    if not 0 <= wait_s <= MAX_RECEIVE_WAIT_S:
        raise InvalidWait
    return float(wait_s)
