"""The identity of a deployment: a random id, and the account and region that it lives in.

The record is `deployment.json` in the cluster's state folder. The first `mesaform up` writes it
before anything is created. Every resource carries the id as the tag `mesaform:deployment`, so that
this folder can prove which resources of the account are its own. The record is removed when
`mesaform down` has proven the account empty. Depends on AWS STS and on the local disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated

import msgspec

from mesaform.common.errors import BadInput, CloudError, MissingPrerequisite, NotOwned
from mesaform.common.record_files import peek_record, write_record
from mesaform.common.records import Codec, Unreadable

FILE_NAME = "deployment.json"
ID_BYTES = 8
"""Bytes of randomness in an id: 64 bits, unique among all deployments of an account."""
SECRET_BYTES = 32


class Deployment(msgspec.Struct, frozen=True):
    """The record of a deployment, as it is stored.

    `secret` is the cluster's secret, 256 random bits. `zones` are those that the last `mesaform up`
    used. Records of older versions have neither until the next `mesaform up`.
    """

    deployment_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    account_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}$")]
    region: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    secret: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]*$", max_length=128)] = ""
    zones: tuple[str, ...] = ()


CODEC = Codec("provision.deployment", Deployment)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom AWS answers: the account, the caller's ARN, and AWS' clock (seconds since the epoch)."""

    account_id: str
    arn: str
    cloud_time_s: float


def read_deployment(folder: Path) -> Deployment | None:
    """The deployment's record; None when this folder has none.

    Raises:
        BadInput: the record cannot be read.

    """
    path = folder / FILE_NAME
    record = peek_record(path, CODEC)
    if isinstance(record, Unreadable):
        raise BadInput(
            f"the deployment's record cannot be read: {record}",
            where=str(path),
            fix="nothing was changed; restore the record from a backup, or move it away and name"
            " the tag mesaform:deployment of the cluster's resources:"
            " mesaform adopt --deployment <id>",
        )
    return record


def require_deployment(folder: Path) -> Deployment:
    """The folder's deployment.

    Raises:
        NotOwned: the folder has none.
        BadInput: the record cannot be read.

    """
    if existing := read_deployment(folder):
        return existing
    raise NotOwned(
        "this folder has no deployment id, so nothing in the account can be proven to be its own",
        where=str(folder / FILE_NAME),
        fix="name the id with --deployment; the tag mesaform:deployment of the cluster's resources"
        " has it",
    )


def establish_deployment(
    folder: Path,
    caller: Caller,
    region: str,
    *,
    deployment_id: str = "",
    zones: Sequence[str] = (),
    secret: str = "",
) -> Deployment:
    """The folder's deployment; a new one, written durably, if there is none. Idempotent.

    A record without a secret gets one. The file is readable for its owner only.

    Args:
        folder: the cluster's state folder.
        caller: whose credentials are in use.
        region: the region of the cluster.
        deployment_id: the id of a deployment whose record was lost; a new one if it is empty.
        zones: the zones that are deployed now; none leaves those of the record.
        secret: the secret of the living cluster if the record is lost; a new one if it is empty.

    Raises:
        BadInput: the record cannot be read.

    """
    existing = read_deployment(folder)
    identity = deployment_id or secrets.token_hex(ID_BYTES)
    known = existing or Deployment(identity, caller.account_id, region)
    established = msgspec.structs.replace(
        known,
        secret=known.secret or secret or secrets.token_hex(SECRET_BYTES),
        zones=tuple(zones) or known.zones,
    )
    if established == existing:
        return existing
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / FILE_NAME, CODEC, established, durable=True)
    return established


def release_deployment(folder: Path) -> None:
    """Remove the record: nothing with its id is left. Idempotent."""
    (folder / FILE_NAME).unlink(missing_ok=True)


def identify_caller(region: str) -> Caller:
    """Ask AWS STS whose credentials are in use.

    Raises:
        MissingPrerequisite: AWS rejected the credentials, there are none, or STS did not answer.

    """
    import time

    from mesaform.aws.client import client
    from mesaform.aws.errors import translate_errors

    try:
        with translate_errors("sts GetCallerIdentity"):
            answer = client("sts", region).get_caller_identity()
    except CloudError as error:
        raise MissingPrerequisite(
            f"AWS rejected the credentials: {error.what}",
            where=region,
            fix="set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on the local"
            " target restart the local cloud: mesaform local stop, then mesaform up",
        ) from error
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
    try:
        cloud_time_s = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        cloud_time_s = time.time()
    return Caller(str(answer["Account"]), str(answer.get("Arn", "")), cloud_time_s)


def require_account(deployment: Deployment | None, caller: Caller, region: str, file: Path) -> None:
    """Check that the credentials reach the account and region in which the deployment lives.

    Args:
        deployment: the folder's record; None checks nothing.
        caller: whose credentials are in use.
        region: the region that the cluster file names.
        file: the cluster file.

    Raises:
        NotOwned: account or region differ from those of the first `mesaform up`.

    """
    if deployment is None:
        return
    if caller.account_id != deployment.account_id:
        raise NotOwned(
            f"this cluster is in the AWS account {deployment.account_id}; the credentials in use"
            f" are of {caller.account_id} ({caller.arn})",
            where=str(file),
            fix="nothing was changed; choose the right credentials (AWS_PROFILE), and unset"
            " AWS_ENDPOINT_URL unless it is meant",
        )
    if region != deployment.region:
        raise NotOwned(
            f"this cluster is in {deployment.region}; the file names {region}",
            where=str(file),
            fix="nothing was changed; name the old region again, or give the cluster another name",
        )
