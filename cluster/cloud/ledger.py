"""The ledger in S3: one small object a record, so that appending needs no lock and nothing is ever rewritten.

Keys sort by time: `<cluster>/ledger/<date>/<epoch ms>-<seq>-<kind>.json`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cluster.cloud import aws

READERS = 16
CACHE_FROM = 100
"""Fewer rows than this are quicker read than looked up."""


class S3Ledger:
    """A cluster's ledger.

    Args:
        bucket: the account's bucket; it must exist.
        cluster: the cluster's name.
        region: where the bucket is.
        writer: what tells this writer's records from others' of the same millisecond; the process id when absent.
        cache: a file where rows read before are kept; none by default.

    """

    def __init__(self, bucket: str, cluster: str, region: str, writer: str | None = None, cache: Path | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{cluster}/ledger/"
        self._s3 = aws.client("s3", region)
        self._writer = writer or f"{os.getpid():x}"
        self._numbers = itertools.count()
        self._cache = None if cache is None else _Cache(cache)

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

    def read(self, since: float = 0.0, limit: int | None = None, kinds: Collection[str] = ()) -> list[dict[str, Any]]:
        """See `Ledger`. What is not of the wanted kinds is told by its key and not read at all.

        Raises:
            NotFound: the bucket does not exist.

        """
        with aws.translated(f"s3://{self._bucket}/{self._prefix}"):
            if limit is not None:
                keys = self._newest(since, limit, kinds)
            else:
                keys = [key for key in self._keys(self._prefix, since) if _is_of(key, kinds)]
            records = self._get_all(keys)
        return sorted((record for record in records if record["at"] >= since), key=lambda record: record["at"])

    def _get_all(self, keys: list[str]) -> list[dict[str, Any]]:
        known = self._cache.load() if self._cache is not None and len(keys) >= CACHE_FROM else {}
        missing = [key for key in keys if key not in known]
        if missing:
            with ThreadPoolExecutor(READERS) as readers:
                fresh = dict(zip(missing, readers.map(self._get, missing), strict=True))
            if self._cache is not None and len(keys) >= CACHE_FROM:
                self._cache.add(fresh)
            known = {**known, **fresh}
        return [msgspec.json.decode(known[key], type=dict[str, Any]) for key in keys]

    def _get(self, key: str) -> bytes:
        return bytes(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def _keys(self, prefix: str, since: float) -> Iterator[str]:
        after = self._prefix + _stamp(since)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix, StartAfter=after)
        for page in pages:
            yield from (item["Key"] for item in page.get("Contents", []))

    def _newest(self, since: float, limit: int, kinds: Collection[str]) -> list[str]:
        """The last `limit` keys of these kinds, going back a day at a time: S3 lists forwards only."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix, Delimiter="/")
        days = [day["Prefix"] for page in pages for day in page.get("CommonPrefixes", [])]
        first = f"{self._prefix}{_stamp(since).partition('/')[0]}/"
        keys: list[str] = []
        for day in sorted((day for day in days if day >= first), reverse=True):
            keys = [*(key for key in self._keys(day, since) if _is_of(key, kinds)), *keys]
            if len(keys) >= limit:
                break
        return keys[-limit:] if limit else []


class _Cache:
    """Rows read before, in one file that only grows: what the ledger holds never changes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, bytes]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        parts = (line.partition(b"\t") for line in lines)
        return {key.decode(): body for key, _, body in parts if body.endswith(b"}")}  # a line cut short is read again

    def add(self, rows: Mapping[str, bytes]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"".join(b"%s\t%s\n" % (key.encode(), body) for key, body in rows.items()))


def _is_of(key: str, kinds: Collection[str]) -> bool:
    return not kinds or key.rpartition("-")[2].removesuffix(".json") in kinds


def _stamp(at: float) -> str:
    """`<date>/<epoch ms>`, thirteen digits, which sort as text until the year 2286."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}/{int(at * 1000):013d}"
