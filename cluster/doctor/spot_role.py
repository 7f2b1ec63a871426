"""Whether the account has the role with which EC2 launches spot machines."""

from __future__ import annotations

from mesaform.aws.service_linked_role import SPOT_ROLE, has_spot_role
from mesaform.doctor.finding import Finding, ok, warning
from mesaform.doctor.subject import Examination

CHECK = "spot role"


def look(examination: Examination) -> list[Finding]:
    """Look for the role if a pool buys spot machines. `mesaform up` creates it before this."""
    if not examination.subject.has_spot:
        return [ok(CHECK, "not needed: no pool has a spot_share")]
    if has_spot_role(examination.region):
        return [ok(CHECK, SPOT_ROLE)]
    return [
        warning(
            CHECK,
            f"the account has no {SPOT_ROLE}; without it no spot machine is launched",
            "mesaform up creates it, or: aws iam create-service-linked-role"
            " --aws-service-name spot.amazonaws.com",
        )
    ]
