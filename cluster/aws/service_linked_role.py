"""The role with which EC2 launches spot machines in an account (AWSServiceRoleForEC2Spot)."""

from __future__ import annotations

from mesaform.aws.client import client
from mesaform.aws.errors import error_code
from mesaform.aws.resources.kind import call
from mesaform.common.errors import CloudError, NotFound

SPOT_ROLE = "AWSServiceRoleForEC2Spot"
SPOT_SERVICE = "spot.amazonaws.com"


def has_spot_role(region: str) -> bool:
    """Whether the account has the role.

    Raises:
        CloudError: IAM refused or did not answer.

    """
    try:
        call(client("iam", region), "get_role", f"role {SPOT_ROLE}", RoleName=SPOT_ROLE)
    except NotFound:
        return False
    return True


def ensure_spot_role(region: str) -> bool:
    """Create the role if the account has none; return whether this call created it. Idempotent.

    Masters cannot create it: they have no rights in IAM, and their spot launches would fail with
    AuthFailure.ServiceLinkedRoleCreationNotPermitted.

    Raises:
        CloudError: IAM refused or did not answer.

    """
    if has_spot_role(region):
        return False
    try:
        call(
            client("iam", region),
            "create_service_linked_role",
            f"role {SPOT_ROLE}",
            AWSServiceName=SPOT_SERVICE,
        )
    except CloudError as error:
        if error_code(error.__cause__) == "InvalidInput":  # another caller was faster
            return False
        raise
    return True
