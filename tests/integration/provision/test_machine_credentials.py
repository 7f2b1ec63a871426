"""Machines that outlived their instance profile get credentials from the next one of its name."""

from __future__ import annotations

import pytest

from mesaform import provision
from mesaform.aws.profile_associations import ProfileAssociations
from mesaform.common.errors import CloudError
from mesaform.common.progress import Recorded
from mesaform.provision.lock import hold_terraform
from mesaform.provision.machine_credentials import STAGE
from mesaform.provision.preview import Preview
from mesaform.provision.state_folders import STACKS
from mesaform.topology import iam
from tests.integration.provision.conftest import REGION, Aws
from tests.integration.provision.test_guards import Cloud, record
from tests.support.terraform_state import write_state

pytestmark = [pytest.mark.slow, pytest.mark.terraform]
OWN = "eeeeeeeeeeeeeeee"


class Profile:
    """The masters' instance profile, created without Terraform."""

    def __init__(self, aws: Aws, cluster: str) -> None:
        self.iam, self.name = aws.client("iam"), iam.role_name(cluster, REGION, "master")
        self.iam.create_role(RoleName=self.name, AssumeRolePolicyDocument="{}")

    def create(self) -> str:
        """Create the profile with its role; its id."""
        answer = self.iam.create_instance_profile(InstanceProfileName=self.name)
        self.iam.add_role_to_instance_profile(InstanceProfileName=self.name, RoleName=self.name)
        return answer["InstanceProfile"]["InstanceProfileId"]

    def delete(self) -> None:
        named = {"InstanceProfileName": self.name}
        self.iam.remove_role_from_instance_profile(**named, RoleName=self.name)
        self.iam.delete_instance_profile(**named)


@pytest.fixture
def profile(aws, place) -> Profile:
    return Profile(aws, place.spec.name)


def launch(aws: Aws, cloud: Cloud, profile: Profile, subnet: str) -> str:
    machine = cloud.machine(OWN, subnet)
    aws.client("ec2").associate_iam_instance_profile(
        InstanceId=machine, IamInstanceProfile={"Name": profile.name}
    )
    return machine


def profile_id(aws: Aws, machine: str) -> str:
    answer = aws.client("ec2").describe_instances(InstanceIds=[machine])
    return answer["Reservations"][0]["Instances"][0]["IamInstanceProfile"]["Id"]


async def deploy_nothing(place) -> Recorded:
    """`mesaform up` of a cluster in which Terraform has nothing to change."""
    report = Recorded()
    unchanged = Preview(unchanged=frozenset(STACKS))
    with hold_terraform(place.cluster_dir, "test") as held:
        await provision.deploy(place, report, held, unchanged)
    return report


async def test_a_master_that_outlived_its_profile_is_associated_with_the_next_one(
    aws, place, profile
):
    cloud = Cloud(aws, place.spec.name)
    aws.bake()
    vpc, subnet = cloud.vpc(OWN)
    record(place, OWN)
    first = profile.create()
    survivor = launch(aws, cloud, profile, subnet)
    profile.delete()
    second = profile.create()
    later = launch(aws, cloud, profile, subnet)
    assert (profile_id(aws, survivor), profile_id(aws, later)) == (first, second)
    write_state(place.cluster_dir, "network", [("aws_vpc", {"id": vpc})])
    write_state(
        place.cluster_dir,
        "masters",
        [("aws_instance", {"id": machine}) for machine in (survivor, later)],
    )

    report = await deploy_nothing(place)

    assert (profile_id(aws, survivor), profile_id(aws, later)) == (second, second)
    (done,) = [text for state, name, text in report.events if (state, name) == ("done", STAGE)]
    assert done == "1 associated with their new instance profile"
    again = await deploy_nothing(place)
    assert STAGE not in [name for _, name, _ in again.events], "and then there is nothing to do"


def test_a_profile_that_ec2_does_not_know_yet_is_asked_for_until_two_minutes_have_passed(
    aws, place, profile
):
    cloud = Cloud(aws, place.spec.name)
    profile.create()
    machine = launch(aws, cloud, profile, cloud.vpc(OWN)[1])
    profile.delete()
    now, created = 0.0, ""

    def sleep(seconds: float) -> None:
        nonlocal now, created
        now += seconds
        if now > 20 and not created:
            created = profile.create()

    associations = ProfileAssociations(REGION, monotonic=lambda: now, sleep=sleep)
    (association,) = associations.of([machine])
    associations.renew(association)
    assert profile_id(aws, machine) == created

    profile.delete()
    (association,) = associations.of([machine])
    with pytest.raises(CloudError, match="Invalid IAM Instance Profile"):
        associations.renew(association)
    assert 120 < now < 160
