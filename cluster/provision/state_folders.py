"""Names of folders and files of a cluster on the operator's machine."""

from __future__ import annotations

from pathlib import Path

CONFIGURATION_FILE = "cdk.tf.json"
"""A stack as Terraform's JSON, in its folder."""
ERRORED = "errored.tfstate"
"""Where Terraform writes a state that its backend did not take, in the folder of the stack."""
STACKS = ("network", "notices", "masters", "agents")  # in the order in which they come up


def cluster_dir(cluster_file: Path, cluster: str) -> Path:
    """The cluster's state folder: `.mesaform/clusters/<name>` beside its cluster file."""
    return cluster_file.resolve().parent / ".mesaform" / "clusters" / cluster


def state_file(folder: Path, stack: str) -> Path:
    """The Terraform state of one stack."""
    return folder / f"{stack}.tfstate"


def stack_of_state(folder: Path, place: str) -> str:
    """The stack whose state is at a place; empty if it is none of the cluster's states."""
    states = {str(state_file(folder, stack)): stack for stack in STACKS}
    return states.get(place, "")


def synth_dir(folder: Path) -> Path:
    """What cdktf writes for Terraform to run."""
    return folder / "cdktf.out"


def stack_dir(folder: Path, stack: str) -> Path:
    """Where Terraform runs for one stack."""
    return synth_dir(folder) / "stacks" / stack


def adoption_dir(folder: Path) -> Path:
    """Where Terraform runs while resources are adopted: a folder for each stack."""
    return folder / "adoption"
