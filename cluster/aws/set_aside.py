"""Records in S3 that cannot be read are copied below `<cluster>/set-aside/`.

The rights of a master allow to read and write the cluster's objects, and to delete those of the
ledger only. A control object is therefore copied and then overwritten by its owner. Depends on
boto3 and `common.records`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.common.errors import BadInput, NotFound
from mesaform.common.records import Problem, Unreadable
from mesaform.common.set_aside import SetAside, SetAsideLog

FOLDER = "set-aside"
PLACE, PROBLEM, DETAIL = "place", "problem", "detail"
"""Names of the metadata of a copied object."""


class SetAsideObjects:
    """The records of one cluster that were set aside in its bucket.

    Args:
        bucket: the account's bucket.
        cluster: the cluster's name.
        region: the region of the bucket.

    """

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._bucket = bucket
        self._cluster = cluster
        self._prefix = f"{cluster}/{FOLDER}/"
        self._s3 = client.client("s3", region)

    def add(
        self, kind: str, key: str, data: bytes, unreadable: Unreadable, log: SetAsideLog
    ) -> str:
        """Copy a record; return the name of the copy. Idempotent: equal bytes have one name.

        Raises:
            CloudError: S3 refused or did not answer.

        """
        digest = hashlib.sha256(data).hexdigest()[:8]
        name = f"{key.rpartition('/')[2]}.{digest}"
        target = f"{self._prefix}{kind}/{name}"
        with translate_errors(f"s3://{self._bucket}/{target}"):
            self._s3.put_object(
                Bucket=self._bucket,
                Key=target,
                Body=data,
                Metadata={
                    PLACE: key,
                    PROBLEM: str(unreadable.problem),
                    DETAIL: unreadable.detail.encode("ascii", "replace").decode(),
                },
            )
        log.report(kind, f"s3://{self._bucket}/{key}", unreadable)
        return name

    def all(self) -> list[SetAside]:
        """All entries, sorted by kind and name.

        Raises:
            CloudError: S3 refused or did not answer.

        """
        with translate_errors(f"s3://{self._bucket}/{self._prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            return [self._entry(item) for page in pages for item in page.get("Contents", [])]

    def content(self, kind: str, name: str) -> bytes:
        """The bytes of a record that was set aside.

        Raises:
            NotFound: there is no such entry.

        """
        key = self._key(kind, name)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            return bytes(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def restore(self, kind: str, name: str) -> SetAside:
        """Write a record where it was, over what is there now, and delete the entry.

        Raises:
            NotFound: there is no such entry.

        """
        entry = self._named(kind, name)
        if not entry.place.startswith(f"s3://{self._bucket}/{self._cluster}/"):
            raise BadInput("it is not known where the record was", where=entry.id)
        place = entry.place.removeprefix(f"s3://{self._bucket}/")
        data = self.content(kind, name)
        with translate_errors(entry.place):
            self._s3.put_object(Bucket=self._bucket, Key=place, Body=data)
        return self.remove(kind, name)

    def remove(self, kind: str, name: str) -> SetAside:
        """Delete an entry for good.

        Raises:
            NotFound: there is no such entry.

        """
        entry, key = self._named(kind, name), self._key(kind, name)
        with translate_errors(f"s3://{self._bucket}/{key}"):
            self._s3.delete_object(Bucket=self._bucket, Key=key)
        return entry

    def _named(self, kind: str, name: str) -> SetAside:
        for entry in self.all():
            if (entry.kind, entry.name) == (kind, name):
                return entry
        raise NotFound("no such record was set aside", where=f"{kind}/{name}")

    def _entry(self, item: dict[str, Any]) -> SetAside:
        kind, _, name = item["Key"].removeprefix(self._prefix).partition("/")
        head = self._s3.head_object(Bucket=self._bucket, Key=item["Key"])["Metadata"]
        problem = head.get(PROBLEM, "")
        return SetAside(
            kind=kind,
            name=name,
            place=f"s3://{self._bucket}/{head[PLACE]}" if PLACE in head else "",
            problem=Problem(problem) if problem in list(Problem) else Problem.UNREADABLE,
            detail=head.get(DETAIL, ""),
            size_bytes=item["Size"],
            at=item["LastModified"].timestamp(),
        )

    def _key(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}/{name}"
