"""Objects of Terraform's state in the account's bucket, below `names.state_prefix(cluster)`.

Terraform's S3 backend writes `<stack>.tfstate` and, while it works, `<stack>.tfstate.tflock`; this
program writes the deployment's record and its own lock beside them. Machines have no right to them.
Every call names the account that must own the bucket (`aws.client`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mesaform.aws import client
from mesaform.aws.errors import error_code, translate_errors
from mesaform.common.errors import NotFound
from mesaform.topology.names import state_prefix

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EXISTS_ALREADY = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's content, and its age in seconds by the clock of S3."""

    content: bytes
    age_s: float


class StateObjects:
    """The objects of one cluster. Calls block.

    In a bucket that does not exist there are none.
    """

    def __init__(self, bucket: str, cluster: str, region: str) -> None:
        self._bucket = bucket
        self._prefix = state_prefix(cluster)
        self._s3: S3Client = client.client("s3", region)

    def where(self, name: str = "") -> str:
        """The address of an object, for messages."""
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def has_bucket(self) -> bool:
        """Whether the bucket exists.

        Raises:
            CloudError: S3 refused or did not answer.

        """
        try:
            with translate_errors(f"s3://{self._bucket}"):
                self._s3.head_bucket(Bucket=self._bucket)
        except NotFound:
            return False
        return True

    def read(self, name: str) -> StoredObject | None:
        """An object; None if there is none.

        Raises:
            CloudError: S3 refused or did not answer.

        """
        try:
            with translate_errors(self.where(name)):
                answer = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)
                return StoredObject(answer["Body"].read(), _age_s(answer))
        except NotFound:
            return None

    def write(self, name: str, content: bytes, *, only_new: bool = False) -> bool:
        """Write an object; with `only_new` only if there is none. Whether it was written.

        Raises:
            CloudError: S3 refused or did not answer.

        """
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
        with translate_errors(self.where(name)):
            try:
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + name,
                    Body=content,
                    ServerSideEncryption="AES256",
                    **condition,
                )
            except ClientError as error:
                if only_new and error_code(error) in EXISTS_ALREADY:
                    return False
                raise
        return True

    def remove(self, name: str) -> None:
        """Remove an object; the bucket keeps its versions. Idempotent.

        Raises:
            CloudError: S3 refused or did not answer.

        """
        with translate_errors(self.where(name)):
            self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def names(self) -> list[str]:
        """The names of all objects, without their prefix.

        Raises:
            CloudError: S3 refused or did not answer.

        """
        try:
            with translate_errors(self.where()):
                paginator = self._s3.get_paginator("list_objects_v2")
                pages = paginator.paginate(Bucket=self._bucket, Prefix=self._prefix)
                keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        except NotFound:
            return []
        return [key.removeprefix(self._prefix) for key in keys]


def _age_s(answer: Any) -> float:
    changed_at: datetime = answer["LastModified"]
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
    try:
        now = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, (now - changed_at).total_seconds())
