"""Credentials of machines whose instance profile was deleted and created again.

`mesaform down` deletes the profiles beside the machines, and a machine may outlive its profile:
where `down` is killed at that moment, or EC2 refuses to end a machine. The next `mesaform up`
creates a profile of the same name, from which such a machine gets no credentials until it is
associated again (`aws.profile_associations`). Terraform sees no change: it compares names.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from mesaform.common.errors import NotFound
from mesaform.common.progress import Report, stage
from mesaform.provision.ownership import CloudMachine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mesaform.aws.profile_associations import Association

STAGE = "Renew the credentials of machines"


class Associations(Protocol):
    """`aws.profile_associations.ProfileAssociations`, whose docstrings state the errors."""

    def profile_id(self, name: str) -> str:
        """The id of the profile that has this name now; empty if there is none."""
        ...

    def of(self, instance_ids: Sequence[str]) -> Iterator[Association]:
        """The associations of instances."""
        ...

    def renew(self, association: Association) -> None:
        """Associate the instance with the profile that has the name now."""
        ...


def renew_credentials(
    machines: Iterable[CloudMachine], associations: Associations, report: Report
) -> None:
    """Associate machines with the present profile of their profile's name. Idempotent. Blocks.

    Args:
        machines: machines of this deployment, as EC2 lists them.
        associations: EC2's associations.
        report: receives progress, if there is anything to do.

    Raises:
        CloudError: the cloud refused or did not answer.

    """
    stale = _stale(machines, associations)
    if not stale:
        return
    with stage(report, STAGE) as under_way:
        renewed = 0
        for association in associations.of(stale):
            with suppress(NotFound):  # the machine has ended
                associations.renew(association)
                renewed += 1
                under_way.advance(association.instance_id)
        under_way.outcome = f"{renewed} associated with their new instance profile"


def _stale(machines: Iterable[CloudMachine], associations: Associations) -> list[str]:
    """The machines whose profile is gone while another one has its name."""
    with_profile = [machine for machine in machines if machine.profile_name]
    names = sorted({machine.profile_name for machine in with_profile})
    present = {name: associations.profile_id(name) for name in names}
    return [
        machine.instance_id
        for machine in with_profile
        if present[machine.profile_name] not in {"", machine.profile_id}
    ]
