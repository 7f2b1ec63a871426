"""Reading of objects that may not exist, where S3 may hide which of them do.

S3 answers a GetObject of a missing key with 404 to callers that may list the bucket, and with 403
to others (API reference of GetObject). Masters may list the prefix of their cluster only
(`topology.iam`), and AWS does not document how it takes that condition in a GetObject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from mesaform.aws.errors import is_absent, is_forbidden, translate_errors
from mesaform.common.records import DOCUMENT_LIMIT_BYTES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


READ_LIMIT_BYTES = 2 * DOCUMENT_LIMIT_BYTES
"""Nothing that is read is larger. An object can have 5 TiB, and a master little memory."""


@dataclass(frozen=True, slots=True)
class BucketObject:
    """The content of an object, and its version for conditional writes.

    Of an object that is larger than `READ_LIMIT_BYTES` it is the beginning.
    """

    content: bytes
    etag: str


def read_object(s3: S3Client, bucket: str, key: str) -> BucketObject | None:
    """An object; None if it, or the bucket, does not exist.

    A refusal counts as absence only if a listing of that key, which the caller may make, is empty.

    Raises:
        Permanent: the caller may not read an object that exists, or may not list it.
        CloudError: S3 did not answer.

    """
    with translate_errors(f"s3://{bucket}/{key}"):
        try:
            answer = s3.get_object(Bucket=bucket, Key=key)
            with answer["Body"] as body:
                return BucketObject(body.read(READ_LIMIT_BYTES), str(answer["ETag"]))
        except ClientError as error:
            if is_absent(error) or (is_forbidden(error) and not _is_listed(s3, bucket, key)):
                return None
            raise


def _is_listed(s3: S3Client, bucket: str, key: str) -> bool:
    """Whether the key exists. It is the first of the keys that begin with it."""
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    return any(item.get("Key") == key for item in listed)
