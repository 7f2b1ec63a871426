"""The account of the checked-in fixtures: what is in it, and that it is all there after reading.

`python -m tests.integration.localcloud.account_fixture` writes the fixture of the present schema.
Fixtures of released schemas are never written again.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from mesaform.localcloud.account_record import ACCOUNT
from tests.integration.localcloud.conftest import Cloud, start_cloud, stop_cloud

FIXTURES = Path(__file__).parent / "fixtures"
NETWORK = "127.83.0.0/16"
BUCKET = "mesaform-fixture"
LARGE = b"large content " * 1000
PATTERN = '{"source":["aws.ec2"]}'
TRUST = '{"Version":"2012-10-17","Statement":[]}'
POLICY = (
    '{"Version":"2012-10-17","Statement":'
    '[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}'
)


def fill(cloud: Cloud) -> None:
    """Create one of everything that the product uses."""
    ec2 = cloud.ec2
    profile = _create_role(cloud)
    template = ec2.create_launch_template(
        LaunchTemplateName="fixture",
        LaunchTemplateData={
            "ImageId": cloud.base_image,
            "InstanceType": "m5.large",
            "IamInstanceProfile": {"Name": profile},
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9, "Encrypted": True}}
            ],
            "UserData": "eyJ2ZXJzaW9uIjoxfQ==",
        },
    )["LaunchTemplate"]["LaunchTemplateId"]
    instance = cloud.launch(
        SubnetId=cloud.subnet(),
        LaunchTemplate={"LaunchTemplateId": template},
        ClientToken="fixture",
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "fixture"}]}
        ],
    )
    cloud.wait_state(instance, "running")
    ec2.stop_instances(InstanceIds=[instance])
    cloud.wait_state(instance, "stopped")
    _create_objects(cloud)
    _create_queue(cloud)
    cloud.client("ssm").put_parameter(Name="/fixture", Value="value", Type="String")


def _create_role(cloud: Cloud) -> str:
    iam = cloud.client("iam")
    iam.create_role(RoleName="fixture", AssumeRolePolicyDocument=TRUST)
    iam.put_role_policy(RoleName="fixture", PolicyName="policy", PolicyDocument=POLICY)
    iam.create_instance_profile(InstanceProfileName="fixture")
    iam.add_role_to_instance_profile(InstanceProfileName="fixture", RoleName="fixture")
    return "fixture"


def _create_objects(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=BUCKET, Key="small", Body=b"first")
    s3.put_object(Bucket=BUCKET, Key="small", Body=b"second", Metadata={"key": "value"})
    s3.put_object(Bucket=BUCKET, Key="large", Body=LARGE)
    s3.put_object(Bucket=BUCKET, Key="deleted", Body=b"x")
    s3.delete_object(Bucket=BUCKET, Key="deleted")


def _create_queue(cloud: Cloud) -> None:
    sqs, events = cloud.client("sqs"), cloud.client("events")
    url = sqs.create_queue(QueueName="fixture")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    events.put_rule(Name="fixture", EventPattern=PATTERN)
    events.put_targets(Rule="fixture", Targets=[{"Id": "queue", "Arn": attributes["QueueArn"]}])
    sqs.send_message(QueueUrl=url, MessageBody="waiting")


def contents(cloud: Cloud) -> dict[str, Any]:
    """What the account shows to its callers."""
    named = [{"Name": "tag:Name", "Values": ["fixture"]}]
    (reservation,) = cloud.ec2.describe_instances(Filters=named)["Reservations"]
    (instance,) = reservation["Instances"]
    (volume,) = cloud.ec2.describe_volumes(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
    )["Volumes"]
    template = cloud.ec2.describe_launch_template_versions(LaunchTemplateName="fixture")
    (vpc,) = cloud.ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": [NETWORK]}])["Vpcs"]
    subnets = cloud.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])
    return {
        "state": instance["State"]["Name"],
        "zone": instance["Placement"]["AvailabilityZone"],
        "profile": instance["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "volume": (volume["Size"], volume["Encrypted"]),
        "template": template["LaunchTemplateVersions"][0]["LaunchTemplateData"]["InstanceType"],
        "subnets": sorted(subnet["CidrBlock"] for subnet in subnets["Subnets"]),
        **_stored(cloud),
    }


def _stored(cloud: Cloud) -> dict[str, Any]:
    s3, sqs = cloud.client("s3"), cloud.client("sqs")
    iam, events = cloud.client("iam"), cloud.client("events")
    small, large = (s3.get_object(Bucket=BUCKET, Key=key) for key in ("small", "large"))
    versions = s3.list_object_versions(Bucket=BUCKET)
    url = sqs.get_queue_url(QueueName="fixture")["QueueUrl"]
    attributes = sqs.get_queue_attributes(
        QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"]
    )["Attributes"]
    return {
        "small": (small["Body"].read(), small["Metadata"]),
        "large": large["Body"].read(),
        "versions": len(versions["Versions"]),
        "markers": [marker["Key"] for marker in versions["DeleteMarkers"]],
        "parameter": cloud.client("ssm").get_parameter(Name="/fixture")["Parameter"]["Value"],
        "policies": iam.list_role_policies(RoleName="fixture")["PolicyNames"],
        "pattern": events.describe_rule(Name="fixture")["EventPattern"],
        "messages": attributes["ApproximateNumberOfMessages"],
    }


EXPECTED = {
    "state": "stopped",
    "zone": "us-east-1a",
    "profile": "fixture",
    "volume": (9, True),
    "template": "m5.large",
    "subnets": ["127.83.0.0/19", "127.83.32.0/19", "127.83.64.0/19"],
    "small": (b"second", {"key": "value"}),
    "large": LARGE,
    "versions": 4,
    "markers": ["deleted"],
    "parameter": "value",
    "policies": ["policy"],
    "pattern": PATTERN,
    "messages": "1",
}


def main() -> None:
    """Write the fixture of the present schema."""
    target = FIXTURES / f"account-version-{ACCOUNT.version}"
    with tempfile.TemporaryDirectory() as folder:
        cloud = start_cloud(Path(folder) / "local", NETWORK)
        try:
            fill(cloud)
            assert contents(cloud) == EXPECTED
        finally:
            stop_cloud(cloud)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(cloud.root / "account", target)


if __name__ == "__main__":
    main()
