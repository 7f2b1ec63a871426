"""The fence, operators' orders, the autoscaler's sign of life and what it learned, an object each in S3 below `<cluster>/control/`.

The orders are one object, changed by compare-and-swap (S3's conditional writes): one GET a pass is the cheapest way to read them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from mesaform.aws import client
from mesaform.aws.errors import error_code, translate_errors
from mesaform.aws.ports import Override
from mesaform.common.errors import NotFound, Retryable

TRIES = 8
CHANGED_MEANWHILE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


class S3Control:
    """See `Control`. A bucket that does not exist holds no fence and no beat."""

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._bucket = bucket
        self._prefix = f"{cluster}/control"
        self._s3 = client.client("s3", region)

    def freeze(self, reason: str) -> None:
        self._put("fence", {"reason": reason, "at": time.time()})

    def unfreeze(self) -> None:
        key = self._key("fence")
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def frozen_reason(self) -> str | None:
        found = self._get("fence")
        return None if found is None else str(found.get("reason", "no reason given"))

    def write_heartbeat(
        self, at: float, *, fenced: bool, address: str, memory: Mapping[str, Any] | None = None
    ) -> None:
        self._put("beat", {"at": at, "fenced": fenced, "address": address, "memory": memory or {}})

    def last_heartbeat(self) -> Mapping[str, Any] | None:
        return self._get("beat")

    def keep(self, name: str, document: Mapping[str, Any]) -> None:
        self._put(name, document)

    def kept(self, name: str) -> Mapping[str, Any] | None:
        return self._get(name)

    def orders(self) -> tuple[Override, ...]:
        return self._orders()[0]

    def change_orders(
        self, change: Callable[[tuple[Override, ...]], tuple[Override, ...]]
    ) -> tuple[Override, ...]:
        for _ in range(TRIES):
            before, version = self._orders()
            after = change(before)
            if after == before or self._swap(after, version):
                return after
        raise Retryable(
            "others change the orders all the time",
            after_s=1.0,
            where=f"s3://{self._bucket}/{self._key('orders')}",
        )

    def _orders(self) -> tuple[tuple[Override, ...], str]:
        """The orders and the version of their object; no version when there is none."""
        key = self._key("orders")
        try:
            with translate_errors(f"s3://{self._bucket}/{key}"):
                answer = self._s3.get_object(Bucket=self._bucket, Key=key)
                body = answer["Body"].read()
        except NotFound:
            return (), ""
        return tuple(msgspec.json.decode(body, type=list[Override])), str(answer["ETag"])

    def _swap(self, orders: tuple[Override, ...], version: str) -> bool:
        key = self._key("orders")
        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        with translate_errors(f"s3://{self._bucket}/{key}"):
            try:
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=msgspec.json.encode(orders),
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

    def _put(self, name: str, document: Mapping[str, Any]) -> None:
        key = self._key(name)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=msgspec.json.encode(document),
                ContentType="application/json",
            )

    def _get(self, name: str) -> dict[str, Any] | None:
        key = self._key(name)
        try:
            with translate_errors(f"s3://{self._bucket}/{key}"):
                body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except NotFound:
            return None
        return msgspec.json.decode(body, type=dict[str, Any])
