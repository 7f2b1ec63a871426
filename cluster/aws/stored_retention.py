"""The retention of snapshots, from the cluster's spec in SSM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from mesaform.aws import client
from mesaform.aws.errors import translate_errors
from mesaform.common.errors import CloudError
from mesaform.common.snapshots import DEFAULT_RETENTION, Retention
from mesaform.topology.names import spec_parameter_name

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

log = structlog.get_logger(__name__)


class _Spec(msgspec.Struct, frozen=True):
    """The part of the spec that is read here."""

    snapshots: Retention = DEFAULT_RETENTION


def read_retention(cluster: str, region: str) -> Retention:
    """The retention that the cluster file sets; the defaults where it cannot be read. Blocks."""
    ssm: SSMClient = client.client("ssm", region)
    name = spec_parameter_name(cluster)
    try:
        with translate_errors(f"ssm {name}"):
            text = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        return msgspec.json.decode(text, type=_Spec).snapshots
    except (CloudError, msgspec.DecodeError) as error:
        log.warning("the retention of snapshots cannot be read", error=str(error))
        return DEFAULT_RETENTION
