"""CreateFleet `instant` buys from the cheapest pool with capacity, as template and request say."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.localcloud.conftest import Cloud

pytestmark = pytest.mark.slow
TEMPLATE = "mesaform-test-default"


@pytest.fixture(scope="module")
def template(cloud: Cloud) -> Iterator[str]:
    iam = cloud.client("iam")
    iam.create_role(
        RoleName="agent",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}),
    )
    iam.create_instance_profile(InstanceProfileName="agent")
    iam.add_role_to_instance_profile(InstanceProfileName="agent", RoleName="agent")
    data = {
        "ImageId": cloud.base_image,
        "InstanceType": "m5.large",
        "UserData": base64.b64encode(b'{"version":1}').decode(),
        "IamInstanceProfile": {"Name": "agent"},
        "SecurityGroupIds": [cloud.network()[2]],
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 2,
            "InstanceMetadataTags": "enabled",
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {"VolumeSize": 40, "Encrypted": True, "VolumeType": "gp3"},
            }
        ],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "TagSpecifications": [
            {
                "ResourceType": "instance",
                "Tags": [
                    {"Key": "from", "Value": "template"},
                    {"Key": "mesaform:pool", "Value": "default"},
                ],
            },
            {"ResourceType": "volume", "Tags": [{"Key": "from", "Value": "template"}]},
        ],
    }
    cloud.ec2.create_launch_template(LaunchTemplateName=TEMPLATE, LaunchTemplateData=data)
    yield TEMPLATE
    cloud.ec2.delete_launch_template(LaunchTemplateName=TEMPLATE)


def buy(
    cloud: Cloud,
    template: str,
    count: int,
    overrides: list[dict[str, Any]],
    capacity: str = "on-demand",
    **more: Any,
) -> dict[str, Any]:
    return cloud.ec2.create_fleet(
        Type="instant",
        LaunchTemplateConfigs=[
            {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateName": template,
                    "Version": "$Latest",
                },
                "Overrides": overrides,
            }
        ],
        TargetCapacitySpecification={
            "TotalTargetCapacity": count,
            "DefaultTargetCapacityType": capacity,
        },
        **more,
    )


def ids(answer: dict[str, Any]) -> list[str]:
    return [instance for item in answer["Instances"] for instance in item["InstanceIds"]]


def pool(cloud: Cloud, kind: str, zone: str = "us-east-1a") -> dict[str, Any]:
    return {"InstanceType": kind, "SubnetId": cloud.subnet(zone)}


def test_a_bought_machine_has_every_setting_of_the_template_and_the_request(
    cloud: Cloud, template: str
) -> None:
    tags = [
        {
            "ResourceType": "instance",
            "Tags": [
                {"Key": "from", "Value": "request"},
                {"Key": "mesaform:launch", "Value": "t-1"},
            ],
        }
    ]
    answer = buy(
        cloud, template, 1, [pool(cloud, "m5.large", "us-east-1b")], TagSpecifications=tags
    )
    assert answer["FleetId"].startswith("fleet-")
    assert [(item["Lifecycle"], item["InstanceType"]) for item in answer["Instances"]] == [
        ("on-demand", "m5.large")
    ]
    described = cloud.wait_state(ids(answer)[0], "running")
    named = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
    assert named["from"] == "request"
    assert named["mesaform:pool"] == "default"
    assert named["mesaform:launch"] == "t-1"
    assert named["aws:ec2:fleet-id"] == answer["FleetId"]
    assert described["Placement"]["AvailabilityZone"] == "us-east-1b"
    assert described["SubnetId"] == cloud.subnet("us-east-1b")
    assert described["PrivateIpAddress"].startswith(cloud.address("3"))
    assert described["IamInstanceProfile"]["Arn"].endswith("/agent")
    assert [group["GroupId"] for group in described["SecurityGroups"]] == [cloud.network()[2]]
    assert described["MetadataOptions"]["HttpTokens"] == "required"
    assert described["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert "InstanceLifecycle" not in described
    data = cloud.ec2.describe_instance_attribute(
        InstanceId=described["InstanceId"], Attribute="userData"
    )["UserData"]["Value"]
    assert base64.b64decode(data) == b'{"version":1}'
    volume = cloud.ec2.describe_volumes(
        VolumeIds=[described["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]]
    )["Volumes"][0]
    assert (volume["Size"], volume["Encrypted"], volume["Tags"]) == (
        40,
        True,
        [{"Key": "from", "Value": "template"}],
    )


def test_spot_machines_are_described_as_spot(cloud: Cloud, template: str) -> None:
    answer = buy(cloud, template, 1, [pool(cloud, "m5.large")], capacity="spot")
    assert [item["Lifecycle"] for item in answer["Instances"]] == ["spot"]
    assert cloud.describe(ids(answer)[0])["InstanceLifecycle"] == "spot"


def test_the_cheapest_pool_is_bought_first(cloud: Cloud, template: str) -> None:
    answer = buy(
        cloud,
        template,
        2,
        [pool(cloud, "m5.4xlarge"), pool(cloud, "m5.large"), pool(cloud, "m5.2xlarge")],
    )
    assert [(item["InstanceType"], len(item["InstanceIds"])) for item in answer["Instances"]] == [
        ("m5.large", 2)
    ]


def test_a_prioritized_fleet_follows_its_priorities(cloud: Cloud, template: str) -> None:
    overrides = [
        pool(cloud, "m5.large") | {"Priority": 2.0},
        pool(cloud, "m5.2xlarge") | {"Priority": 1.0},
    ]
    answer = buy(
        cloud, template, 1, overrides, OnDemandOptions={"AllocationStrategy": "prioritized"}
    )
    assert [item["InstanceType"] for item in answer["Instances"]] == ["m5.2xlarge"]


def test_a_pool_without_capacity_is_in_the_errors_and_the_next_one_is_bought(
    cloud: Cloud, template: str
) -> None:
    cloud.fault(kind="capacity", type="m5.large", zone="us-east-1a")
    answer = buy(cloud, template, 2, [pool(cloud, "m5.large"), pool(cloud, "m5.2xlarge")])
    assert [(item["InstanceType"], len(item["InstanceIds"])) for item in answer["Instances"]] == [
        ("m5.2xlarge", 2)
    ]
    error = answer["Errors"][0]
    assert error["ErrorCode"] == "InsufficientInstanceCapacity"
    assert error["Lifecycle"] == "on-demand"
    assert error["LaunchTemplateAndOverrides"]["Overrides"]["InstanceType"] == "m5.large"
    assert error["LaunchTemplateAndOverrides"]["Overrides"]["SubnetId"] == cloud.subnet()


def test_a_fleet_without_any_capacity_is_an_answer_without_instances(
    cloud: Cloud, template: str
) -> None:
    cloud.fault(kind="capacity", capacity="spot")
    answer = buy(
        cloud, template, 1, [pool(cloud, "m5.large"), pool(cloud, "m5.2xlarge")], capacity="spot"
    )
    assert answer["Instances"] == []
    assert {item["ErrorCode"] for item in answer["Errors"]} == {"InsufficientInstanceCapacity"}
    assert len(answer["Errors"]) == 2


def test_a_fleet_buys_what_is_left_when_capacity_runs_out(cloud: Cloud, template: str) -> None:
    first = buy(cloud, template, 1, [pool(cloud, "m5.large")])
    assert len(ids(first)) == 1
    cloud.fault(kind="capacity", type="m5.large", count=1)
    second = buy(cloud, template, 2, [pool(cloud, "m5.large"), pool(cloud, "m5.xlarge")])
    assert [item["InstanceType"] for item in second["Instances"]] == ["m5.xlarge"]
    assert buy(cloud, template, 1, [pool(cloud, "m5.large")])["Errors"] == []


def test_the_same_token_gives_the_same_fleet_and_buys_nothing_more(
    cloud: Cloud, template: str
) -> None:
    first = buy(cloud, template, 2, [pool(cloud, "m5.large")], ClientToken="fleet-once")
    again = buy(cloud, template, 2, [pool(cloud, "m5.large")], ClientToken="fleet-once")
    assert (again["FleetId"], ids(again)) == (first["FleetId"], ids(first))
    with pytest.raises(cloud.ec2.exceptions.ClientError, match="IdempotentParameterMismatch"):
        buy(cloud, template, 3, [pool(cloud, "m5.large")], ClientToken="fleet-once")


def test_run_instances_takes_a_launch_template_as_well(cloud: Cloud, template: str) -> None:
    instance = cloud.launch(
        "", InstanceType=None, ImageId=None, LaunchTemplate={"LaunchTemplateName": template}
    )
    described = cloud.describe(instance)
    assert described["InstanceType"] == "m5.large"
    assert described["IamInstanceProfile"]["Arn"].endswith("/agent")
    assert {"Key": "from", "Value": "template"} in described["Tags"]


def test_endpoint_services_have_their_kind(cloud: Cloud) -> None:
    names = [f"com.amazonaws.us-east-1.{service}" for service in ("s3", "ssm", "sqs", "ec2")]
    answer = cloud.ec2.describe_vpc_endpoint_services(ServiceNames=names)
    kinds = {
        (it["ServiceName"], it["ServiceType"][0]["ServiceType"]) for it in answer["ServiceDetails"]
    }
    assert (names[0], "Gateway") in kinds
    assert {(name, "Interface") for name in names[1:]} <= kinds


def test_long_listings_come_in_pages(cloud: Cloud) -> None:
    first = cloud.ec2.describe_instance_types()
    assert len(first["InstanceTypes"]) == 100
    pages = cloud.ec2.get_paginator("describe_instance_types").paginate()
    names = [item["InstanceType"] for page in pages for item in page["InstanceTypes"]]
    assert len(names) == len(set(names)) > 500
    offered = cloud.ec2.describe_instance_type_offerings(
        LocationType="availability-zone", MaxResults=5
    )
    assert (len(offered["InstanceTypeOfferings"]), offered["NextToken"]) == (5, "5")
    assert len(cloud.ec2.describe_spot_price_history()["SpotPriceHistory"]) == 1000


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"MaxResults": 101}, "InvalidParameterValue"),
        ({"NextToken": "x"}, "InvalidNextToken"),
        ({"NextToken": "-1"}, "InvalidNextToken"),
        ({"NextToken": "99999"}, "InvalidNextToken"),
    ],
)
def test_a_page_that_no_listing_has_is_refused(
    cloud: Cloud, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as refused:
        cloud.ec2.describe_instance_types(**arguments)
    assert refused.value.response["Error"]["Code"] == code


def test_types_state_their_size_and_spot_costs_a_third_of_on_demand(cloud: Cloud) -> None:
    kind = cloud.ec2.describe_instance_types(InstanceTypes=["m5.xlarge"])["InstanceTypes"][0]
    assert (kind["VCpuInfo"]["DefaultVCpus"], kind["MemoryInfo"]["SizeInMiB"]) == (4, 16384)
    history = cloud.ec2.describe_spot_price_history(
        InstanceTypes=["m5.xlarge"], ProductDescriptions=["Linux/UNIX"]
    )["SpotPriceHistory"]
    assert {item["AvailabilityZone"] for item in history} >= {
        "us-east-1a",
        "us-east-1b",
        "us-east-1c",
    }
    assert all(0.30 * 0.192 <= float(item["SpotPrice"]) <= 0.40 * 0.192 + 1e-6 for item in history)
