"""botocore clients with bounded time-outs, and the name of the account's bucket."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.loaders import Loader

from mesaform.aws.errors import translate_errors
from mesaform.topology.names import bucket_name

_CONFIG = Config(
    connect_timeout=3,
    read_timeout=20,
    retries={"mode": "standard", "max_attempts": 2},
    max_pool_connections=16,
)

_models = Loader()
"""Service models, shared by all sessions: reading that of EC2 anew takes 0.1 s or more."""


def client(service: str, region: str, config: Config = _CONFIG) -> Any:
    """Return a botocore client of a service.

    The variables `AWS_*` of the environment at the time of the call decide whether it talks to AWS
    or to the local cloud. Equal environments share one client; any thread may use it.
    """
    environment = tuple(sorted(i for i in os.environ.items() if i[0].startswith("AWS_")))
    return _client(service, region, config, environment)


@lru_cache(maxsize=64)
def _client(
    service: str, region: str, config: Config, _environment: tuple[tuple[str, str], ...]
) -> Any:
    session = botocore.session.get_session()
    session.register_component("data_loader", _models)
    return session.create_client(service, region_name=region, config=config)


def account_bucket(region: str) -> str:
    """Return the bucket of this account and region (`topology.names.bucket_name`); calls STS.

    Raises:
        CloudError: STS refused or did not answer.

    """
    with translate_errors("sts GetCallerIdentity"):
        account = client("sts", region).get_caller_identity()["Account"]
    return bucket_name(account, region)
