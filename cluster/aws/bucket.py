"""The account's bucket (`topology.names.bucket_name`): private, encrypted, created on first use.

This product never removes it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from mesaform.aws import client
from mesaform.aws.errors import error_code, is_absent, translate_errors
from mesaform.common.errors import NotOwned
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.topology import iam

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import BucketLocationConstraintType

TLS_ONLY = "RefuseRequestsWithoutTls"
BAKE_PREFIX = "bake/"
BAKE_EXPIRY_DAYS = 30
"""Days after which S3 deletes the bundles, reports and logs of bakes."""


def ensure_bucket(region: str) -> str:
    """Create the bucket if it does not exist, and return its name. Idempotent.

    Raises:
        NotOwned: another account has a bucket of this name.
        CloudError: S3 or STS refused.

    """
    name = client.account_bucket(region)
    s3: S3Client = client.client("s3", region)
    with translate_errors(f"s3://{name}"):
        if not _exists(s3, name):
            _create(s3, name, region)
        if s3.meta.endpoint_url.startswith("https://"):  # the local cloud speaks plain HTTP
            require_tls(s3, name, region)
    return name


def require_tls(s3: S3Client, name: str, region: str) -> None:
    """Have the bucket refuse requests without TLS. Idempotent; other statements stay."""
    try:
        policy = as_object(json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]))
    except ClientError as error:
        if error_code(error) != "NoSuchBucketPolicy":
            raise
        policy = {"Version": "2012-10-17", "Statement": []}
    statements = as_list(policy.get("Statement"))
    if any(as_object(statement).get("Sid") == TLS_ONLY for statement in statements):
        return
    arn = f"arn:{iam.partition(region)}:s3:::{name}"
    denied: JsonObject = {
        "Sid": TLS_ONLY,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    document = {**policy, "Statement": [*statements, denied]}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(document))


def _exists(s3: S3Client, name: str) -> bool:
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error_code(error) in ("403", "AccessDenied"):
            raise NotOwned(
                "the bucket exists and these credentials may not use it",
                where=f"s3://{name}",
                fix="check which account the credentials are of",
            ) from error
        if is_absent(error):
            return False
        raise
    return True


def _create(s3: S3Client, name: str, region: str) -> None:
    try:
        if region == "us-east-1":  # S3 accepts no location constraint there
            s3.create_bucket(Bucket=name)
        else:
            location = cast("BucketLocationConstraintType", region)
            s3.create_bucket(
                Bucket=name, CreateBucketConfiguration={"LocationConstraint": location}
            )
    except ClientError as error:
        if error_code(error) != "BucketAlreadyOwnedByYou":  # another bake was faster
            raise
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    s3.put_bucket_lifecycle_configuration(
        Bucket=name,
        LifecycleConfiguration={
            "Rules": [
                {
                    "ID": "bake",
                    "Status": "Enabled",
                    "Filter": {"Prefix": BAKE_PREFIX},
                    "Expiration": {"Days": BAKE_EXPIRY_DAYS},
                }
            ]
        },
    )
