"""The IAM action of a call, for the fault that denies actions. Pure."""

from __future__ import annotations

from mesaform.localcloud.calls import Call

_BUCKET = {"GET": "ListBucket", "HEAD": "ListBucket", "PUT": "CreateBucket"}
_OBJECT = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject"}


def action_of(call: Call) -> str:
    """The IAM action, such as `ec2:RunInstances`. Subresources of S3 count as the bucket's own."""
    if call.service != "s3":
        return f"{call.service}:{call.action}"
    method, _, path = call.action.partition(" ")
    _, _, key = path.partition("?")[0].lstrip("/").partition("/")
    table = _OBJECT if key else _BUCKET
    return f"s3:{table.get(method, 'DeleteObject' if key else 'DeleteBucket')}"
