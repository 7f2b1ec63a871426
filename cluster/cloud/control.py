"""The fence and the autoscaler's sign of life, as two objects in S3 below `<cluster>/control/`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.cloud import aws
from cluster.errors import NotFound


class S3Control:
    """See `Control`. A bucket that does not exist holds no fence and no beat."""

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._bucket = bucket
        self._prefix = f"{cluster}/control"
        self._s3 = aws.client("s3", region)

    def fence(self, reason: str) -> None:
        self._put("fence", {"reason": reason, "at": time.time()})

    def lift(self) -> None:
        key = self._key("fence")
        with aws.translated(f"s3://{self._bucket}/{key}"):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def fenced(self) -> str | None:
        found = self._get("fence")
        return None if found is None else str(found.get("reason", "no reason given"))

    def beat(self, at: float, *, fenced: bool, address: str, memory: Mapping[str, Any] | None = None) -> None:
        self._put("beat", {"at": at, "fenced": fenced, "address": address, "memory": memory or {}})

    def last_beat(self) -> Mapping[str, Any] | None:
        return self._get("beat")

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}.json"

    def _put(self, name: str, document: Mapping[str, Any]) -> None:
        key = self._key(name)
        with aws.translated(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=msgspec.json.encode(document), ContentType="application/json")

    def _get(self, name: str) -> dict[str, Any] | None:
        key = self._key(name)
        try:
            with aws.translated(f"s3://{self._bucket}/{key}"):
                body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except NotFound:
            return None
        return msgspec.json.decode(body, type=dict[str, Any])
