"""Check that the account shows what Terraform's state lists, before a teardown concludes anything.

A listing proves that nothing is left only in the account that held the cluster. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource
from mesaform.common.errors import NotOwned
from mesaform.teardown.plan import Inventory, SurveyedMachine
from mesaform.topology.names import Tag

LISTED_PREFIXES = ("i-", "vpc-", "subnet-", "lt-", "igw-", "rtb-")
"""Ids of kinds that a listing by tag shows. The state holds others as well, such as rules, and the
default group of the VPC, which no listing shows because nobody can delete it."""
PROVEN_PREFIXES = ("i-", "vpc-", "lt-", "vol-")
NAMED_AT_MOST = 5
NO_ID = "none"
"""Stands for the deployment of resources that are older than ids."""


def listed_ids(inventory: Inventory) -> frozenset[str]:
    """Ids of everything that the account shows."""
    machines = {machine.instance_id for machine in inventory.machines}
    return frozenset(machines | {resource.id for resource in inventory.resources})


def unlisted_ids(inventory: Inventory, seen: Collection[str] = ()) -> tuple[str, ...]:
    """Ids that Terraform's state lists and the account should show, if it shows none of them.

    `seen` are ids that an earlier run of this teardown saw in the account.
    """
    listed = listed_ids(inventory)
    expected = {
        identity
        for ids in inventory.stacks.values()
        for identity in ids
        if identity.startswith(LISTED_PREFIXES)
    }
    return () if expected & listed else tuple(sorted(expected.difference(seen)))


def unproven_ids(stacks: Mapping[str, Collection[str]], seen: Collection[str]) -> tuple[str, ...]:
    """Ids that Terraform's state lists although no listing of this teardown ever showed them.

    Their absence from the last listing proves nothing: their tags may have been removed, or they
    are in another account. Parts of a VPC go with it and are not among them.
    """
    return tuple(
        sorted(
            identity
            for ids in stacks.values()
            for identity in ids
            if identity.startswith(PROVEN_PREFIXES) and identity not in seen
        )
    )


def require_listed_state(
    inventory: Inventory, *, seen: Collection[str], where: str, folder: Path
) -> None:
    """Check that this can be the account that holds the cluster.

    Args:
        inventory: what the account shows, and what the state lists.
        seen: ids that an earlier run of this teardown saw in the account: it may have removed them.
        where: account and region, for the message.
        folder: the cluster's state folder, for the message.

    Raises:
        NotOwned: the state lists resources and the account shows none of them. Nothing was removed.

    """
    missing = unlisted_ids(inventory, seen)
    if missing:
        more = f" and {len(missing) - NAMED_AT_MOST} more" if len(missing) > NAMED_AT_MOST else ""
        raise NotOwned(
            f"Terraform's state lists {', '.join(missing[:NAMED_AT_MOST])}{more}, but {where} shows"
            " none of them: this proves nothing",
            where=str(folder),
            fix="nothing was removed. Use the credentials of the account that holds the cluster;"
            " if its resources were removed by other means, delete the *.tfstate files there and"
            " run the same command again",
        )


def require_proof(inventory: Inventory, *, has_record: bool, where: str, folder: Path) -> None:
    """Check that this folder can prove that the cluster in the account is its own.

    Args:
        inventory: what the account shows, and what the state lists.
        has_record: whether the folder has a deployment's record, or its id was given.
        where: account and region, for the message.
        folder: the cluster's state folder, for the message.

    Raises:
        NotOwned: it has neither a record nor a state, and the account shows resources.

    """
    shown: list[SurveyedMachine | OwnedResource] = [*inventory.machines, *inventory.resources]
    owned = [item for item in shown if not _is_shared(item)]
    if has_record or inventory.stacks or not owned:
        return
    ids = sorted({item.tags.get(Tag.DEPLOYMENT, NO_ID) for item in owned})
    raise NotOwned(
        f"{where} holds {len(owned)} resources of {inventory.cluster} that this folder cannot prove"
        f" to own (deployments: {', '.join(ids)})",
        where=str(folder),
        fix="nothing was removed. Take the cluster down from the folder that created it, or, if"
        f" that folder is lost, name the deployment: mesaform down --deployment {ids[0]}",
    )


def _is_shared(item: SurveyedMachine | OwnedResource) -> bool:
    return isinstance(item, OwnedResource) and item.kind in KEPT_UNLESS_ASKED
