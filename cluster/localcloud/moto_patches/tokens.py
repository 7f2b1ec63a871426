"""Idempotency: the same client token with the same request gives the first answer again; with another request, an error.

What was answered is kept on the region's backend, so it is saved and restored with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError

KEPT = 1000


def once(backend: Any, action: str, request: Mapping[str, Any], do: Callable[[], Any]) -> Any:
    """`do()`, unless the request's ClientToken was answered before."""
    token = request.get("ClientToken")
    if not token:
        return do()
    answered: dict[tuple[str, str], tuple[str, Any]] = vars(backend).setdefault(
        "answered_tokens", {}
    )
    digest = hashlib.sha256(
        repr(sorted((key, _text(value)) for key, value in request.items())).encode()
    ).hexdigest()
    if (action, token) in answered:
        before, answer = answered[action, token]
        if before != digest:
            raise EC2ClientError(
                "IdempotentParameterMismatch",
                f"The request with client token '{token}' has other parameters than the first one with it.",
            )
        return answer
    answer = do()
    answered[action, token] = (digest, answer)
    while len(answered) > KEPT:
        del answered[next(iter(answered))]
    return answer


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return repr(sorted((key, _text(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return repr([_text(item) for item in value])
    return value.decode() if isinstance(value, bytes) else str(value)
