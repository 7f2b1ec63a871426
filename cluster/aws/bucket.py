"""The account's bucket (see `blueprint.bucket_name`): private, encrypted, made on first use, never removed by this product."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from mesaform.aws import client
from mesaform.aws.errors import error_code, is_absent, translate_errors
from mesaform.common.errors import NotOwned

BAKE_PREFIX = "bake/"
BAKE_KEPT_DAYS = 30
"""Bundles, reports and logs of bakes are of use for as long as somebody may ask why an image is as it is."""


def ensure_bucket(region: str) -> str:
    """The bucket's name; it exists when this returns. Idempotent.

    Raises:
        NotOwned: another account has a bucket of this name.
        CloudError: S3 or STS refused.

    """
    name = client.account_bucket(region)
    s3 = client.client("s3", region)
    with translate_errors(f"s3://{name}"):
        if not _exists(s3, name):
            _create(s3, name, region)
    return name


def _exists(s3: Any, name: str) -> bool:
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


def _create(s3: Any, name: str, region: str) -> None:
    placement = (
        {}
        if region == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )
    try:
        s3.create_bucket(Bucket=name, **placement)
    except ClientError as error:
        if error_code(error) != "BucketAlreadyOwnedByYou":  # somebody else's bake was quicker
            raise
    blocked = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=blocked)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    lifecycle = {
        "ID": "bake",
        "Status": "Enabled",
        "Filter": {"Prefix": BAKE_PREFIX},
        "Expiration": {"Days": BAKE_KEPT_DAYS},
    }
    s3.put_bucket_lifecycle_configuration(
        Bucket=name, LifecycleConfiguration={"Rules": [lifecycle]}
    )
