"""The expiry of a cluster with `ttl`, as `mesaform up` and `mesaform extend` write it.

Depends on S3.
"""

from __future__ import annotations

import getpass
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from mesaform.aws.expiry import EXPIRY, NAME, Expiry, settled
from mesaform.common.errors import BadInput
from mesaform.common.records import Unreadable
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import require_deployment

if TYPE_CHECKING:
    from mesaform.aws.ports import Control


def ensure_expiry(place: ClusterContext, control: Control) -> str:
    """Store the expiry that the spec asks for, before a master reads it. Idempotent. Blocks.

    Returns when the cluster ends; an empty text if it does not.

    Raises:
        CloudError: S3 did not answer.
        NotOwned: the folder has no deployment.

    """
    known = control.read_record(NAME, EXPIRY)
    if isinstance(known, Unreadable):
        known = None
    deployment = require_deployment(place.cluster_dir).deployment_id
    wanted = settled(known, deployment, place.spec.ttl_s, time.time(), _author())
    if wanted is not None:
        control.write_record(NAME, EXPIRY, wanted)
    expiry = wanted or known
    return describe_end(expiry) if expiry and place.spec.ttl else ""


def extend(place: ClusterContext, control: Control, by_s: float) -> Expiry:
    """Move the end of a living cluster, and return it. Blocks.

    Raises:
        BadInput: the cluster has no end, or has ended.
        CloudError: S3 did not answer.
        NotOwned: the folder has no deployment.

    """
    known = control.read_record(NAME, EXPIRY)
    deployment = require_deployment(place.cluster_dir).deployment_id
    has_end = isinstance(known, Expiry) and known.deployment == deployment and known.until > 0
    if not isinstance(known, Expiry) or not has_end:
        raise BadInput(
            f"{place.spec.name} does not end by itself",
            where=str(place.file),
            fix="set ttl in the cluster file, then: mesaform up",
        )
    if time.time() >= known.until:
        raise BadInput(
            f"the time of {place.spec.name} is over: its machines end now",
            where=str(place.file),
            fix="raise it again: mesaform up    remove the rest: mesaform down",
        )
    extended = msgspec.structs.replace(known, until=known.until + by_s, by=_author())
    control.write_record(NAME, EXPIRY, extended)
    return extended


def describe_end(expiry: Expiry) -> str:
    """When a cluster ends, as text."""
    return f"the cluster ends at {datetime.fromtimestamp(expiry.until, UTC):%Y-%m-%d %H:%M} UTC"


def _author() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user in the password file
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:256]
