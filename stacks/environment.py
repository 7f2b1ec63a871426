"""Settings of a run from its environment: the cluster file, the deployment, the images.

`MESAFORM_CLUSTER_FILE` names the cluster file (default `cluster.yaml`). `MESAFORM_IMAGE_ID` and
`MESAFORM_IMAGE_ID_ARM64` name the images, which are then not looked up. `mesaform up` and `mesaform
down` set them, because a cluster must come down even when its images are gone.
"""

from __future__ import annotations

import os
from pathlib import Path

from mesaform.common.errors import MissingPrerequisite
from mesaform.config.parser import load
from mesaform.config.schema import ClusterSpec
from mesaform.provision.authority import certificates_file
from mesaform.provision.deployment import Deployment, read_deployment
from mesaform.provision.image import IMAGE_ID, UPGRADED_ROLES, destroys, from_environment
from mesaform.provision.state_folders import cluster_dir
from mesaform.provision.zones import settle, with_recorded_zones
from mesaform.topology.names import bucket_name
from mesaform_stacks.base import Settings

CLUSTER_FILE = "MESAFORM_CLUSTER_FILE"


def cluster_file() -> Path:
    """The cluster file that the environment names."""
    return Path(os.environ.get(CLUSTER_FILE, "cluster.yaml"))


def read_settings(file: Path | None = None) -> Settings:
    """Settings of this run.

    Args:
        file: the cluster file; None takes the one that the environment names.

    Raises:
        BadInput: the cluster file is wrong.
        MissingPrerequisite: there is no image of this checkout's recipe, or no CA.

    """
    file = file or cluster_file()
    spec = load(file)
    folder = cluster_dir(file, spec.name)
    deployment = read_deployment(folder)
    is_offline = bool(os.environ.get(IMAGE_ID)) or destroys()
    spec = with_recorded_zones(spec, deployment) if is_offline else settle(spec, folder)
    images = from_environment(spec)
    return Settings(
        spec=spec,
        images=images,
        folder=folder,
        deployment_id=deployment.deployment_id if deployment else "",
        account_id=deployment.account_id if deployment else "",
        secret=deployment.secret if deployment else "",
        authorities=_authorities(spec, folder, is_required=not is_offline),
        state_bucket=_state_bucket(spec, deployment),
        upgraded_roles=frozenset(filter(None, os.environ.get(UPGRADED_ROLES, "").split(","))),
    )


def _authorities(spec: ClusterSpec, folder: Path, *, is_required: bool) -> str:
    """The certificates of the cluster's CA.

    Raises:
        MissingPrerequisite: machines would be created, and there is no CA yet.

    """
    if not spec.tls:
        return ""
    file = certificates_file(folder)
    if file.exists():
        return file.read_text(encoding="ascii")
    if is_required:
        raise MissingPrerequisite(
            "the cluster has no CA yet",
            where=str(file),
            fix="mesaform up creates it; where it exists already: mesaform ca show",
        )
    return ""


def _state_bucket(spec: ClusterSpec, deployment: Deployment | None) -> str:
    if spec.target != "aws" or deployment is None:
        return ""
    return bucket_name(deployment.account_id, spec.region)
