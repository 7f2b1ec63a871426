"""Settings of a run of the Pulumi program, and the guard that keeps it apart from Terraform.

A cluster has one provisioner: the program refuses to run while Terraform's state lists resources of
the cluster, or while the account has machines or a VPC of its name from elsewhere. Depends on AWS
EC2 and STS, and on the cluster's state folder.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mesaform.common.errors import NotOwned
from mesaform.config.parser import load
from mesaform.config.schema import ClusterSpec
from mesaform.provision import ownership
from mesaform.provision.deployment import (
    establish_deployment,
    identify_caller,
    read_deployment,
    require_account,
)
from mesaform.provision.state_folders import cluster_dir
from mesaform.provision.terraform_state import StackState, read_states
from mesaform.provision.zones import settle
from mesaform_stacks.base import Settings
from mesaform_stacks.environment import cluster_file, read_settings


def prepare_settings(configured_file: str | None) -> Settings:
    """The settings of this run. The first run writes the deployment's record, as `up` does.

    Args:
        configured_file: the cluster file of Pulumi's configuration; None takes the environment's.

    Raises:
        NotOwned: Terraform's state or another folder has this cluster.
        BadInput: the cluster file is wrong.
        MissingPrerequisite: AWS rejected the credentials, or there is no image.

    """
    file = Path(configured_file) if configured_file else cluster_file()
    spec = load(file)
    folder = cluster_dir(file, spec.name)
    require_no_terraform(read_states(folder), folder)
    _settle_deployment(spec, file, folder)
    # The state is Pulumi's; settings of Terraform's backend have no place in its program.
    return dataclasses.replace(read_settings(file), state_bucket="")


def require_no_terraform(states: dict[str, StackState], folder: Path) -> None:
    """Check that Terraform's state lists no resource of the cluster.

    Raises:
        NotOwned: it does.

    """
    listed = {stack: len(state.resources) for stack, state in states.items() if state.resources}
    if listed:
        counts = ", ".join(f"{count} in {stack}" for stack, count in sorted(listed.items()))
        raise NotOwned(
            f"Terraform's state has resources of this cluster: {counts}",
            where=str(folder),
            fix="nothing was changed; go on with mesaform up, or remove the cluster with mesaform"
            " down, or choose another name in the cluster file",
        )


def _settle_deployment(spec: ClusterSpec, file: Path, folder: Path) -> None:
    caller = identify_caller(spec.region)
    record = read_deployment(folder)
    require_account(record, caller, spec.region, file)
    view = ownership.view_account(spec.name, spec.region)
    knowledge = ownership.FolderKnowledge(read_states(folder), record, None)
    if foreign := ownership.find_foreign(view, knowledge):
        raise NotOwned(
            f"the AWS account {caller.account_id} ({spec.region}) holds {len(foreign)} machines and"
            f" networks of a cluster named {spec.name} that this folder did not create",
            where=str(folder),
            fix="nothing was changed; go on from the folder that created them, or choose another"
            " name in the cluster file",
        )
    # Zones first: a deployment that has none recorded is one from before zones were chosen.
    zones = settle(spec, folder).zones
    establish_deployment(folder, caller, spec.region, zones=zones)
