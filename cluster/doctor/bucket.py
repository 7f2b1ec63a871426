"""Whether the account owns the bucket of its name, or nobody has it yet."""

from __future__ import annotations

from mesaform.aws.client import client
from mesaform.aws.errors import Fault, classify, error_code, translate_errors
from mesaform.common.errors import NotFound, Permanent
from mesaform.doctor.finding import Finding, error, ok
from mesaform.doctor.subject import Examination
from mesaform.topology.names import bucket_name

CHECK = "bucket"


def look(examination: Examination) -> list[Finding]:
    """Ask S3 for the bucket, which the account itself has to own (ExpectedBucketOwner)."""
    name = bucket_name(examination.caller.account_id, examination.region)
    try:
        with translate_errors(f"s3://{name}"):
            client("s3", examination.region).head_bucket(Bucket=name)
    except NotFound:
        return [ok(CHECK, f"{name} does not exist yet; mesaform up creates it")]
    except Permanent as fault:
        code = error_code(fault.__cause__)
        if classify(code) is not Fault.FORBIDDEN:
            raise
        return [
            error(
                CHECK,
                f"{name} is another account's, or these credentials may not use it",
                "allow s3:ListBucket on it; if another account has it, ask AWS Support",
            )
        ]
    return [ok(CHECK, f"{name}, owned by this account")]
