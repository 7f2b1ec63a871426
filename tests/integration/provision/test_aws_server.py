"""The tests' own AWS endpoint answers as EC2 where Terraform's path depends on it."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError


def test_a_launch_before_its_profile_is_refused_as_ec2_refuses_it(aws):
    image_id, before = aws.bake(), count_instances(aws)

    for name in ("absent", empty_profile(aws)):
        with pytest.raises(ClientError, match=r"InvalidParameterValue.*iamInstanceProfile\.name"):
            aws.client("ec2").run_instances(
                ImageId=image_id, MinCount=1, MaxCount=1, IamInstanceProfile={"Name": name}
            )

    assert count_instances(aws) == before, "a refused launch leaves no instance"


def empty_profile(aws) -> str:
    name = "without-role"
    aws.client("iam").create_instance_profile(InstanceProfileName=name)
    return name


def count_instances(aws) -> int:
    pages = aws.client("ec2").get_paginator("describe_instances").paginate()
    return sum(len(item["Instances"]) for page in pages for item in page["Reservations"])
