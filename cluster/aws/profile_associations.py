"""Associations of EC2 instances with instance profiles.

An association refers to a profile by its id. A profile that was deleted and created again has the
same name and ARN and another id: instances that were associated with the first one get no
credentials from the second one (IAM user guide, "Use instance profiles"; EC2 user guide, "IAM roles
for Amazon EC2").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesaform.aws.client import client
from mesaform.aws.errors import error_code
from mesaform.aws.resources.kind import call, in_batches, pages
from mesaform.common.backoff import Backoff
from mesaform.common.errors import CloudError, NotFound

FILTER_VALUES = 200
"""Values of a filter; EC2's limit."""
PROPAGATION_S = 120.0
"""How long EC2 may not know a new profile, or its role: as long as Terraform's provider waits."""
REFUSED = "InvalidParameterValue"
"""EC2's error for a profile that it does not know yet, or that has no role yet."""
BACKOFF = Backoff(first_s=0.5, cap_s=5.0)


@dataclass(frozen=True, slots=True)
class Association:
    """An instance's association with a profile, by the profile's ARN and id."""

    association_id: str
    instance_id: str
    profile_arn: str
    profile_id: str

    @property
    def profile_name(self) -> str:
        """The profile's name: the last part of its ARN, after the path."""
        return self.profile_arn.rpartition("/")[2]


class ProfileAssociations:
    """The associations in one region.

    Args:
        region: the region.
        monotonic: seconds with any origin.
        sleep: waits that many seconds.

    """

    def __init__(
        self,
        region: str,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ec2: Any = client("ec2", region)
        self._iam: Any = client("iam", region)
        self._monotonic, self._sleep = monotonic, sleep

    def profile_id(self, name: str) -> str:
        """The id of the profile that has this name now; empty if there is none.

        Raises:
            CloudError: IAM refused or did not answer.

        """
        where = f"instance profile {name}"
        try:
            answer = call(self._iam, "get_instance_profile", where, InstanceProfileName=name)
        except NotFound:
            return ""
        return str(answer["InstanceProfile"]["InstanceProfileId"])

    def of(self, instance_ids: Sequence[str]) -> Iterator[Association]:
        """The associations of instances; those without a profile have none.

        Raises:
            CloudError: EC2 refused or did not answer.

        """
        for ids in in_batches(instance_ids, FILTER_VALUES):
            for page in pages(
                self._ec2,
                "describe_iam_instance_profile_associations",
                "listing associations of instance profiles",
                Filters=[
                    {"Name": "instance-id", "Values": list(ids)},
                    {"Name": "state", "Values": ["associating", "associated"]},
                ],
            ):
                for raw in page["IamInstanceProfileAssociations"]:
                    profile: Mapping[str, str] = raw["IamInstanceProfile"]
                    yield Association(
                        raw["AssociationId"], raw["InstanceId"], profile["Arn"], profile["Id"]
                    )

    def renew(self, association: Association) -> None:
        """Associate the instance with the profile that has the name now. Repeats for two minutes.

        Raises:
            NotFound: the instance has no such association any more.
            CloudError: EC2 refused or did not answer.

        """
        began, failures = self._monotonic(), 0
        while True:
            try:
                call(
                    self._ec2,
                    "replace_iam_instance_profile_association",
                    f"instance profile of {association.instance_id}",
                    AssociationId=association.association_id,
                    IamInstanceProfile={"Name": association.profile_name},
                )
            except CloudError as error:
                is_early = error_code(error.__cause__) == REFUSED
                if not is_early or self._monotonic() - began > PROPAGATION_S:
                    raise
            else:
                return
            failures += 1
            self._sleep(BACKOFF.delay_s(failures))
