"""Adapters of the `PriceCache` port: an object in S3, and memory."""

from __future__ import annotations

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.common.errors import NotFound


class MemoryPriceCache:
    """See `PriceCache`. Lives as long as the process, for programs that do not share prices."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data

    def read(self) -> bytes | None:
        return self.data

    def write(self, data: bytes) -> None:
        self.data = data


class S3PriceCache:
    """See `PriceCache`. An object beside the cluster's ledger, shared by all leaders."""

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._s3 = client.client("s3", region)
        self._bucket = bucket
        self._key = f"{cluster}/catalogue/prices.json"
        self._where = f"s3://{bucket}/{self._key}"

    def read(self) -> bytes | None:
        try:
            with translate_errors(self._where):
                return bytes(self._s3.get_object(Bucket=self._bucket, Key=self._key)["Body"].read())
        except NotFound:
            return None

    def write(self, data: bytes) -> None:
        with translate_errors(self._where):
            self._s3.put_object(
                Bucket=self._bucket, Key=self._key, Body=data, ContentType="application/json"
            )
