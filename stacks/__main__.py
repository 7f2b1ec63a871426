"""The app that cdktf runs (`cdktf.json`): read the cluster file, look up images, build stacks.

`MESAFORM_CLUSTER_FILE` names the cluster file (default `cluster.yaml`). `MESAFORM_IMAGE_ID` and
`MESAFORM_IMAGE_ID_ARM64` name the images, which are then not looked up. `mesaform up` and `mesaform
down` set them, because a cluster must come down even when its images are gone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mesaform.common.errors import MesaformError
from mesaform.config.parser import load
from mesaform.config.schema import ClusterSpec
from mesaform.provision.deployment import Deployment, read_deployment
from mesaform.provision.image import IMAGE_ID, destroys, from_environment
from mesaform.provision.state_folders import cluster_dir
from mesaform.provision.zones import settle, with_recorded_zones
from mesaform.topology.names import bucket_name
from mesaform_stacks.app import build
from mesaform_stacks.base import Settings


def settings() -> Settings:
    """Settings of this run, from the environment.

    Raises:
        BadInput: the cluster file is wrong.
        MissingPrerequisite: there is no image of this checkout's recipe.

    """
    file = Path(os.environ.get("MESAFORM_CLUSTER_FILE", "cluster.yaml"))
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
        state_bucket=_state_bucket(spec, deployment),
    )


def _state_bucket(spec: ClusterSpec, deployment: Deployment | None) -> str:
    if spec.target != "aws" or deployment is None:
        return ""
    return bucket_name(deployment.account_id, spec.region)


def close_to_others(folder: Path) -> None:
    """Let only the owner into a folder: user data of masters has the cluster's secret.

    The files are written by jsii's process, which does not take this one's umask.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for path in folder.rglob("cdk.tf.json"):
        path.chmod(0o600)


def main() -> int:
    outdir = os.environ.get("CDKTF_OUTDIR")
    try:
        if outdir:
            close_to_others(Path(outdir))
        build(settings(), outdir=outdir).synth()
        if outdir:
            close_to_others(Path(outdir))
    except MesaformError as error:
        sys.stderr.write(f"mesaform: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
