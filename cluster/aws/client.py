"""botocore clients with bounded time-outs, and the name of the account's bucket."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import botocore.session
from botocore.config import Config
from botocore.loaders import Loader

from mesaform.aws.errors import no_credentials, translate_errors
from mesaform.topology.names import bucket_account, bucket_name

if TYPE_CHECKING:
    from botocore.model import OperationModel

_CONFIG = Config(
    connect_timeout=3,
    read_timeout=20,
    retries={"mode": "standard", "max_attempts": 2},
    max_pool_connections=16,
)

_models = Loader()
"""Service models, shared by all sessions: reading that of EC2 anew takes 0.1 s or more."""

_Environment: TypeAlias = tuple[tuple[str, str], ...]
_Key: TypeAlias = tuple[str, str, int, _Environment]


class _Clients:
    """The clients of this process. Only a client with credentials is kept.

    All clients of an environment share a session, and so its credentials: a profile that assumes a
    role with a second factor asks for one code. botocore looks for credentials when it creates a
    client, and again while there are none.
    """

    def __init__(self) -> None:
        self._clients: dict[_Key, Any] = {}
        self._sessions: dict[_Environment, botocore.session.Session] = {}
        self._lock = threading.Lock()

    def get(self, service: str, region: str, config: Config) -> Any:
        """Return the client of a service for the present environment."""
        environment = tuple(sorted(i for i in os.environ.items() if i[0].startswith("AWS_")))
        key = (service, region, id(config), environment)
        with self._lock:
            if environment not in self._sessions:
                self._sessions[environment] = _new_session()
            if key not in self._clients:
                session = self._sessions[environment]
                self._clients[key] = _create(session, service, region, config)
            return self._clients[key]

    def discard(self) -> None:
        """Forget all clients."""
        with self._lock:
            self._clients.clear()
            self._sessions.clear()


def _new_session() -> botocore.session.Session:
    session = botocore.session.get_session()
    session.register_component("data_loader", _models)
    return session


def configured_endpoints() -> dict[str, str]:
    """Endpoints that the shared configuration files name for the present profile.

    By setting: `endpoint_url`, and `<service>.endpoint_url` of the profile's `services` section
    (AWS SDKs and tools reference guide, "Service-specific endpoints"). Terraform reads them too.

    Raises:
        CloudError: the profile does not exist, or a file cannot be read.

    """
    session = _new_session()
    with translate_errors("shared configuration of AWS"):
        profile = session.get_scoped_config()
        sections = session.full_config.get("services", {})
    settings = {"": profile, **sections.get(profile.get("services", ""), {})}
    return {
        f"{service}.endpoint_url".lstrip("."): str(values["endpoint_url"])
        for service, values in settings.items()
        if isinstance(values, dict) and "endpoint_url" in values
    }


def _create(session: botocore.session.Session, service: str, region: str, config: Config) -> Any:
    where = f"client of {service}"
    with translate_errors(where):
        if session.get_credentials() is None:
            raise no_credentials(where)
        created = session.create_client(service, region_name=region, config=config)
    if service == "s3":
        created.meta.events.register("before-parameter-build.s3", _expect_owner)
    return created


def _expect_owner(
    params: dict[str, Any], model: OperationModel, context: dict[str, Any], **_: object
) -> None:
    """Have S3 refuse calls to a bucket of this name that another account owns.

    The bucket's name contains the account (`topology.names.bucket_name`). Presigned URLs are left
    as they are: their users would have to send the header.
    """
    owner = bucket_account(str(params.get("Bucket", "")))
    shape = model.input_shape
    is_supported = shape is not None and "ExpectedBucketOwner" in shape.members
    if owner and is_supported and not context.get("is_presign_request"):
        params.setdefault("ExpectedBucketOwner", owner)


_clients = _Clients()


def client(service: str, region: str, config: Config = _CONFIG) -> Any:
    """Return a botocore client of a service.

    The variables `AWS_*` of the environment at the time of the call decide whether it talks to AWS
    or to the local cloud. Equal environments share one client; any thread may use it. `config` is
    a constant of its module. Temporary credentials are renewed by the client itself.

    Raises:
        NotAuthenticated: no credentials are found now; a later call looks again.

    """
    return _clients.get(service, region, config)


def discard_clients() -> None:
    """Forget all clients, so that credentials are looked for again: AWS rejected the present ones.

    Clients that are in use stay usable.
    """
    _clients.discard()


def account_bucket(region: str) -> str:
    """Return the bucket of this account and region (`topology.names.bucket_name`); calls STS.

    Raises:
        NotAuthenticated: credentials are missing or not valid.
        CloudError: STS refused or did not answer.

    """
    with translate_errors("sts GetCallerIdentity"):
        account = client("sts", region).get_caller_identity()["Account"]
    return bucket_name(account, region)
