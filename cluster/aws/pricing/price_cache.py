"""Adapters of the `PriceCache` port: an object in S3, and memory."""

from __future__ import annotations

from mesaform.aws import client
from mesaform.aws.bucket_objects import read_object
from mesaform.aws.errors import translate_errors


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
        stored = read_object(self._s3, self._bucket, self._key)
        return None if stored is None else stored.content

    def write(self, data: bytes) -> None:
        with translate_errors(self._where):
            self._s3.put_object(
                Bucket=self._bucket, Key=self._key, Body=data, ContentType="application/json"
            )
