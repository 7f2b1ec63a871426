"""Operators' requests about records that were set aside in ZooKeeper, as objects in S3.

Operators cannot reach ZooKeeper; the leading autoscaler carries the requests out (docs/adr/0011).
Depends on `common.records`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mesaform.common.records import DOCUMENT_LIMIT_BYTES, Codec

RecordAction = Literal["show", "restore", "replace", "remove"]

REQUEST_NAME = "record-request"
ANSWER_NAME = "record-answer"
EMPTY_ID = ""

Text = Annotated[str, msgspec.Meta(max_length=4096)]


class RecordRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The last request. `id` is unique; `at` is epoch seconds; `by` is user and host.

    `tree` is the root whose set-aside folder has the record, `replace` restores over a new record.
    """

    id: Text
    action: RecordAction
    tree: Text
    kind: Text
    name: Text
    at: float
    by: Text


class RecordAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the last request. `error` is empty if it was carried out."""

    id: str
    error: str = ""
    content: bytes = b""


REQUEST = Codec("control.record-request", RecordRequest)
ANSWER = Codec("control.record-answer", RecordAnswer, limit_bytes=DOCUMENT_LIMIT_BYTES)
