"""Guard of `mesaform up` against machines and networks that this folder cannot prove to own.

Proofs are Terraform's state in this folder and the tag `mesaform:deployment` with this folder's id.
A machine without that tag is older than the tag; it belongs to this folder if it is in a VPC that
the state lists. The decisions are pure; `view_account` asks EC2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesaform.common.errors import NotOwned
from mesaform.provision.deployment import Deployment
from mesaform.provision.state_copies import newest_copy
from mesaform.provision.terraform_state import StackState
from mesaform.topology.names import Tag

ALIVE_STATES = ("pending", "running", "stopping", "stopped")
LISTED_AT_MOST = 8
"""Ids that a message names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class CloudMachine:
    """A machine with the cluster's tag that is not terminated. `launched_at` is epoch seconds.

    The profile is the one that the machine was associated with; it may be gone.
    """

    instance_id: str
    vpc_id: str
    launched_at: float
    tags: Mapping[str, str]
    profile_name: str = ""
    profile_id: str = ""


@dataclass(frozen=True, slots=True)
class AccountView:
    """Machines and VPCs of the account with the cluster's tag. `vpcs` maps ids to tags."""

    machines: tuple[CloudMachine, ...]
    vpcs: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class FolderKnowledge:
    """What this folder can prove.

    `interrupted_at` is when the last run began if it did not end well (AWS' clock, epoch seconds).
    """

    states: Mapping[str, StackState]
    deployment: Deployment | None
    interrupted_at: float | None

    @property
    def ids(self) -> frozenset[str]:
        """Ids of all resources in Terraform's state."""
        return frozenset(
            resource.id
            for state in self.states.values()
            for resource in state.resources
            if resource.id
        )

    def has_tagged(self, tags: Mapping[str, str]) -> bool:
        """Whether the tags carry this folder's deployment id."""
        return self.deployment is not None and (
            tags.get(Tag.DEPLOYMENT) == self.deployment.deployment_id
        )

    def is_leftover(self, machine: CloudMachine) -> bool:
        """Whether a machine comes from the interrupted run and never belonged to a whole cluster.

        It carries this folder's id, Terraform's state does not list it, and it was launched after
        the interrupted run began. A machine that served before that run is never a leftover. Where
        the state of the machine's stack lists nothing at all, the state is lost, not the machine.
        """
        return (
            self.interrupted_at is not None
            and machine.launched_at >= self.interrupted_at
            and machine.tags.get(Tag.MANAGED_BY) == "terraform"
            and self.has_tagged(machine.tags)
            and machine.instance_id not in self.ids
            and self._has_resources(stack_of(machine))
        )

    def _has_resources(self, stack: str) -> bool:
        state = self.states.get(stack)
        return state is not None and bool(state.resources)


def stack_of(machine: CloudMachine) -> str:
    """The stack that declares a machine of Terraform."""
    return "masters" if machine.tags.get(Tag.ROLE) == "master" else "agents"


def view_account(cluster: str, region: str) -> AccountView:
    """Ask EC2 for the machines and VPCs that carry the cluster's tag.

    Raises:
        CloudError: EC2 did not answer.

    """
    from mesaform.aws.client import client
    from mesaform.aws.resources.kind import pages, tag_map

    ec2 = client("ec2", region)
    tagged = {"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}
    alive = {"Name": "instance-state-name", "Values": list(ALIVE_STATES)}
    machines = tuple(
        _cloud_machine(raw)
        for page in pages(ec2, "describe_instances", "listing machines", Filters=[tagged, alive])
        for reservation in page["Reservations"]
        for raw in reservation["Instances"]
    )
    vpcs = {
        raw["VpcId"]: tag_map(raw.get("Tags"))
        for page in pages(ec2, "describe_vpcs", "listing VPCs", Filters=[tagged])
        for raw in page["Vpcs"]
    }
    return AccountView(machines, vpcs)


def _cloud_machine(raw: Mapping[str, Any]) -> CloudMachine:
    from mesaform.aws.resources.kind import tag_map

    profile = raw.get("IamInstanceProfile") or {}
    return CloudMachine(
        raw["InstanceId"],
        raw.get("VpcId", ""),
        raw["LaunchTime"].timestamp(),
        tag_map(raw.get("Tags")),
        profile.get("Arn", "").rpartition("/")[2],
        profile.get("Id", ""),
    )


def deployment_ids(view: AccountView) -> frozenset[str]:
    """The deployment ids of the VPCs with the cluster's name."""
    return frozenset(tags[Tag.DEPLOYMENT] for tags in view.vpcs.values() if Tag.DEPLOYMENT in tags)


def find_foreign(view: AccountView, knowledge: FolderKnowledge) -> tuple[str, ...]:
    """Ids of machines and VPCs with the cluster's name that this folder cannot prove to own."""
    known = knowledge.ids
    machines = [
        machine.instance_id
        for machine in view.machines
        if machine.tags.get(Tag.MANAGED_BY) != "bake" and not _is_owned(machine, known, knowledge)
    ]
    vpcs = [
        vpc_id
        for vpc_id, tags in view.vpcs.items()
        if vpc_id not in known and not knowledge.has_tagged(tags)
    ]
    return (*sorted(machines), *sorted(vpcs))


def _is_owned(machine: CloudMachine, known: frozenset[str], knowledge: FolderKnowledge) -> bool:
    if machine.instance_id in known or knowledge.has_tagged(machine.tags):
        return True
    return Tag.DEPLOYMENT not in machine.tags and machine.vpc_id in known


def find_lost(view: AccountView, knowledge: FolderKnowledge) -> tuple[str, ...]:
    """Ids of this folder's own resources that Terraform's state lost.

    These are living machines that Terraform created before the last run began, and VPCs with
    such machines or with machines that the state lists.
    """
    known = knowledge.ids
    in_service = [machine for machine in view.machines if not knowledge.is_leftover(machine)]
    machines = {machine.instance_id for machine in in_service if _is_terraforms(machine)} - known
    vpcs = {machine.vpc_id for machine in in_service} & set(view.vpcs) - known
    return (*sorted(machines), *sorted(vpcs))


def _is_terraforms(machine: CloudMachine) -> bool:
    return machine.tags.get(Tag.MANAGED_BY) == "terraform"


def require_ownership(
    view: AccountView, knowledge: FolderKnowledge, cluster: str, where: str, folder: Path
) -> None:
    """Check that `mesaform up` may change what the account holds of this cluster's name.

    Args:
        view: what the account holds.
        knowledge: what this folder can prove.
        cluster: the cluster's name.
        where: account and region, for the message.
        folder: the cluster's state folder, for the message.

    Raises:
        NotOwned: the account holds machines or VPCs of another folder, or Terraform's state in this
            folder is damaged while machines of the cluster are alive. Nothing was changed.

    """
    if foreign := find_foreign(view, knowledge):
        raise NotOwned(
            f"{where} holds {len(foreign)} machines and networks of a cluster named {cluster} that"
            f" this folder did not create: {_list_ids(foreign)}",
            where=str(folder),
            fix="nothing was changed. Go on from the folder that created them, if it exists (its"
            " .mesaform has the state; mesaform down there removes them). If it is lost, there are"
            f" two ways: take them over: {_adoption(view, knowledge)}, or choose another name in"
            " cluster.yaml",
        )
    is_damaged = any(state.condition == "unreadable" for state in knowledge.states.values())
    lost = find_lost(view, knowledge)
    if is_damaged or lost:
        raise _damaged_state(lost, knowledge, cluster, folder)


def _adoption(view: AccountView, knowledge: FolderKnowledge) -> str:
    """The command that takes over what this folder did not create."""
    own = knowledge.deployment.deployment_id if knowledge.deployment else ""
    others = sorted(deployment_ids(view) - {own})
    command = " or ".join(f"mesaform adopt --deployment {name}" for name in others)
    folder = ", in a folder without a cluster of its own" if own else ""
    return (command or "mesaform adopt") + folder


def _damaged_state(
    lost: tuple[str, ...], knowledge: FolderKnowledge, cluster: str, folder: Path
) -> NotOwned:
    suspects = [
        state
        for state in knowledge.states.values()
        if state.condition == "unreadable" or (lost and not state.resources)
    ]
    files = ", ".join(state.path.name for state in suspects) or "the state"
    what = f"Terraform's state is damaged ({files})"
    if lost:
        what += f": it does not list {_list_ids(lost)} of {cluster}, which run"
    return NotOwned(
        what,
        where=str(folder),
        fix=f"nothing was changed; {_restore_hint(suspects)}, or rebuild it from the account:"
        " mesaform adopt, or take the cluster down by its tags: mesaform down",
    )


def _restore_hint(suspects: Iterable[StackState]) -> str:
    copies = (newest_copy(state.path.parent, state.stack) or state.backup for state in suspects)
    backups = [str(path) for path in copies if path]
    if backups:
        return f"restore it from {', '.join(backups)} (copy it over the state file)"
    return "restore it from a backup of this folder"


def _list_ids(ids: tuple[str, ...]) -> str:
    more = len(ids) - LISTED_AT_MOST
    listed = ", ".join(ids[:LISTED_AT_MOST])
    return f"{listed} and {more} more" if more > 0 else listed
