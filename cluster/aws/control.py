"""The control objects in S3, below `<cluster>/control/`. See `Control`.

`freeze.json` holds the freeze, `heartbeat.json` the heartbeat, `overrides.json` all overrides. The
overrides are one object, since one GET per pass is the cheapest way to read them; conditional
writes of S3 make its change a compare-and-swap. Commit 5698494 named the objects `fence.json`,
`beat.json` and `orders.json`: they are read where the new ones do not exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
from botocore.exceptions import ClientError

from mesaform.aws import client
from mesaform.aws.errors import error_code, translate_errors
from mesaform.aws.overrides import Override
from mesaform.aws.ports.control import Document, Heartbeat, Overrides
from mesaform.common.errors import NotFound, Retryable

SWAP_TRIES = 8

OLD_NAMES = {"freeze": "fence", "heartbeat": "beat", "overrides": "orders"}
"""Names of objects, and their names in commit 5698494."""

OLD_HEARTBEAT_FIELDS = {"fenced": "frozen", "memory": "planner_state"}
CHANGED_MEANWHILE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


class S3Control:
    """See `Control`. In a bucket that does not exist there is no freeze and no heartbeat."""

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._bucket = bucket
        self._prefix = f"{cluster}/control"
        self._s3 = client.client("s3", region)

    def freeze(self, reason: str) -> None:
        self._put("freeze", {"reason": reason, "at": time.time()})

    def unfreeze(self) -> None:
        for name in ("freeze", OLD_NAMES["freeze"]):
            key = self._key(name)
            with translate_errors(f"s3://{self._bucket}/{key}"):
                self._s3.delete_object(Bucket=self._bucket, Key=key)

    def frozen_reason(self) -> str | None:
        freeze = self._get("freeze")
        return None if freeze is None else str(freeze.get("reason", "no reason given"))

    def write_heartbeat(
        self,
        at: float,
        *,
        frozen: bool,
        address: str,
        planner_state: Mapping[str, object] | None = None,
    ) -> None:
        self._put(
            "heartbeat",
            {
                "at": at,
                "frozen": frozen,
                "address": address,
                "planner_state": planner_state or {},
            },
        )

    def last_heartbeat(self) -> Heartbeat | None:
        document = self._get("heartbeat")
        if document is None:
            return None
        fields = {OLD_HEARTBEAT_FIELDS.get(key, key): value for key, value in document.items()}
        return msgspec.convert(fields, Heartbeat)

    def write_document(self, name: str, document: Mapping[str, object]) -> None:
        self._put(name, document)

    def read_document(self, name: str) -> Document | None:
        return self._get(name)

    def overrides(self) -> Overrides:
        return self._read_overrides()[0]

    def update_overrides(self, change: Callable[[Overrides], Overrides]) -> Overrides:
        for _ in range(SWAP_TRIES):
            before, version = self._read_overrides()
            after = change(before)
            if after == before or self._swap(after, version):
                return after
        raise Retryable(
            "others change the overrides all the time",
            after_s=1.0,
            where=f"s3://{self._bucket}/{self._key('overrides')}",
        )

    def _read_overrides(self) -> tuple[Overrides, str]:
        """Return the overrides and the version of their object; no version if it does not exist."""
        key = self._key("overrides")
        try:
            with translate_errors(f"s3://{self._bucket}/{key}"):
                answer = self._s3.get_object(Bucket=self._bucket, Key=key)
                body = answer["Body"].read()
        except NotFound:
            old = self._read(OLD_NAMES["overrides"])
            return (() if old is None else tuple(msgspec.json.decode(old, type=list[Override]))), ""
        return tuple(msgspec.json.decode(body, type=list[Override])), str(answer["ETag"])

    def _swap(self, overrides: Overrides, version: str) -> bool:
        key = self._key("overrides")
        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        with translate_errors(f"s3://{self._bucket}/{key}"):
            try:
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=msgspec.json.encode(overrides),
                    ContentType="application/json",
                    **condition,
                )
            except ClientError as error:
                if error_code(error) in CHANGED_MEANWHILE:
                    return False
                raise
        return True

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}.json"

    def _put(self, name: str, document: Mapping[str, object]) -> None:
        key = self._key(name)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=msgspec.json.encode(document),
                ContentType="application/json",
            )

    def _get(self, name: str) -> Document | None:
        """Return a document, or the one with its old name; None if neither exists."""
        body = self._read(name)
        if body is None and name in OLD_NAMES:
            body = self._read(OLD_NAMES[name])
        return None if body is None else msgspec.json.decode(body, type=Document)

    def _read(self, name: str) -> bytes | None:
        key = self._key(name)
        try:
            with translate_errors(f"s3://{self._bucket}/{key}"):
                return bytes(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        except NotFound:
            return None
