"""Base of the stacks: the provider, state in the cluster's folder, and the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cdktf import LocalBackend, S3Backend, TerraformOutput, TerraformStack
from constructs import Construct

from mesaform.config.schema import ClusterSpec
from mesaform.provision.image import BootImages
from mesaform.provision.state_folders import state_file
from mesaform.topology import names
from mesaform_stacks import provider as aws


@dataclass(frozen=True, slots=True)
class Settings:
    """What the stacks are built from.

    `deployment_id`, `account_id` and `secret` are empty before the first `mesaform up` has settled
    them. `state_bucket` is the bucket with Terraform's states; empty: they are in `folder`.
    """

    spec: ClusterSpec
    images: BootImages
    folder: Path
    deployment_id: str = ""
    account_id: str = ""
    secret: str = field(default="", repr=False)
    state_bucket: str = ""


class ClusterStack(TerraformStack):
    """One stack of a cluster.

    Both targets use the same provider; `AWS_ENDPOINT_URL` in the environment names the API.
    """

    def __init__(self, scope: Construct, name: str, settings: Settings) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.spec = settings.spec
        aws.AwsProvider(
            self,
            "aws",
            region=self.spec.region,
            allowed_account_ids=[settings.account_id] if settings.account_id else None,
            default_tags=[aws.AwsProviderDefaultTags(tags=self._tags())],
        )
        self._backend(name)

    def _backend(self, name: str) -> None:
        """State in the account's bucket with S3's own lock (Terraform 1.10), or in the folder."""
        settings = self.settings
        if not settings.state_bucket:
            LocalBackend(self, path=str(state_file(settings.folder, name)))
            return
        S3Backend(
            self,
            bucket=settings.state_bucket,
            key=f"{names.state_prefix(self.spec.name)}{name}.tfstate",
            region=self.spec.region,
            encrypt=True,
        )
        self.add_override("terraform.backend.s3.use_lockfile", True)  # cdktf knows neither of them
        self.add_override(
            "terraform.backend.s3.allowed_account_ids",
            [settings.account_id],
        )

    def named(self, name: str, **extra: str) -> dict[str, str]:
        """The cluster's tags with a Name: `mesaform-<cluster>-<name>`."""
        return self._tags(NAME=f"{names.prefix(self.spec)}-{name}", **extra)

    def _tags(self, **extra: str) -> dict[str, str]:
        """The tags of every resource: the cluster, the deployment if it has an id, and `extra`."""
        if self.settings.deployment_id:
            extra["DEPLOYMENT"] = self.settings.deployment_id
        return names.tags(self.spec, **extra)

    def put(self, name: str, value: object) -> None:
        """An output of this stack."""
        TerraformOutput(self, f"out-{name}", value=value).override_logical_id(name)
