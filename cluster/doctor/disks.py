"""Whether masters may use the key with which disks are encrypted."""

from __future__ import annotations

from mesaform.aws import account_facts
from mesaform.config.schema import ClusterSpec
from mesaform.doctor.finding import Finding, error, ok
from mesaform.doctor.subject import Examination

CHECK = "disk encryption"
AWS_KEY = "alias/aws/ebs"
"""The key that AWS manages; everybody who may create disks may use it."""


def look(examination: Examination) -> list[Finding]:
    """Ask EC2 for the key of disks that name none."""
    region = examination.region
    key = account_facts.default_disk_key(region)
    is_default = account_facts.is_encrypted_by_default(region)
    return [assess(examination.spec, key, is_default=is_default)]


def assess(spec: ClusterSpec, key: str, *, is_default: bool) -> Finding:
    """The finding about the key of disks. Pure."""
    named = spec.account.kms_key
    if named:
        return ok(CHECK, f"disks are encrypted with {named}, which masters may use")
    if is_aws_managed(key):
        every = "; EC2 encrypts every disk" if is_default else ""
        return ok(CHECK, f"disks are encrypted with {AWS_KEY}{every}")
    return error(
        CHECK,
        f"the account encrypts disks with the key {key}, which masters may not use: the machines"
        " that they launch would end with Client.InternalError",
        "set account.kms_key to the ARN of this key; its own policy must admit the account's roles",
    )


def is_aws_managed(key: str) -> bool:
    """Whether a key is the one that AWS manages for EBS."""
    return not key or key.endswith(AWS_KEY)
