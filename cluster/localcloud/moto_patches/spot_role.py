"""Spot launches need the service-linked role of spot machines.

EC2 creates it for a caller who may do so. Callers with a role's session are taken to lack that
right, as the masters of a cluster do.
"""

from __future__ import annotations

from moto.ec2.exceptions import EC2ClientError
from moto.iam.models import iam_backends
from moto.utilities.utils import get_partition

from mesaform.aws.service_linked_role import SPOT_ROLE, SPOT_SERVICE
from mesaform.localcloud.moto_patches.moto_types import Ec2Response

SESSION_KEY = "ASIA"
"""How access keys of sessions begin."""


def require(response: Ec2Response, *, is_spot: bool) -> None:
    """Create the role if a spot launch needs it and the caller may.

    Raises:
        EC2ClientError: the caller may not create it.

    """
    if not is_spot:
        return
    backend = response.ec2_backend
    iam = iam_backends[backend.account_id][get_partition(backend.region_name)]
    if any(role.name == SPOT_ROLE for role in iam.roles.values()):
        return
    if response.get_access_key().startswith(SESSION_KEY):
        raise EC2ClientError(
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            "The provided credentials do not have permission to create the service-linked role "
            "for EC2 Spot Instances.",
        )
    iam.create_service_linked_role(SPOT_SERVICE, "", "")
