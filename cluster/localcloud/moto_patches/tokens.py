"""Idempotency tokens of EC2's calls.

The same client token with the same request gives the first answer again, with another request an
error. Answers are kept in the region's backend, so that they are saved and restored with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from moto.ec2.exceptions import EC2ClientError

from mesaform.localcloud.moto_patches.moto_types import Ec2Backend

MAX_ANSWERS = 1000
"""How many answers a region keeps; the oldest go first."""

T = TypeVar("T")


def execute_once(
    backend: Ec2Backend, action: str, request: Mapping[str, object], execute: Callable[[], T]
) -> T:
    """`execute()`, unless the request's ClientToken was answered before.

    Raises:
        EC2ClientError: the token was used with other parameters.

    """
    token = request.get("ClientToken")
    if not token:
        return execute()
    answers: dict[tuple[str, object], tuple[str, T]] = vars(backend).setdefault(
        "answered_tokens", {}
    )
    text = repr(sorted((key, _text(value)) for key, value in request.items()))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if (action, token) in answers:
        first_digest, answer = answers[action, token]
        if first_digest != digest:
            raise EC2ClientError(
                "IdempotentParameterMismatch",
                f"The request with client token '{token}' has other parameters "
                "than the first one with it.",
            )
        return answer
    answer = execute()
    answers[action, token] = (digest, answer)
    while len(answers) > MAX_ANSWERS:
        del answers[next(iter(answers))]
    return answer


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return repr(sorted((key, _text(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return repr([_text(item) for item in value])
    return value.decode() if isinstance(value, bytes) else str(value)
