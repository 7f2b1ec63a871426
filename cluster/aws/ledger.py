"""Adapter of the `Ledger` port to S3: many rows per object, and no object is ever changed.

Merging writes the new object before it deletes the old ones. Rows have ids, so that a reader gets
each row once while others merge or after a crash. `ledger_rows` defines keys and contents; a reader
lists only the topics and hours that it needs.
"""

from __future__ import annotations

import functools
import itertools
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mesaform.aws import client, ledger_rows
from mesaform.aws.bucket_objects import read_object
from mesaform.aws.errors import translate_errors
from mesaform.aws.ports import Row
from mesaform.aws.set_aside import SetAsideObjects
from mesaform.common.errors import Retryable
from mesaform.common.records import Unreadable
from mesaform.common.set_aside import SetAsideLog

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

THREADS = 16
"""Concurrent calls of S3."""

READ_ATTEMPTS = 5
"""Attempts of a reader to list again when others merge; it keeps what it has read."""

MIN_PARTS_TO_MERGE = 12
"""Parts of an hour are merged when there are this many."""

DAY_OVER_AFTER_S = 2 * 3600.0
"""Time after the end of a day when it is merged into one object. Later rows are merged again."""

KIND = "ledger"
RECENT_DAYS = 4
"""Days per topic that each compaction looks at; the first one looks at all."""


class S3Ledger:
    """See `Ledger`. Safe to use from several threads.

    Args:
        bucket: the account's bucket; it must exist.
        cluster: the cluster's name.
        region: the region of the bucket.
        writer: start of this writer's part of the ids of rows and objects; the rest is random.
        log: that of the leader, which sets objects aside that cannot be read; others leave them
            out.

    """

    def __init__(
        self,
        bucket: str,
        cluster: str,
        region: str,
        writer: str = "",
        log: SetAsideLog | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{cluster}/ledger/"
        self._s3: S3Client = client.client("s3", region)
        self._log = log
        self._set_aside = SetAsideObjects(bucket, cluster, region)
        self._writer = f"{writer}{secrets.token_hex(5)}"
        self._numbers = itertools.count()
        self._knows_old_days = False

    def append(self, record: Mapping[str, object]) -> None:
        """See `Ledger`.

        Raises:
            NotFound: the bucket does not exist.
            Retryable: no answer; append again.

        """
        self.append_many([record])

    def append_many(self, records: Iterable[Mapping[str, object]]) -> None:
        """See `Ledger`. Writes one object per topic and hour of the records.

        Raises:
            NotFound: the bucket does not exist.
            Retryable: no answer, and some may be written; append all of them again.

        """
        rows = [
            ledger_rows.stamped(record, self._writer, next(self._numbers)) for record in records
        ]
        for (topic, partition), group in ledger_rows.by_partition(rows).items():
            stamp = f"{int(min(row['at'] for row in group) * 1000):013d}"
            self._put(
                f"rows/{topic}/{partition}-p-{stamp}-{self._writer}.{next(self._numbers):08d}.gz",
                group,
            )

    def read(
        self, since: float = 0.0, limit: int | None = None, kinds: Collection[str] = ()
    ) -> list[Row]:
        """See `Ledger`.

        Raises:
            NotFound: the bucket does not exist.
            Retryable: no answer, or others merged all the time; read again.

        """
        with translate_errors(f"s3://{self._bucket}/{self._prefix}"):
            if limit is None:
                return self._read_keys(lambda: self._keys(since, kinds), since, kinds)
            return self._newest(since, limit, kinds) if limit else []

    def compact(self, now: float) -> int:
        """See `Ledger`. Two processes at the same time lose nothing and do the work twice.

        Raises:
            CloudError: S3 did not answer; the next call merges the rest.

        """
        with translate_errors(f"s3://{self._bucket}/{self._prefix}"):
            merged = sum(self._convert_day(day) for day in self._days("") if _is_over(day, now))
            for topic in ledger_rows.topics_for(()):
                days = self._days(f"rows/{topic}/")
                for day in days if not self._knows_old_days else days[-RECENT_DAYS:]:
                    merged += self._merge_day(f"rows/{topic}/{day}/", over=_is_over(day, now))
            self._knows_old_days = True
        return merged

    # reading

    def _keys(self, since: float, kinds: Collection[str]) -> list[str]:
        """All keys from the hour of `since`.

        Those of the first format are listed first: an object that replaces another is listed after
        it.
        """
        first = ledger_rows.partition(since)
        day = first.partition("/")[0]
        old = (
            key
            for key in self._list("2", f"{day}/{int(since * 1000):013d}")
            if _has_kind(key, kinds)
        )
        topics = [f"rows/{topic}/" for topic in ledger_rows.topics_for(kinds)]
        keys = list(old)
        with ThreadPoolExecutor(len(topics)) as pool:
            for listed in pool.map(
                lambda topic: list(self._list(topic, f"{topic}{first}")), topics
            ):
                keys += listed
        return keys

    def _keys_of_day(self, day: str, kinds: Collection[str]) -> list[str]:
        keys = [key for key in self._list(f"{day}/") if _has_kind(key, kinds)]
        return keys + [
            key
            for topic in ledger_rows.topics_for(kinds)
            for key in self._list(f"rows/{topic}/{day}/")
        ]

    def _newest(self, since: float, limit: int, kinds: Collection[str]) -> list[Row]:
        """The last `limit` rows, read a day at a time backwards: S3 lists only forwards."""
        prefixes = ["", *(f"rows/{topic}/" for topic in ledger_rows.topics_for(kinds))]
        first = ledger_rows.partition(since).partition("/")[0]
        days = {day for prefix in prefixes for day in self._days(prefix) if day >= first}
        rows: list[Row] = []
        for day in sorted(days, reverse=True):
            keys_of_day = functools.partial(self._keys_of_day, day, kinds)
            rows = self._read_keys(keys_of_day, since, kinds) + rows
            if len(rows) >= limit:
                break
        return rows[-limit:]

    def _read_keys(
        self, list_keys: Callable[[], list[str]], since: float, kinds: Collection[str]
    ) -> list[Row]:
        known: dict[str, bytes] = {}
        for _ in range(READ_ATTEMPTS):
            keys = list_keys()
            if self._all_read(keys, known):
                rows = (row for key in keys for row in self._rows_of(key, known[key]))
                return ledger_rows.in_order(row for row in rows if _matches(row, since, kinds))
        raise Retryable(
            "the ledger was merged while it was read",
            after_s=1.0,
            where=f"s3://{self._bucket}/{self._prefix}",
        )

    def _all_read(self, keys: Iterable[str], known: dict[str, bytes]) -> bool:
        """Read the keys that are not in `known`; return whether all exist."""
        missing = [key for key in keys if key not in known]
        if missing:
            with ThreadPoolExecutor(min(THREADS, len(missing))) as pool:
                contents = zip(missing, pool.map(self._get, missing), strict=True)
                known.update({key: data for key, data in contents if data is not None})
        return all(key in known for key in missing)

    def _get(self, key: str) -> bytes | None:
        """The content of an object; None if it does not exist."""
        stored = read_object(self._s3, self._bucket, key)
        return None if stored is None else stored.content

    def _list(self, below: str, after: str = "") -> Iterator[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + below, StartAfter=self._prefix + after
        )
        for page in pages:
            yield from (item["Key"] for item in page.get("Contents", []))

    def _days(self, below: str) -> list[str]:
        """The dates with objects, oldest first."""
        prefix = self._prefix + below
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{prefix}2", Delimiter="/"
        )
        days = (
            item["Prefix"][len(prefix) :].rstrip("/")
            for page in pages
            for item in page.get("CommonPrefixes", [])
        )
        return sorted(day for day in days if ledger_rows.is_date(day))

    # writing

    def _put(self, name: str, rows: Sequence[Row]) -> None:
        key = self._prefix + name
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=ledger_rows.pack(rows),
                ContentType="application/gzip",
            )

    def _delete(self, keys: Sequence[str]) -> None:
        """Delete one by one: DeleteObjects needs a checksum that not every S3 accepts."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: self._s3.delete_object(Bucket=self._bucket, Key=key), keys))

    def _convert_day(self, day: str) -> int:
        """Convert a day of the first format (one object per row) into parts."""
        keys = list(self._list(f"{day}/"))
        known: dict[str, bytes] = {}
        if not keys or not self._all_read(keys, known):
            return 0
        self.append_many(row for key in keys for row in self._rows_of(key, known[key]))
        self._delete(keys)
        return len(keys)

    def _merge_day(self, folder: str, *, over: bool) -> int:
        listed = self._list(folder)
        keys = [key for key in listed if ledger_rows.is_object_name(key.rpartition("/")[2])]
        if over:
            return self._merge(folder, keys, whole_day=True) if len(keys) > 1 else 0
        merged = 0
        for _, group in itertools.groupby(
            keys, key=lambda key: key.rpartition("/")[2].partition("-")[0]
        ):
            parts = list(group)
            if len(parts) >= MIN_PARTS_TO_MERGE:
                merged += self._merge(folder, parts, whole_day=False)
        return merged

    def _rows_of(self, key: str, body: bytes) -> list[Row]:
        """The rows of an object; none of one that cannot be read, which the leader sets aside.

        After that it may be merged away: a copy is kept.
        """
        rows = ledger_rows.rows_of(key, body)
        if not isinstance(rows, Unreadable):
            return rows
        if self._log is not None:
            self._set_aside.add(KIND, key, body, rows, self._log)
            self._s3.delete_object(Bucket=self._bucket, Key=key)
        return []

    def _merge(self, folder: str, keys: Sequence[str], *, whole_day: bool) -> int:
        """Replace several objects by one. At each moment every row is in an object that exists."""
        known: dict[str, bytes] = {}
        if not self._all_read(keys, known):
            return 0  # another process merges them
        rows = ledger_rows.in_order(row for key in keys for row in self._rows_of(key, known[key]))
        names = [key.rpartition("/")[2] for key in keys]
        self._put(
            folder
            + ledger_rows.merged_name(
                names, whole_day, f"{self._writer}.{next(self._numbers):08d}"
            ),
            rows,
        )
        self._delete(keys)
        return len(keys)


def _matches(row: Row, since: float, kinds: Collection[str]) -> bool:
    return bool(row["at"] >= since) and (not kinds or row["kind"] in kinds)


def _has_kind(key: str, kinds: Collection[str]) -> bool:
    """Whether the key of an object of the first format is of these kinds."""
    return not kinds or key.rpartition("-")[2].removesuffix(".json") in kinds


def _is_over(day: str, now: float) -> bool:
    start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    return now > start + 86400 + DAY_OVER_AFTER_S
