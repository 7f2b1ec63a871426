"""The account's bucket (`topology.names.bucket_name`): private, encrypted, created on first use.

This product never removes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from mesaform.aws import client
from mesaform.aws.errors import error_code, is_absent, translate_errors
from mesaform.common.errors import NotOwned
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.topology import iam
from mesaform.topology.names import STATE_ROOT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import BucketLocationConstraintType
    from mypy_boto3_s3.type_defs import LifecycleRuleTypeDef

TLS_ONLY = "RefuseRequestsWithoutTls"
BAKE_PREFIX = "bake/"
BAKE_EXPIRY_DAYS = 30
"""Days after which S3 deletes the bundles, reports and logs of bakes."""
STATE_VERSION_DAYS = 365
OBJECT_VERSION_DAYS = 1
"""Days after which S3 deletes versions of Terraform's states, and of other objects."""


def ensure_bucket(region: str) -> str:
    """Create the bucket if it does not exist, protect it, and return its name. Idempotent.

    Raises:
        NotOwned: another account has a bucket of this name.
        CloudError: S3 or STS refused.

    """
    name = client.account_bucket(region)
    s3: S3Client = client.client("s3", region)
    with translate_errors(f"s3://{name}"):
        if not _exists(s3, name):
            _create(s3, name, region)
            _protect(s3, name)
            _set_rules(s3, name, {"bake": _bake_rule()})
        if s3.meta.endpoint_url.startswith("https://"):  # the local cloud speaks plain HTTP
            require_tls(s3, name, region)
    return name


def ensure_state_bucket(region: str, cluster: str) -> str:
    """The bucket, made fit for Terraform's states: protected in any case, with versions.

    Versions of the cluster's other objects, some of which change every few seconds, are kept for a
    day only. Idempotent.

    Raises:
        NotOwned: another account has a bucket of this name.
        CloudError: S3 or STS refused.

    """
    name = ensure_bucket(region)
    s3: S3Client = client.client("s3", region)
    with translate_errors(f"s3://{name}"):
        _protect(s3, name)
        if s3.get_bucket_versioning(Bucket=name).get("Status") != "Enabled":
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        rules = {
            "bake": _bake_rule(),
            "terraform": _versions_rule(STATE_ROOT, STATE_VERSION_DAYS),
            f"versions-{cluster}": _versions_rule(f"{cluster}/", OBJECT_VERSION_DAYS),
        }
        _set_rules(s3, name, rules)
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


def _protect(s3: S3Client, name: str) -> None:
    """Block public access, and encrypt what is stored. Idempotent."""
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    try:
        s3.get_bucket_encryption(Bucket=name)  # an operator may have chosen a key of KMS
    except ClientError as error:
        if error_code(error) != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        s3.put_bucket_encryption(
            Bucket=name,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        )


def _bake_rule() -> LifecycleRuleTypeDef:
    return {
        "ID": "bake",
        "Status": "Enabled",
        "Filter": {"Prefix": BAKE_PREFIX},
        "Expiration": {"Days": BAKE_EXPIRY_DAYS},
        "NoncurrentVersionExpiration": {"NoncurrentDays": OBJECT_VERSION_DAYS},
    }


def _versions_rule(prefix: str, days: int) -> LifecycleRuleTypeDef:
    """The rule that removes versions `days` after another version took their place."""
    return {
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
    }


def _set_rules(s3: S3Client, name: str, wanted: Mapping[str, LifecycleRuleTypeDef]) -> None:
    """Set lifecycle rules by their ids; rules with other ids stay. Idempotent."""
    try:
        present = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    except ClientError as error:
        if error_code(error) != "NoSuchLifecycleConfiguration":
            raise
        present = []
    others = [rule for rule in present if rule.get("ID") not in wanted]
    rules = [*others, *({**rule, "ID": key} for key, rule in wanted.items())]
    s3.put_bucket_lifecycle_configuration(
        Bucket=name,
        LifecycleConfiguration={"Rules": cast("list[LifecycleRuleTypeDef]", rules)},
    )
