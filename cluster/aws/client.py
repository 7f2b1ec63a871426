"""The edge to AWS: clients with sane limits, and the one place where botocore's errors become ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.loaders import Loader

from mesaform.common.errors import CloudError, InsufficientCapacity, NotFound, Permanent, Retryable
from mesaform.topology.naming import bucket_name

THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "SlowDown",
        "TooManyRequestsException",
    }
)
SERVER_FAULTS = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "ServiceUnavailable",
        "Unavailable",
        "RequestTimeout",
        "503",
        "500",
    }
)
ABSENT = frozenset(
    {
        "NoSuchKey",
        "NoSuchBucket",
        "ParameterNotFound",
        "404",
        "NotFoundException",
        "AWS.SimpleQueueService.NonExistentQueue",
    }
)
FORBIDDEN = frozenset(
    {
        "UnauthorizedOperation",
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "InvalidClientTokenId",
        "ExpiredToken",
        "403",
    }
)
WITHOUT_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientFreeAddressesInSubnet",
        "MaxSpotInstanceCountExceeded",
        "InstanceLimitExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "Unsupported",
        "VcpuLimitExceeded",
    }
)
"""Codes that say "not this offering, not now". Any other refusal is a fault of the request."""

THROTTLED_AFTER_S = 5.0
FAULT_AFTER_S = 2.0

_CONFIG = Config(
    connect_timeout=3,
    read_timeout=20,
    retries={"mode": "standard", "max_attempts": 2},
    max_pool_connections=16,
)


_models = Loader()
"""Descriptions of the services, read once: a session by itself reads them anew for each client, EC2's in a tenth of a second or more."""


def client(service: str, region: str, config: Config = _CONFIG) -> Any:
    """A client as boto3's; where it points (AWS or the local cloud) comes from the environment as it is now.

    The same client for the same environment; it may be used from any thread.
    """
    return _client(
        service,
        region,
        config,
        tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))),
    )


@lru_cache(maxsize=64)
def _client(
    service: str, region: str, config: Config, _environment: tuple[tuple[str, str], ...]
) -> Any:
    session = botocore.session.get_session()
    session.register_component("data_loader", _models)
    return session.create_client(service, region_name=region, config=config)


def code_of(error: ClientError) -> str:
    """The error's code, such as `InvalidInstanceID.NotFound`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def translate(error: ClientError, where: str) -> CloudError:
    """An error of botocore as one of ours, by its code and status and never by its text."""
    code = code_of(error)
    what = f"{code}: {error.response.get('Error', {}).get('Message', '')}".strip()
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in THROTTLED:
        return Retryable(what, after_s=THROTTLED_AFTER_S, where=where)
    if code in WITHOUT_CAPACITY:
        return InsufficientCapacity(what, offering="", where=where)
    if code in ABSENT or code.endswith((".NotFound", ".NotFoundException", ".Unknown")):
        return NotFound(what, where=where)
    if code in FORBIDDEN:
        return Permanent(
            what, where=where, fix="check the credentials, or the instance profile's rights"
        )
    if code in SERVER_FAULTS or status >= 500:
        return Retryable(what, after_s=FAULT_AFTER_S, where=where)
    return Permanent(what, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run AWS calls inside; what they raise comes out as a `CloudError` that names `where`."""
    try:
        yield
    except ClientError as error:
        raise translate(error, where) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Permanent(
            "no AWS credentials",
            where=where,
            fix="set AWS_PROFILE or AWS_ACCESS_KEY_ID, or run on an instance with a profile",
        ) from error
    except BotoCoreError as error:
        raise Retryable(
            f"no answer from AWS: {error}", after_s=FAULT_AFTER_S, where=where
        ) from error


def account_bucket(region: str) -> str:
    """The bucket of this account and region (see `blueprint.bucket_name`); asks STS who we are."""
    with translated("sts GetCallerIdentity"):
        account = client("sts", region).get_caller_identity()["Account"]
    return bucket_name(account, region)
