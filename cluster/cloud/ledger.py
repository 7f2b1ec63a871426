"""The ledger in S3: one small object a record, so that appending needs no lock and nothing is ever rewritten.

Keys sort by time: `<cluster>/ledger/<date>/<epoch ms>-<seq>-<kind>.json`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec

from cluster.cloud import aws

READERS = 16


class S3Ledger:
    """A cluster's ledger.

    Args:
        bucket: the account's bucket; it must exist.
        cluster: the cluster's name.
        region: where the bucket is.
        writer: what tells this writer's records from others' of the same millisecond; the process id when absent.

    """

    def __init__(self, bucket: str, cluster: str, region: str, writer: str | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{cluster}/ledger/"
        self._s3 = aws.client("s3", region)
        self._writer = writer or f"{os.getpid():x}"
        self._numbers = itertools.count()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; see `Ledger`.

        Raises:
            NotFound: the bucket does not exist.
            Retryable: no answer; append again.

        """
        own = str(record.get("instance_id") or "") if record["kind"] != "decision" else ""
        sequence = own or f"{self._writer}.{next(self._numbers):06d}"
        key = f"{self._prefix}{_stamp(record['at'])}-{sequence}-{record['kind']}.json"
        with aws.translated(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=msgspec.json.encode(record), ContentType="application/json")

    def read(self, since: float = 0.0, limit: int | None = None) -> list[dict[str, Any]]:
        """Records since a moment, oldest first; with `limit` the newest ones.

        Raises:
            NotFound: the bucket does not exist.

        """
        with aws.translated(f"s3://{self._bucket}/{self._prefix}"):
            keys = self._newest(since, limit) if limit is not None else list(self._keys(self._prefix, since))
            with ThreadPoolExecutor(READERS) as readers:
                records = list(readers.map(self._get, keys))
        return sorted((record for record in records if record["at"] >= since), key=lambda record: record["at"])

    def _get(self, key: str) -> dict[str, Any]:
        body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return msgspec.json.decode(body, type=dict[str, Any])

    def _keys(self, prefix: str, since: float) -> Iterator[str]:
        after = self._prefix + _stamp(since)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix, StartAfter=after)
        for page in pages:
            yield from (item["Key"] for item in page.get("Contents", []))

    def _newest(self, since: float, limit: int) -> list[str]:
        """The last `limit` keys, going back a day at a time: S3 lists forwards only."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix, Delimiter="/")
        days = [day["Prefix"] for page in pages for day in page.get("CommonPrefixes", [])]
        keys: list[str] = []
        for day in sorted(days, reverse=True):
            keys = [*self._keys(day, since), *keys]
            if len(keys) >= limit:
                break
        return keys[-limit:] if limit else []


def _stamp(at: float) -> str:
    """`<date>/<epoch ms>`, thirteen digits, which sort as text until the year 2286."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}/{int(at * 1000):013d}"
