"""Context of a verb: the spec, the state folder beside it, and the environment of its cloud."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mesaform.common.errors import BadInput, MissingPrerequisite, NotOwned
from mesaform.config.parser import load
from mesaform.config.schema import ClusterSpec
from mesaform.localcloud.endpoint_file import read_endpoint
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import read_credentials
from mesaform.provision.deployment import read_deployment
from mesaform.provision.zones import with_recorded_zones

ALLOW_ENDPOINT_URL = "MESAFORM_ALLOW_ENDPOINT_URL"


@dataclass(frozen=True, slots=True)
class Context:
    """A cluster on the operator's machine. `state_dir` is `.mesaform` beside the cluster file."""

    spec: ClusterSpec
    file: Path
    state_dir: Path

    @property
    def local_dir(self) -> Path:
        """The local cloud's folder."""
        return self.state_dir / "local"

    @property
    def cluster_dir(self) -> Path:
        """The cluster's folder: Terraform state, lock, logs."""
        return self.state_dir / "clusters" / self.spec.name

    def enter_cloud(self) -> None:
        """Point boto3, Terraform and all child processes at the spec's cloud.

        On `aws` the environment is left as it is, but for the region.

        Raises:
            MissingPrerequisite: the target is local and no local cloud runs.
            NotOwned: the target is aws and the settings of AWS name another endpoint.

        """
        os.environ.setdefault("AWS_REGION", self.spec.region)
        os.environ.setdefault("AWS_DEFAULT_REGION", self.spec.region)
        if self.spec.target != "local":
            from mesaform.aws.client import configured_endpoints

            require_aws_endpoint(os.environ, configured_endpoints, self.file)
            return
        layout = Layout(self.local_dir)
        endpoint = read_endpoint(layout)
        if endpoint is None:
            raise MissingPrerequisite(
                "the local cloud is not running, so there is no cluster to ask",
                where=str(layout.endpoint),
                fix="bring it back with all that ran on it: mesaform up",
            )
        os.environ.update(local_environment(layout, endpoint.url, self.spec.region))


def require_aws_endpoint(
    environment: Mapping[str, str], configured: Callable[[], Mapping[str, str]], file: Path
) -> None:
    """Check that no setting sends the calls for `target: aws` to another endpoint.

    `AWS_ENDPOINT_URL` is left over in a shell that ran `eval "$(mesaform local env)"`; a profile of
    `~/.aws/config` may have `endpoint_url`. A proof of another cloud says nothing of the account.

    Args:
        environment: the environment variables.
        configured: returns the endpoints of the profile (`aws.client.configured_endpoints`).
        file: the cluster file, for the message.

    Raises:
        NotOwned: a setting does, and `MESAFORM_ALLOW_ENDPOINT_URL` is not 1.

    """
    if environment.get(ALLOW_ENDPOINT_URL) == "1":
        return
    names = sorted(key for key in environment if key.startswith("AWS_ENDPOINT_URL"))
    of_profile = configured()
    values = {name: environment[name] for name in names} | dict(of_profile)
    if not values:
        return
    listed = ", ".join(f"{key}={value}" for key, value in values.items())
    raise NotOwned(
        f"target: aws, but the settings of AWS send calls elsewhere: {listed}",
        where=str(file),
        fix=f"nothing was changed; {_remedy(names, of_profile)}, or, if such an endpoint is meant"
        f" (a VPC endpoint), set {ALLOW_ENDPOINT_URL}=1",
    )


def _remedy(names: Sequence[str], of_profile: Mapping[str, str]) -> str:
    unset = [f"unset {' '.join(names)}"] if names else []
    other = ["use a profile without endpoint_url (AWS_PROFILE)"] if of_profile else []
    return " and ".join((*unset, *other))


def local_environment(layout: Layout, url: str, region: str) -> dict[str, str]:
    """Variables that point AWS clients at the local cloud; the credentials work nowhere else.

    Raises:
        MissingPrerequisite: its credentials cannot be read.

    """
    credentials = read_credentials(layout)
    return endpoint_environment(
        url, region, credentials.access_key_id, credentials.secret_access_key
    )


def endpoint_environment(url: str, region: str, key_id: str, secret: str) -> dict[str, str]:
    """Variables that point AWS clients at an endpoint, with this access key."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def open_context(file: str) -> Context:
    """Read the spec and settle the folders.

    Raises:
        BadInput: the file is missing or wrong.

    """
    path = Path(file)
    context = Context(load(path), path.resolve(), path.resolve().parent / ".mesaform")
    deployment = None
    with suppress(BadInput):  # verbs that need the record say what is wrong with it
        deployment = read_deployment(context.cluster_dir)
    return replace(context, spec=with_recorded_zones(context.spec, deployment))
