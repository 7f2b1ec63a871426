"""Snapshots of a cluster's state: objects below `<cluster>/snapshots/` of the account's bucket.

See `ports.snapshots`.
"""

from __future__ import annotations

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.common.errors import NotFound
from mesaform.common.records import Unreadable
from mesaform.common.snapshots import SNAPSHOT, Snapshot, SnapshotName, parse_name


class SnapshotObjects:
    """Snapshots as objects in S3. See `SnapshotStore`."""

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._bucket = bucket
        self._prefix = f"{cluster}/snapshots/"
        self._s3 = client.client("s3", region)

    def names(self) -> list[SnapshotName]:
        try:
            with translate_errors(f"s3://{self._bucket}/{self._prefix}"):
                pages = self._s3.get_paginator("list_objects_v2").paginate(
                    Bucket=self._bucket, Prefix=self._prefix
                )
                keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        except NotFound:  # no bucket
            return []
        parsed = (parse_name(str(key).removeprefix(self._prefix)) for key in keys)
        return sorted(name for name in parsed if name is not None)

    def read(self, name: SnapshotName) -> Snapshot | Unreadable:
        key = self._key(name)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
            return SNAPSHOT.decode(bytes(answer["Body"].read()))

    def write(self, snapshot: Snapshot) -> SnapshotName:
        name = SnapshotName.of(snapshot.at, snapshot.deployment)
        key, body = self._key(name), SNAPSHOT.encode(snapshot)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        return name

    def remove(self, name: SnapshotName) -> None:
        key = self._key(name)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def _key(self, name: SnapshotName) -> str:
        return f"{self._prefix}{name}"
