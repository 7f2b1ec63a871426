"""A local AWS: moto's server on a free port, and one resource of each kind a cluster can own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
READ = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
    }
)
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


@dataclass(frozen=True)
class Cloud:
    """The endpoint, and a client for each service."""

    url: str

    def client(self, service: Any) -> Any:
        return _client(self.url, service)


@cache  # making EC2's takes longer than most of these tests
def _client(url: str, service: Any) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture(scope="session")
def server() -> Iterator[ThreadedMotoServer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(
            "MOTO_EC2_LOAD_DEFAULT_AMIS", "false"
        )  # five hundred images of others: half of every test's time
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def cloud(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An empty cloud, which the environment points at."""
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"))
    return Cloud(url)


def tag_specification(kind: str, cluster: str | None, **more: str) -> list[dict[str, Any]]:
    tags = {**({"mesaform:cluster": cluster} if cluster else {"Name": "stranger"}), **more}
    return [
        {
            "ResourceType": kind,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }
    ]


def tag_list(cluster: str | None) -> list[dict[str, str]]:
    return tag_specification("", cluster)[0]["Tags"]


def one_of_everything(
    cloud: Cloud, cluster: str | None, *, suffix: str, octet: int
) -> dict[str, str]:
    """A resource of every kind, tagged with the cluster's name (None: not ours); kind -> id."""
    ec2, iam, ssm, logs, events, sqs = (
        cloud.client(name) for name in ("ec2", "iam", "ssm", "logs", "events", "sqs")
    )
    tags = lambda kind, **more: tag_specification(kind, cluster, **more)  # noqa: E731
    vpc = ec2.create_vpc(CidrBlock=f"10.{octet}.0.0/16", TagSpecifications=tags("vpc"))["Vpc"][
        "VpcId"
    ]
    gateway = ec2.create_internet_gateway(TagSpecifications=tags("internet-gateway"))[
        "InternetGateway"
    ]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    subnet = ec2.create_subnet(
        VpcId=vpc, CidrBlock=f"10.{octet}.1.0/24", TagSpecifications=tags("subnet")
    )["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc, TagSpecifications=tags("route-table"))["RouteTable"][
        "RouteTableId"
    ]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    groups = [
        ec2.create_security_group(
            GroupName=f"g{i}-{suffix}",
            Description="x",
            VpcId=vpc,
            TagSpecifications=tags("security-group"),
        )["GroupId"]
        for i in range(2)
    ]
    for here, there in ((0, 1), (1, 0)):
        pairs = [{"GroupId": groups[there]}]
        rule = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "UserIdGroupPairs": pairs}
        ec2.authorize_security_group_ingress(GroupId=groups[here], IpPermissions=[rule])
    instance = ec2.run_instances(
        ImageId="ami-12c6146b",
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.micro",
        SubnetId=subnet,
        SecurityGroupIds=[groups[0]],
        TagSpecifications=tags("instance") + tags("volume"),
    )["Instances"][0]["InstanceId"]
    interface = ec2.create_network_interface(
        SubnetId=subnet, TagSpecifications=tags("network-interface")
    )["NetworkInterface"]
    volume = ec2.create_volume(
        AvailabilityZone=f"{REGION}a", Size=7, VolumeType="gp3", TagSpecifications=tags("volume")
    )["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume, TagSpecifications=tags("snapshot"))[
        "SnapshotId"
    ]
    image = ec2.create_image(
        InstanceId=instance, Name=f"image-{suffix}", TagSpecifications=tags("image")
    )["ImageId"]
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tags("elastic-ip"))[
        "AllocationId"
    ]
    nat = ec2.create_nat_gateway(
        SubnetId=subnet, AllocationId=address, TagSpecifications=tags("natgateway")
    )["NatGateway"]
    endpoint = ec2.create_vpc_endpoint(
        VpcId=vpc,
        ServiceName=f"com.amazonaws.{REGION}.s3",
        VpcEndpointType="Gateway",
        TagSpecifications=tags("vpc-endpoint"),
    )
    template = ec2.create_launch_template(
        LaunchTemplateName=f"mesaform-{suffix}",
        LaunchTemplateData={"InstanceType": "t3.micro"},
        TagSpecifications=tags("launch-template"),
    )["LaunchTemplate"]["LaunchTemplateId"]
    ec2.create_key_pair(KeyName=f"mesaform-{suffix}", TagSpecifications=tags("key-pair"))
    name = f"mesaform-{suffix}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST, Tags=tag_list(cluster))
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=READ)
    policy = iam.create_policy(PolicyName=name, PolicyDocument=READ, Tags=tag_list(cluster))[
        "Policy"
    ]["Arn"]
    iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    iam.create_instance_profile(InstanceProfileName=name, Tags=tag_list(cluster))
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    ssm.put_parameter(
        Name=f"/mesaform/{suffix}/spec", Value="{}", Type="String", Tags=tag_list(cluster)
    )
    queue = sqs.create_queue(
        QueueName=f"{name}-notices", tags={item["Key"]: item["Value"] for item in tag_list(cluster)}
    )["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    events.put_rule(
        Name=f"{name}-state", EventPattern='{"source":["aws.ec2"]}', Tags=tag_list(cluster)
    )
    events.put_targets(Rule=f"{name}-state", Targets=[{"Id": "queue", "Arn": arn}])
    logs.create_log_group(
        logGroupName=f"/mesaform/{suffix}",
        tags={item["Key"]: item["Value"] for item in tag_list(cluster)},
    )
    flow_log = ec2.create_flow_logs(
        ResourceIds=[vpc],
        ResourceType="VPC",
        TrafficType="ALL",
        LogGroupName=f"/mesaform/{suffix}",
        DeliverLogsPermissionArn=f"arn:aws:iam::123456789012:role/{name}",
        TagSpecifications=tags("vpc-flow-log"),
    )["FlowLogIds"][0]
    egress = ec2.create_egress_only_internet_gateway(
        VpcId=vpc, TagSpecifications=tags("egress-only-internet-gateway")
    )["EgressOnlyInternetGateway"]["EgressOnlyInternetGatewayId"]
    return {
        "flow log": flow_log,
        "egress-only gateway": egress,
        "hosted zone": _zone(cloud, cluster, vpc, suffix),
        **_balancer(cloud, cluster, vpc, subnet, suffix),
        "vpc": vpc,
        "internet gateway": gateway,
        "subnet": subnet,
        "route table": table,
        "security group": groups[0],
        "instance": instance,
        "network interface": interface["NetworkInterfaceId"],
        "volume": volume,
        "snapshot": snapshot,
        "image": image,
        "elastic address": address,
        "nat gateway": nat["NatGatewayId"],
        "vpc endpoint": endpoint["VpcEndpoint"]["VpcEndpointId"],
        "launch template": template,
        "key pair": f"mesaform-{suffix}",
        "event rule": f"{name}-state",
        "queue": queue,
        "role": name,
        "policy": policy,
        "instance profile": name,
        "parameter": f"/mesaform/{suffix}/spec",
        "log group": f"/mesaform/{suffix}",
    }


def _zone(cloud: Cloud, cluster: str | None, vpc: str, suffix: str) -> str:
    """A private zone with a record."""
    route53 = cloud.client("route53")
    zone: str = route53.create_hosted_zone(
        Name=f"{suffix}.internal",
        CallerReference=suffix,
        HostedZoneConfig={"PrivateZone": True},
        VPC={"VPCRegion": REGION, "VPCId": vpc},
    )["HostedZone"]["Id"].rpartition("/")[2]
    record = {
        "Name": f"masters.{suffix}.internal",
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": "10.0.0.1"}],
    }
    route53.change_resource_record_sets(
        HostedZoneId=zone,
        ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]},
    )
    route53.change_tags_for_resource(
        ResourceType="hostedzone",
        ResourceId=zone,
        AddTags=[*tag_list(cluster), {"Key": "mesaform:region", "Value": REGION}],
    )
    return zone


def _balancer(
    cloud: Cloud, cluster: str | None, vpc: str, subnet: str, suffix: str
) -> dict[str, str]:
    """A load balancer with a listener and a target group."""
    elb, tags = cloud.client("elbv2"), tag_list(cluster)
    balancer = elb.create_load_balancer(
        Name=f"{suffix}-masters", Subnets=[subnet], Type="network", Tags=tags
    )["LoadBalancers"][0]["LoadBalancerArn"]
    group = elb.create_target_group(
        Name=f"{suffix}-5050", Protocol="TCP", Port=5050, VpcId=vpc, TargetType="ip", Tags=tags
    )["TargetGroups"][0]["TargetGroupArn"]
    listener = elb.create_listener(
        LoadBalancerArn=balancer,
        Protocol="TCP",
        Port=5050,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
        Tags=tags,
    )["Listeners"][0]["ListenerArn"]
    return {"load balancer": balancer, "target group": group, "listener": listener}
