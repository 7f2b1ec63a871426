"""Base of the described stacks: settings, tags, and the arguments of the provider. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mesaform.config.schema import ClusterSpec
from mesaform.provision.image import BootImages
from mesaform.topology import names
from mesaform_stacks.description import StackDescription


@dataclass(frozen=True, slots=True)
class Settings:
    """What the stacks are built from.

    `deployment_id`, `account_id` and `secret` are empty before the first `mesaform up` has settled
    them. `authorities` are the certificates of the cluster's CA, PEM; empty without TLS.
    `state_bucket` is the bucket with Terraform's states; empty: they are in `folder`.
    Machines of `upgraded_roles` take these images and their new user data; the others keep what
    they booted with (ADR 0037).
    """

    spec: ClusterSpec
    images: BootImages
    folder: Path
    deployment_id: str = ""
    account_id: str = ""
    secret: str = field(default="", repr=False)
    authorities: str = ""
    state_bucket: str = ""
    upgraded_roles: frozenset[str] = frozenset()


class ClusterStack(StackDescription):
    """One stack of a cluster."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name)
        self.settings = settings
        self.spec = settings.spec

    def named(self, name: str, **extra: str) -> dict[str, str]:
        """The cluster's tags with a Name: `mesaform-<cluster>-<name>`."""
        return cluster_tags(self.settings, NAME=f"{names.prefix(self.spec)}-{name}", **extra)


def cluster_tags(settings: Settings, **extra: str) -> dict[str, str]:
    """The tags of every resource: the cluster, the deployment if it has an id, and `extra`."""
    if settings.deployment_id:
        extra["DEPLOYMENT"] = settings.deployment_id
    return names.tags(settings.spec, **extra)
