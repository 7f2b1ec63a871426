"""Check that the account shows what Terraform's state lists, before a teardown concludes anything.

A listing proves that nothing is left only in the account that held the cluster. Pure.
"""

from __future__ import annotations

from pathlib import Path

from mesaform.common.errors import NotOwned
from mesaform.teardown.plan import Inventory

LISTED_PREFIXES = ("i-", "vpc-", "subnet-", "sg-", "lt-", "igw-", "rtb-")
"""Ids of kinds that a listing by tag shows; the state holds others as well, such as rules."""
NAMED_AT_MOST = 5


def unlisted_ids(inventory: Inventory) -> tuple[str, ...]:
    """Ids that Terraform's state lists and the account should show but does not."""
    listed = {machine.instance_id for machine in inventory.machines} | {
        resource.id for resource in inventory.resources
    }
    expected = {
        identity
        for ids in inventory.stacks.values()
        for identity in ids
        if identity.startswith(LISTED_PREFIXES)
    }
    return tuple(sorted(expected - listed)) if not expected & listed else ()


def require_listed_state(
    inventory: Inventory, *, is_resumed: bool, where: str, folder: Path
) -> None:
    """Check that this can be the account that holds the cluster.

    Args:
        inventory: what the account shows, and what the state lists.
        is_resumed: an earlier teardown of this folder removed resources and did not finish; then
            resources that are in the state alone may be those.
        where: account and region, for the message.
        folder: the cluster's state folder, for the message.

    Raises:
        NotOwned: the state lists resources and the account shows none of them. Nothing was removed.

    """
    missing = () if is_resumed else unlisted_ids(inventory)
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
