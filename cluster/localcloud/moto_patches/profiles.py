"""Instance profiles and sessions of roles, as EC2 and STS bind them: by id, not by name.

An instance is associated with one profile, by the profile's id. A profile of the same name that is
created after that one was deleted has another id, and gives the instance no credentials. A session
of a machine is of one role, by the role's id, and ends with it (IAM user guide, "Unique
identifiers"). moto knows both by name alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError, InvalidAssociationIDIamProfileAssociationError
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociation
from moto.ec2.responses.iam_instance_profiles import IamInstanceProfiles
from moto.ec2.utils import filter_iam_instance_profiles, random_iam_instance_profile_association_id

from mesaform.localcloud.moto_patches.moto_types import (
    AssumedRole,
    Ec2Backend,
    Ec2Response,
    IamBackend,
    MotoObject,
    Profile,
)

ASSOCIATION_PREFIX = "iip-assoc-"
"""Start of the ids of associations. moto gave them as ids of profiles; older accounts have them."""
_moto_init = IamInstanceProfileAssociation.__init__
_moto_associate = IamInstanceProfiles.associate_iam_instance_profile


def require(backend: Ec2Backend, reference: Mapping[str, str] | None) -> Profile | None:
    """The profile that a request names by ARN or name; None if it names none.

    Raises:
        EC2ClientError: EC2's error for a profile that does not exist or has no role.

    """
    if not reference:
        return None
    arn, name = reference.get("Arn"), reference.get("Name")
    try:
        profile: Profile | None = filter_iam_instance_profiles(
            backend.account_id, backend.partition, arn, name
        )
    except Exception:  # moto raises IAM's error; EC2 has one of its own
        profile = None
    if profile is None:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({arn or name}) for parameter iamInstanceProfile.name is invalid. "
            "Invalid IAM Instance Profile",
        )
    if not profile.roles:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({arn or name}) for parameter iamInstanceProfile.name is invalid. "
            f"IAM Instance Profile {profile.arn} has no associated IAM Roles",
        )
    return profile


def find_associated(iam: IamBackend, reference: Mapping[str, str]) -> Profile:
    """The profile that an instance is associated with.

    Raises:
        LookupError: it was deleted.

    """
    for profile in iam.get_instance_profiles():
        if profile.id == reference["Id"]:
            return profile
        if profile.arn == reference["Arn"] and reference["Id"].startswith(ASSOCIATION_PREFIX):
            return profile
    raise LookupError(f"the instance profile {reference['Arn']} is gone")


def is_of_present_role(iam: IamBackend, session: AssumedRole) -> bool:
    """Whether the role of a session exists; a role of the same name is another one.

    Sessions of AssumeRole, and those that older versions recorded, have no role's id.
    """
    role_id = getattr(session, "role_id", None)
    return role_id is None or role_id in iam.roles


def _point(association: MotoObject) -> None:
    """Set what the instance says of its association."""
    profile = association.iam_instance_profile
    association.instance.iam_instance_profile = {"Arn": profile.arn, "Id": profile.id}


def _init(self: MotoObject, *arguments: object, **named: object) -> None:
    _moto_init(self, *arguments, **named)
    _point(self)


def _required(response: Ec2Response) -> Profile:
    """The profile that a request must name."""
    asked = response._get_param  # noqa: SLF001 - moto's way to ask
    parts = {name: asked(f"IamInstanceProfile.{name}") for name in ("Arn", "Name")}
    named = {name: value for name, value in parts.items() if value}
    profile = require(response.ec2_backend, named)
    if profile is None:
        raise EC2ClientError(
            "MissingParameter", "The request must contain the parameter iamInstanceProfile"
        )
    return profile


def _associate(self: Ec2Response) -> ActionResult:
    self.error_on_dryrun()
    _required(self)
    return _moto_associate(self)


def _replace(self: Ec2Response) -> ActionResult:
    """Replace the profile of an association, which gets a new id."""
    self.error_on_dryrun()
    profile = _required(self)
    wanted = self._get_param("AssociationId")
    known = self.ec2_backend.iam_instance_profile_associations.values()
    association = next((item for item in known if item.association_id == wanted), None)
    if association is None:
        raise InvalidAssociationIDIamProfileAssociationError(wanted)
    association.association_id = random_iam_instance_profile_association_id()
    association.iam_instance_profile = profile
    _point(association)
    return ActionResult({"IamInstanceProfileAssociation": association})


def apply() -> None:
    """Patch moto in this process."""
    IamInstanceProfileAssociation.__init__ = _init
    IamInstanceProfiles.associate_iam_instance_profile = _associate
    IamInstanceProfiles.replace_iam_instance_profile_association = _replace
